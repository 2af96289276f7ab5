-- Chains of projections. `stream_times`: the stream times that the streams which feed a derived topic have announced in this partition of it
-- (epoch milliseconds, by <projection>/<source> an array with one element for each partition of the source). `announced`: what this
-- partition's own stream has announced, by topic. Null for partitions that have neither.
alter table millrace.progress add column stream_times jsonb, add column announced jsonb;
