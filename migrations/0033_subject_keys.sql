-- The keys that protect personal data in events: destroying a subject's keys erases the data in all copies of the log, the outbox, Kafka and
-- Pulsar. A destroyed key leaves its row as a tombstone. `key` is encrypted if MILLRACE_KEY_ENCRYPTION_KEY is set.
create table millrace.subject_key (
  subject text collate "C" not null,
  number integer not null check (number > 0),
  key bytea,
  created_at timestamptz not null default now(),
  destroyed_at timestamptz,
  -- when the erasure was announced as an event, which projections handle
  announced_at timestamptz,
  primary key (subject, number),
  check ((key is null) = (destroyed_at is not null))
);
create index subject_key_unannounced on millrace.subject_key (subject) where destroyed_at is not null and announced_at is null;
