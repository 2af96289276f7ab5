-- When an id of a row was stored last: rows are deleted once the log no longer has the records of their ids. Rows from before count as stored now.
alter table millrace.seen add column stored_at timestamptz not null default now();
