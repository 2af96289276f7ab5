-- Dead letters that can be retried and discarded: their whole record, what became of them, and which keys wait behind one.
alter table millrace.dead_letters
  drop constraint dead_letters_status_check,
  -- retrying: someone asked for it, and the record that asks is in the log or about to be; retried: that record was handled
  add constraint dead_letters_status_check check (status in ('parked', 'skipped', 'retrying', 'retried', 'discarded')),
  -- JSON text: what of the record the other columns cannot say, or not as it was
  add column envelope text,
  -- of the record by which it was last retried
  add column retried_position bigint,
  add column decided_by text,
  add column decided_at timestamptz;
-- a hash, for an index has no room for every key
create index dead_letters_open on millrace.dead_letters (projection, version, topic, partition, md5(key), position)
where status in ('parked', 'skipped', 'retrying');

-- of derived records, beside `stream` and `first_seq`: which history of the stream that sequence counts in, 8 hex digits
alter table millrace.log_batch add column incarnation text;
