-- Whether appends to a partition of an aggregate's topic are published by relays. It is read from the row that an append locks, so that a
-- stream of the outbox has no gap where it begins.
alter table millrace.log_head add column published boolean not null default false;
