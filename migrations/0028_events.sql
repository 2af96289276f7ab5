-- The event store of aggregates. An append of one command to one stream is one row of log_batch, so that the topic of an aggregate, which
-- has its name, is read as any other.
alter table millrace.log_topic
  add column aggregate boolean not null default false,
  add constraint log_topic_aggregate check (not aggregate or (not compacted and retention_ms is null));

-- Null in the rows of other topics. `entity`: the stream's id, which is the key of the row's records. `first_version`: of the first of them
-- in the stream; readers give each record the header millrace-version from it. `tags`: of all its events.
alter table millrace.log_batch
  add column entity text collate "C",
  add column first_version bigint,
  add column command_id uuid,
  add column command_digest uuid,
  add column tags text[];
create unique index log_batch_entity on millrace.log_batch (topic_id, partition, entity, first_version) where entity is not null;
create unique index log_batch_command on millrace.log_batch (topic_id, partition, command_id, entity) where entity is not null;
create index log_batch_tags on millrace.log_batch using gin (tags) with (fastupdate = off) where tags is not null;

-- One row a stream: its lock and its version, which is the number of its events; 0: it has none. `asked` and `added` carry what an append
-- asks for into ON CONFLICT, where only columns can be read. `remembered` counts the answers in millrace.command: an append whose snapshot
-- has another number than the locked row looks again.
create table millrace.event_stream (
  topic_id integer not null references millrace.log_topic on delete cascade,
  stream text collate "C" not null,
  version bigint not null,
  asked bigint not null,
  added integer not null,
  remembered bigint not null default 0,
  closed text check (closed in ('archived', 'erased')),
  primary key (topic_id, stream)
) with (fillfactor = 60);

-- One row a tag of an aggregate's events: its lock, and how many appends had it.
create table millrace.event_tag (
  topic_id integer not null references millrace.log_topic on delete cascade,
  tag text collate "C" not null,
  version bigint not null,
  asked bigint,
  added integer not null,
  primary key (topic_id, tag)
) with (fillfactor = 60);

-- The state of a stream at a version, by the form of the state.
create table millrace.event_snapshot (
  topic_id integer not null references millrace.log_topic on delete cascade,
  stream text collate "C" not null,
  shape text not null,
  version bigint not null,
  state text not null,
  subjects text[] not null,
  taken_at timestamptz not null default now(),
  primary key (topic_id, stream, shape)
);
create index event_snapshot_subjects on millrace.event_snapshot using gin (subjects);

-- What commands answered that appended nothing, for 7 days. `answer` is JSON: the rejection, or null if the command decided no events.
create table millrace.command (
  topic_id integer not null references millrace.log_topic on delete cascade,
  stream text collate "C" not null,
  command_id uuid not null,
  digest uuid not null,
  version bigint not null,
  answer text not null,
  answered_at timestamptz not null default clock_timestamp(),
  primary key (topic_id, stream, command_id)
);
create index command_age on millrace.command (answered_at);

-- Refuses an append: it is rolled back, and `what` says why, as JSON.
create function millrace.refuse_append(what text) returns integer language plpgsql as $$
begin
  raise exception 'append refused' using errcode = 'MR409', detail = what;
end
$$;

-- Stores what a command answered, unless it was answered before: under the lock of its stream, so that an append of the same command and
-- this exclude each other. Returns false if the command has appended events.
create function millrace.remember_answer(of_topic integer, of_partition integer, of_stream text, id uuid, of_digest uuid, at_version bigint, of_answer text)
returns boolean language plpgsql as $$
begin
  insert into millrace.event_stream as s (topic_id, stream, version, asked, added, remembered)
  values (of_topic, of_stream, 0, -1, 0, 1)
  on conflict (topic_id, stream) do update set remembered = s.remembered + 1;
  -- a statement of its own sees what was committed until the lock was had
  if exists (
    select from millrace.log_batch b
    where (b.topic_id, b.partition, b.command_id, b.entity) = (of_topic, of_partition, id, of_stream) and b.entity is not null
  ) then
    return false;
  end if;
  insert into millrace.command as c (topic_id, stream, command_id, digest, version, answer)
  values (of_topic, of_stream, id, of_digest, at_version, of_answer)
  on conflict (topic_id, stream, command_id) do update
    set digest = excluded.digest, version = excluded.version, answer = excluded.answer, answered_at = excluded.answered_at
    where c.answered_at < now() - interval '7 days';
  delete from millrace.command where ctid = any (array(
    select ctid from millrace.command where answered_at < now() - interval '7 days' order by answered_at limit 10 for update skip locked
  ));
  return true;
end
$$;

-- The topic of an aggregate is its store, not a copy.
create function millrace.log_topic_kept() returns trigger language plpgsql as $$
begin
  raise exception 'topic % has the events of an aggregate and cannot be deleted', old.name
    using hint = 'archive its streams instead; to give up all of its events, delete the database';
end
$$;
create trigger log_topic_kept before delete on millrace.log_topic
for each row when (old.aggregate) execute function millrace.log_topic_kept();

-- As before, and the events of aggregates have the header millrace-version.
create or replace view millrace.log_record as
select
  t.name as topic,
  b.partition,
  b.base_position + coalesce((r.m ->> 7)::bigint, r.n - 1) as position,
  r.m ->> 0 as key,
  case when (r.m ->> 1)::float8 between -2e14 and 9e15 then to_timestamp((r.m ->> 1)::float8 / 1000) end as event_time,
  r.m ->> 2 as event_id,
  r.m ->> 3 as tenant,
  substr(r.m ->> 4, 4, 32) as trace_id,
  case when b.first_version is null then h.headers
    else (coalesce(h.headers::jsonb, '{}') || jsonb_build_object('millrace-version', (b.first_version + r.n - 1)::text))::json end as headers,
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
cross join lateral (
  select case json_typeof(r.m -> 6) when 'number' then s.meta -> (r.m ->> 6)::integer -> 6 else r.m -> 6 end as headers
) h
where b.records > 0;
