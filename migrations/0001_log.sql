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
-- Below `clean_position` a compacted topic has been compacted.
create table millrace.log_head (
  topic_id integer not null references millrace.log_topic on delete cascade,
  partition integer not null,
  next_position bigint not null,
  start_position bigint not null default 0,
  clean_position bigint not null default 0,
  primary key (topic_id, partition)
) with (fillfactor = 50);

-- A partition's batches tile it: each begins where the one before ends, from `start_position` to `next_position` of its head.
-- `meta` is a JSON array with one element a record: [key, event time, event id, tenant, traceparent, schema version, headers,
-- position less base, milliseconds taken before `appended_at`, when a deletion may be forgotten]. Trailing nulls are missing, and
-- so is the position where there are no holes. `headers` is an object, or the index of this batch's record that has the same
-- ones. `vals` has one line a record: its JSON value, or nothing for a deletion. Text, not json: a value may hold what jsonb cannot.
-- No foreign key: it would lock a row more for every batch, and each comes from a head row. They go with it, by the trigger.
create table millrace.log_batch (
  topic_id integer not null,
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
alter table millrace.log_batch set (autovacuum_vacuum_insert_scale_factor = 0.5);

create function millrace.log_head_deleted() returns trigger language plpgsql as $$
begin
  delete from millrace.log_batch where topic_id = old.topic_id and partition = old.partition;
  return null;
end
$$;
create trigger log_head_deleted after delete on millrace.log_head
for each row execute function millrace.log_head_deleted();

-- A group of readers that share a topic's partitions. Its number is the advisory locks' first key, so no two groups collide.
create table millrace.log_group (
  group_id integer generated always as identity primary key,
  topic_id integer not null references millrace.log_topic on delete cascade,
  name text not null,
  unique (topic_id, name)
);

-- Members of a group that share a topic's partitions get a higher number with every assignment.
create sequence millrace.log_generation;

-- lz4 takes little of the server's time. A server may have been built without it, and pglz takes more than appending itself.
do $$
begin
  alter table millrace.log_batch alter column meta set compression lz4, alter column vals set compression lz4;
exception when feature_not_supported or invalid_parameter_value then
  alter table millrace.log_batch alter column meta set storage external, alter column vals set storage external;
end
$$;

-- The log for people: one row a record. What SQL text cannot hold (NUL, half a surrogate pair) is shown as its JSON escape.
create view millrace.log_record as
select
  t.name as topic,
  b.partition,
  b.base_position + coalesce((r.m ->> 7)::bigint, r.n - 1) as position,
  r.m ->> 0 as key,
  case when (r.m ->> 1)::float8 between -2e14 and 9e15 then to_timestamp((r.m ->> 1)::float8 / 1000) end as event_time,
  r.m ->> 2 as event_id,
  r.m ->> 3 as tenant,
  substr(r.m ->> 4, 4, 32) as trace_id,
  case json_typeof(r.m -> 6) when 'number' then s.meta -> (r.m ->> 6)::integer -> 6 else r.m -> 6 end as headers,
  nullif(r.value, '') as value,
  b.appended_at - coalesce((r.m ->> 8)::float8, 0) * interval '1 millisecond' as appended_at
from millrace.log_batch b
join millrace.log_topic t using (topic_id)
cross join lateral (
  select (case when b.meta ~* '\\u(0000|d[89a-f])'
    then regexp_replace(b.meta, '(?<!\\)((?:\\\\)*)\\u(0000|d[89a-f]..)', '\1\\\\u\2', 'gi')
    else b.meta end)::json as meta
) s
cross join lateral rows from (json_array_elements(s.meta), string_to_table(b.vals, e'\n')) with ordinality as r (m, value, n)
where b.records > 0;
