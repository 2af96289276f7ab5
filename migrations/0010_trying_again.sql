-- Why a partition is being tried again without a person's help, since when, and which failures of events follow one another: JSON
-- {"reason", "count", "first", "message"}, kept by the same commit as the position, so that the count survives restarts.
alter table millrace.progress
  add column waiting text,
  add column waiting_since timestamptz,
  add column failing text;
