-- Projections: where each stands in its log, what it has seen, what came late, what failed, and what it has yet to publish.
create table millrace.projection (
  name text not null,
  version integer not null,
  definition text not null, -- of its tables, to tell a changed one
  created_at timestamptz not null default now(),
  primary key (name, version)
);

-- One row a projection version and partition: the fence of every commit.
create table millrace.progress (
  projection text not null,
  version integer not null,
  topic text not null,
  partition integer not null,
  mode text not null check (mode in ('live', 'follower', 'frozen')),
  epoch bigint not null default 0,
  generation bigint not null default 0,
  incarnation uuid,
  commit_no bigint not null default 0,
  first_position bigint not null default 0,
  next_position bigint not null default 0,
  fingerprint text, -- of the record at next_position - 1
  stream_time bigint, -- epoch milliseconds
  journal_no bigint not null default 0,
  outbox_seq bigint not null default 0,
  events bigint not null default 0,
  duplicates bigint not null default 0,
  seen_chunk bigint not null default 0,
  seen_fill integer not null default 0,
  committed_at timestamptz,
  halted text, -- why the partition stands still, until it is claimed again
  primary key (projection, version, topic, partition),
  foreign key (projection, version) references millrace.projection on delete cascade
) with (fillfactor = 50);

-- Ids that were handled, packed: 20 bytes each (12 of a hash, 8 of the event time as float8), some hundreds a row.
create table millrace.seen (
  projection text not null,
  version integer not null,
  topic text not null,
  partition integer not null,
  chunk bigint not null,
  min_time double precision not null,
  max_time double precision not null,
  ids bytea not null,
  primary key (projection, version, topic, partition, chunk)
) with (fillfactor = 70);
create index seen_time on millrace.seen (projection, version, topic, partition, max_time);
alter table millrace.seen alter column ids set storage external;

-- An event that came after a window had closed: one row for each contribution and window that it missed, numbered from 1.
create table millrace.late_events (
  projection text not null,
  version integer not null,
  topic text not null,
  partition integer not null,
  position bigint not null,
  number integer not null,
  window_name text not null,
  window_size text not null,
  window_start timestamptz,
  key jsonb not null,
  contribution jsonb not null,
  event_time timestamptz,
  stream_time timestamptz,
  trace_id text,
  committed_at timestamptz not null default now(),
  primary key (projection, version, topic, partition, position, number)
);

-- Events that a projection could not handle: parked until someone retries or discards them, or skipped because its policy says so.
create table millrace.dead_letters (
  id bigint generated always as identity primary key,
  projection text not null,
  version integer not null,
  topic text not null,
  partition integer not null,
  position bigint not null,
  status text not null check (status in ('parked', 'skipped')),
  key text,
  error text not null, -- the error's tag or name
  message text not null,
  attempts integer not null,
  value text, -- the record's value as it was read, if it was text that PostgreSQL can hold; else escaped as JSON
  headers jsonb not null,
  event_time timestamptz,
  trace_id text,
  failed_at timestamptz not null default now(),
  unique (projection, version, topic, partition, position)
);

-- What commits publish. A stream is a projection and a partition of its source, without the version; its sequence counts
-- messages from 1 with no gap. A row is a segment: what one commit publishes to one topic. `meta` and `vals` are as in log_batch.
create table millrace.outbox (
  projection text not null,
  source text not null,
  partition integer not null,
  first_seq bigint not null,
  messages integer not null check (messages > 0),
  incarnation uuid not null,
  target text not null,
  target_partition integer, -- of all its messages; null where they go to several
  meta text not null,
  vals text not null,
  created_at timestamptz not null default clock_timestamp(),
  primary key (projection, source, partition, first_seq)
);
create index outbox_age on millrace.outbox (created_at);
-- segments are read once and soon deleted: compressing them costs more than it saves
alter table millrace.outbox alter column meta set storage external, alter column vals set storage external;

-- How far each relay has come in each stream: the last message that its sink has.
create table millrace.relay_position (
  target text not null,
  projection text not null,
  source text not null,
  partition integer not null,
  seq bigint not null default 0,
  incarnation uuid,
  moved_at timestamptz,
  halted text,
  primary key (target, projection, source, partition)
) with (fillfactor = 50);
