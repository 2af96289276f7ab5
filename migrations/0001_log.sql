-- The log on PostgreSQL: partitioned topics whose records lie packed in batches, so that a thousand records cost one row.
create table millrace.log_topic (
  topic_id integer generated always as identity primary key,
  name text not null unique,
  partitions integer not null check (partitions > 0),
  compacted boolean not null,
  retention_ms bigint,
  created_at timestamptz not null default now()
);

-- One row a partition. Appending locks it, so positions are gapless and become visible in their order.
create table millrace.log_head (
  topic_id integer not null references millrace.log_topic on delete cascade,
  partition integer not null,
  next_position bigint not null,
  start_position bigint not null default 0,
  primary key (topic_id, partition)
) with (fillfactor = 50);

-- `meta` is a JSON array with one element a record: [key, event time, event id, tenant, traceparent, schema version, headers,
-- position less base]; trailing nulls may be missing, and so may the last where positions have no holes. `vals` has one line a
-- record: its JSON value, or nothing for a deletion. Text, not json: a value may hold what jsonb cannot.
create table millrace.log_batch (
  topic_id integer not null references millrace.log_topic on delete cascade,
  partition integer not null,
  base_position bigint not null,
  next_position bigint not null,
  records integer not null,
  bytes integer not null,
  appended_at timestamptz not null default clock_timestamp(),
  meta text not null,
  vals text not null,
  -- of derived records: the outbox stream that a relay copied them from, and the first one's sequence in it. Readers give each
  -- record the headers millrace-stream and millrace-seq from these.
  stream text,
  first_seq bigint,
  primary key (topic_id, partition, base_position)
);
create index log_batch_age on millrace.log_batch (topic_id, appended_at);
alter table millrace.log_batch set (toast_tuple_target = 4096, autovacuum_vacuum_insert_scale_factor = 0.5);

-- Members of a group that share a topic's partitions get a higher number with every assignment.
create sequence millrace.log_generation;
