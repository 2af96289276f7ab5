-- Builds of projections: what one replay of a projection produced. `version` in all tables is the number of a build; `declared` is the version
-- that the code declares. A rebuild of unchanged code is a further build with the same declared version.
alter table millrace.projection add column declared integer;
update millrace.projection set declared = version;
alter table millrace.projection alter column declared set not null;

alter table millrace.progress
  -- until when the partition is frozen for a promotion, and by which one; null if it is retired or not frozen
  add column frozen_until timestamptz,
  add column frozen_by uuid,
  -- messages that were not published, because the build followed the live one
  add column muted bigint not null default 0;

-- Which build readers see. It changes in the transaction that makes a build the live one.
create table millrace.live (
  projection text primary key,
  version integer not null,
  moved_at timestamptz not null default now()
) with (fillfactor = 50);
insert into millrace.live (projection, version)
  select g.projection, max(g.version) from millrace.progress g
  join millrace.projection p on (p.name, p.version) = (g.projection, g.version)
  where g.mode = 'live' and p.retired_at is null group by 1;

-- What was promoted, by the token of the promotion: the build that was live, and the one that replaced it.
create table millrace.promotion (
  token uuid primary key,
  projection text not null,
  old integer not null,
  new integer not null,
  at timestamptz not null default clock_timestamp(),
  -- of the switch: once no snapshot is older, no reader sees the old build
  xid xid8 not null default pg_current_xact_id()
);
create index promotion_of on millrace.promotion (projection, at);

-- Freezes all partitions of the live build for so many milliseconds, or none: then it returns no row. Nothing has to be undone: once the time
-- is over, the next commit of the live build thaws its partition.
create function millrace.promote_freeze(p text, old integer, by uuid, ms float8)
returns table (topic text, "partition" integer, next_position bigint) language plpgsql as $$
begin
  perform 1 from millrace.progress g where g.projection = p and g.version = old order by g.topic, g.partition for update;
  -- statements of their own see what was committed until the rows were locked
  if not exists (select from millrace.live l where l.projection = p and l.version = old) or exists (
    select from millrace.progress g where g.projection = p and g.version = old
      and (g.mode = 'live' or (g.mode = 'frozen' and (g.frozen_by = by or g.frozen_until < clock_timestamp()))) is not true
  ) then
    return;
  end if;
  return query update millrace.progress g
    set mode = 'frozen', frozen_by = by, frozen_until = clock_timestamp() + ms * interval '1 ms'
    where g.projection = p and g.version = old returning g.topic, g.partition, g.next_position;
end
$$;

-- Ends a freeze before its time. Returns how many partitions were frozen.
create function millrace.promote_thaw(p text, old integer, by uuid) returns bigint language sql as $$
  with thawed as (
    update millrace.progress g set mode = 'live', frozen_by = null, frozen_until = null
    where g.projection = p and g.version = old and g.mode = 'frozen' and g.frozen_by = by returning 1
  )
  select count(*) from thawed
$$;

-- The switch: `new` becomes the live build in place of `old`, which follows it from then on. Raises MR001 where anything is not as it was
-- frozen. A call that is repeated with its token changes nothing.
create function millrace.promote_flip(p text, old integer, new integer, by uuid) returns text language plpgsql as $$
declare
  bad text;
begin
  -- as preparing does, which creates the rows of new partitions; it also makes a repeated call wait for the first one
  perform pg_advisory_xact_lock(7216513001);
  if exists (select from millrace.promotion t where t.token = by) then
    return 'done before';
  end if;
  perform 1 from millrace.progress g where g.projection = p and g.version in (old, new)
    order by g.topic, g.partition, g.version for update;
  -- a statement of its own sees what was committed until the rows were locked
  select string_agg(coalesce(o.topic, n.topic) || '/' || coalesce(o.partition, n.partition) || ' ' || case
      when n.version is null then 'has no position in build ' || new
      when o.version is null then 'has no position in build ' || old
      when n.halted is not null then 'is halted in build ' || new
      when n.mode <> 'follower' then 'is ' || n.mode || ' in build ' || new
      when o.mode <> 'frozen' or o.frozen_by is distinct from by then 'is not frozen by this promotion'
      when o.frozen_until > clock_timestamp() then 'is at ' || n.next_position || ' of ' || o.next_position
      else 'was frozen for too short a time' end, '; ' order by 1) into bad
  from (select * from millrace.progress g where g.projection = p and g.version = old) o
  full join (select * from millrace.progress g where g.projection = p and g.version = new) n using (topic, partition)
  where (o.mode = 'frozen' and o.frozen_by = by and o.frozen_until > clock_timestamp() and n.mode = 'follower'
    and n.next_position = o.next_position and n.halted is null) is not true;
  if bad is not null then
    raise exception '%', bad using errcode = 'MR001';
  end if;
  -- it keeps its incarnation, so that its process goes on at once; the stream goes on where the old build left it, with the times that it has announced
  update millrace.progress n set mode = 'live', outbox_seq = o.outbox_seq, announced = coalesce(o.announced, n.announced)
  from millrace.progress o
  where n.projection = p and n.version = new and o.projection = p and o.version = old
    and (o.topic, o.partition) = (n.topic, n.partition);
  update millrace.progress o set mode = 'follower', frozen_by = null, frozen_until = null,
    incarnation = gen_random_uuid(), commit_no = commit_no + 1
  where o.projection = p and o.version = old;
  update millrace.live l set version = new, moved_at = clock_timestamp() where l.projection = p and l.version = old;
  if not found then
    raise exception 'build % is not the live one', old using errcode = 'MR001';
  end if;
  insert into millrace.promotion (token, projection, old, new) values (by, p, old, new);
  return 'done';
end
$$;
