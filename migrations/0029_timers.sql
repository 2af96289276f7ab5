-- Commands that handlers send to aggregates, at once or at a time. A commit of the projection writes them; the append that executes one
-- deletes it in the same statement, so each is executed once.
create table millrace.timer (
  -- the projection, the event and the call decide it, and it is the id of the command
  timer_id uuid primary key,
  projection text not null,
  -- the event whose handler asked for it, and the number of the call
  topic text not null,
  partition integer not null,
  position bigint not null,
  number integer not null,
  key text not null,
  -- of a timer; null for a command that is sent at once
  name text,
  -- of a timer: a hash of projection, key and name, under which it is set again and cancelled
  slot uuid unique,
  -- of a command that is sent at once: a hash of projection, topic, partition, aggregate and stream. Those of a line are executed in the
  -- order of (position, number)
  line uuid,
  due timestamptz not null,
  aggregate text not null,
  stream text not null,
  -- JSON
  command text not null,
  tenant text,
  traceparent text,
  correlation_id text not null,
  causation_id text not null,
  -- when a worker may claim it: when it is due, when the lease of the last claim ends, or when it is tried again
  next_try timestamptz not null,
  -- how often it failed since it was due, why the last time, and since when
  attempts integer not null default 0,
  failed text,
  failing_since timestamptz,
  check ((name is null) = (slot is null) and (slot is null) <> (line is null))
) with (fillfactor = 80);
create index timer_next on millrace.timer (next_try);
create index timer_line on millrace.timer (line, position, number) where line is not null;
create index timer_projection on millrace.timer (projection);
