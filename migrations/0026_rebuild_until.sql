-- Investigation builds, which `millrace rebuild --until` creates: where each stops. Such a build is never promoted.
create table millrace.rebuild_until (
  projection text not null,
  version integer not null,
  topic text not null,
  partition integer not null,
  -- the first position that is not processed
  position bigint not null,
  -- the build has what the log stored before this time, in milliseconds since 1970; the same for all partitions of a build
  until_ms bigint not null,
  primary key (projection, version, topic, partition)
);

-- Where a build stops in a partition; null if it is no investigation build. It reads nothing of partitions that were created later.
create function millrace.until_bound(p text, v integer, t text, n integer) returns bigint stable language sql as $$
  select coalesce(max(u.position) filter (where u.topic = t and u.partition = n), 0)
  from millrace.rebuild_until u where u.projection = p and u.version = v having count(*) > 0
$$;
