-- Relays to targets outside of the database: lanes, their ids, and how a stream begins and is collected without losing what lies between.

-- A relay's streams are shared by lanes, each with a producer of its own whose id lets the newest fence all others. `generation`
-- grows when the number of lanes changes; until every id in use before was taken over once, `fenced` is false and no lane starts.
create table millrace.relay_grouping (
  target text primary key,
  number integer not null generated always as identity unique,
  lanes integer not null check (lanes between 1 and 256),
  generation bigint not null default 1,
  fenced boolean not null default false
);
-- Every id that was ever used, those of lanes beyond the grouping's number included.
create table millrace.relay_lane (
  target text not null references millrace.relay_grouping on delete cascade,
  lane integer not null,
  producer_id text not null,
  primary key (target, lane)
);

-- A person's word that the position here is right where it does not fit the target's: the relay takes it over once.
alter table millrace.relay_position add column adopt boolean not null default false;

-- Streams that have segments and no position at the target, and their first segments. One probe of the key a stream, for the outbox
-- holds many segments of few streams.
create function millrace.relay_missing(of_target text)
returns table (projection text, source text, "partition" integer, first_seq bigint) language sql volatile as $$
  with recursive stream as (
    (
      select o.projection, o.source, o.partition, o.first_seq
      from millrace.outbox o
      order by o.projection, o.source, o.partition, o.first_seq
      limit 1
    )
    union all
    select next.projection, next.source, next.partition, next.first_seq
    from stream s
    cross join lateral (
      select o.projection, o.source, o.partition, o.first_seq
      from millrace.outbox o
      where (o.projection, o.source, o.partition) > (s.projection, s.source, s.partition)
      order by o.projection, o.source, o.partition, o.first_seq
      limit 1
    ) next
  )
  select * from stream s
  where not exists (
    select from millrace.relay_position p
    where (p.target, p.projection, p.source, p.partition) = (of_target, s.projection, s.source, s.partition)
  )
$$;

-- Such streams begin where the outbox does if another relay has brought what is missing before, else at 0. Beginning and collecting
-- exclude each other: a position that is not seen keeps nothing. Both relays of a race insert in one order, so they cannot deadlock.
create function millrace.relay_begin(of_target text) returns integer language plpgsql as $$
declare
  begun integer;
begin
  if not exists (select from millrace.relay_missing(of_target)) then
    return 0;
  end if;
  perform pg_advisory_xact_lock_shared(1820000000, 0);
  -- a statement of its own sees what was collected until the lock was had
  insert into millrace.relay_position (target, projection, source, partition, seq)
  select of_target, m.projection, m.source, m.partition,
    case when m.first_seq > 1 and exists (
      select from millrace.relay_position o
      where (o.projection, o.source, o.partition) = (m.projection, m.source, m.partition) and o.seq >= m.first_seq - 1
    ) then m.first_seq - 1 else 0 end
  from millrace.relay_missing(of_target) m
  order by 1, 2, 3, 4
  on conflict do nothing;
  get diagnostics begun = row_count;
  return begun;
end
$$;

-- Deletes segments that every target has, older than the retention, at most so many. The segment that a position lies in stays: a
-- relay compares it before it goes on. So a stream keeps its last one.
create function millrace.outbox_collect(targets text[], retention_ms float8, most integer) returns integer language plpgsql as $$
declare
  deleted integer;
begin
  perform pg_advisory_xact_lock(1820000000, 0);
  -- a statement of its own sees what was begun until the lock was had
  with needed as (
    select unnest(targets) as target
    union
    select target from millrace.relay_position
  ), stream as (
    select distinct projection, source, partition from millrace.relay_position
  ), shipped as (
    select s.projection, s.source, s.partition, min(coalesce(p.seq, 0)) as seq
    from stream s
    cross join needed n
    left join millrace.relay_position p
      on (p.target, p.projection, p.source, p.partition) = (n.target, s.projection, s.source, s.partition)
    group by 1, 2, 3
  )
  delete from millrace.outbox
  where ctid = any (array(
    select o.ctid
    from shipped s
    join millrace.outbox o on (o.projection, o.source, o.partition) = (s.projection, s.source, s.partition)
      and o.first_seq + o.messages - 1 < s.seq
    where o.created_at < now() - retention_ms * interval '1 millisecond'
    order by o.created_at
    limit most
    for update of o skip locked
  ));
  get diagnostics deleted = row_count;
  return deleted;
end
$$;
