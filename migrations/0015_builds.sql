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
