-- How long records wait, and how many messages are published: `committed_at` and `outbox_seq` count what only announces a time, too.
alter table millrace.progress
  -- when the position moved last; null if it has not since this column exists
  add column moved_at timestamptz,
  -- the time marks among the messages that `outbox_seq` counts
  add column marks bigint not null default 0;
