-- Which processes run and what each does, so that the status can name what is missing; who has claimed a partition; what relays skip.

-- A row for each process that runs a role, written every few seconds. A process deletes its row when it stops; others delete rows that
-- are an hour old.
create table millrace.process (
  process_id uuid primary key,
  host text not null,
  pid integer not null,
  roles text[] not null,
  -- `<name>_v<version>` of the projections that it runs, and the targets of its relays
  projections text[] not null,
  targets text[] not null,
  -- what it tries again: a JSON array of {"what", "reason", "sinceMs"}, as of `last_seen`
  failing jsonb not null default '[]',
  started_at timestamptz not null default clock_timestamp(),
  last_seen timestamptz not null default clock_timestamp()
);
create index process_seen on millrace.process (last_seen);

-- The process that made the last claim. No foreign key: its row may be gone.
alter table millrace.progress add column claimed_by uuid;

-- The topics that do not go to a relay target, as the application declares them: what is published to them is not behind there.
create table millrace.relay_skipped (
  target text not null,
  topic text not null,
  primary key (target, topic)
);
