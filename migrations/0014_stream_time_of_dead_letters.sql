-- The stream time at a dead letter's own position, epoch milliseconds: by it a retry decides which windows the event is too late for. Null for
-- records of lookup topics, and for dead letters that were stored before: their retries are judged by the stream time of the moment.
alter table millrace.dead_letters add column stream_time bigint;
