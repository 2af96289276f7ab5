-- Discards of dead letters are records of the log, as retries are. Null: the log has no record of it, as for discards from before.
-- pending: the projection has not processed the record yet. Until then the dead letter keeps its key waiting, as it does in a replay.
alter table millrace.dead_letters add column discard_record text check (discard_record in ('pending', 'processed'));
-- the index of those that are open for the projection
drop index millrace.dead_letters_open;
create index dead_letters_open on millrace.dead_letters (projection, version, topic, partition, md5(key), position)
where status in ('parked', 'skipped', 'retrying') or discard_record = 'pending';
