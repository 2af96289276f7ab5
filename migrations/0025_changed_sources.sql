-- Builds whose sources are not those of the live build. A topic that only a follower reads has no bound by the live build; the stream of a topic that
-- only the replaced build reads ends at the switch, and says so in its topics by a time mark with the greatest time.

-- How far a build may process a partition of a topic that the live build does not read; null if the live build reads the topic, or there is none.
-- A build that has never been live goes as far as the log does. One that was stays where the stream of the partition ended, so that it publishes
-- each message once when it is promoted again.
create function millrace.own_bound(p text, v integer, t text, n integer) returns bigint stable language sql as $$
  select case when exists (select from millrace.promotion m where m.projection = p and m.old = v)
    then (select max(g.next_position) from millrace.progress g where g.projection = p and g.topic = t and g.partition = n
      and exists (select from millrace.promotion m where m.projection = p and m.old = g.version))
    else 9007199254740991 end
  from millrace.live l where l.projection = p
    and not exists (select from millrace.progress g where (g.projection, g.version, g.topic) = (p, l.version, t))
$$;

-- The switch: `new` becomes the live build in place of `old`, which follows it from then on. Raises MR001 where anything is not as it was frozen. A
-- call that is repeated with its token changes nothing. Both builds need not read the same topics. A partition of a topic that only the new build
-- reads continues the stream that earlier builds left, and must not lie before its end.
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
  with both_builds as (
    select coalesce(o.topic, n.topic) as topic, coalesce(o.partition, n.partition) as partition, o.version as o_version, n.version as n_version,
      o.mode as o_mode, o.frozen_by, o.frozen_until, o.next_position as o_position, n.mode as n_mode, n.halted, n.next_position as n_position,
      exists (select from millrace.progress g where (g.projection, g.version, g.topic) = (p, old, n.topic)) as old_reads,
      exists (select from millrace.progress g where (g.projection, g.version, g.topic) = (p, new, o.topic)) as new_reads,
      coalesce((select max(g.next_position) from millrace.progress g where (g.projection, g.topic, g.partition) = (p, n.topic, n.partition)
        and exists (select from millrace.promotion m where m.projection = p and m.old = g.version)), 0) as ended
    from (select * from millrace.progress g where g.projection = p and g.version = old) o
    full join (select * from millrace.progress g where g.projection = p and g.version = new) n using (topic, partition)
  ), judged as (
    select topic, partition, case
      when n_version is null and new_reads then 'has no position in build ' || new
      when o_version is null and old_reads then 'has no position in build ' || old
      when halted is not null then 'is halted in build ' || new
      when n_mode <> 'follower' then 'is ' || n_mode || ' in build ' || new
      when o_version is null and n_position < ended then 'is at ' || n_position || ' of ' || ended || ', where an earlier build ended'
      when o_version is null then null
      when o_mode <> 'frozen' or frozen_by is distinct from by then 'is not frozen by this promotion'
      when (frozen_until > clock_timestamp()) is not true then 'was frozen for too short a time'
      when n_position <> o_position then 'is at ' || n_position || ' of ' || o_position end as problem
    from both_builds
  )
  select string_agg(topic || '/' || partition || ' ' || problem, '; ' order by topic, partition) into bad from judged where problem is not null;
  if bad is not null then
    raise exception '%', bad using errcode = 'MR001';
  end if;
  -- streams that end announce so in the topics that other projections read, which would wait for them: those of sources that the new build does not
  -- read, and all in topics that it does not publish
  with ending as (
    select o.topic, o.partition, o.outbox_seq, o.incarnation, o.stream_time, t.target, s.number - 1 as target_partition,
      row_number() over (partition by o.topic, o.partition order by t.target, s.number) as nth
    from millrace.progress o
    join millrace.projection q on (q.name, q.version) = (p, old)
    join millrace.projection r on (r.name, r.version) = (p, new)
    cross join lateral jsonb_object_keys(o.announced) as t (target)
    cross join lateral generate_series(1, coalesce((q.parts->('published topic ' || t.target)->>'partitions')::int4,
      (select count(*)::int4 from millrace.progress g where (g.projection, g.version, g.topic) = (p, old, o.topic)))) as s (number)
    where o.projection = p and o.version = old and r.parts is not null and not (r.parts ? ('published topic ' || t.target)
      and exists (select from millrace.progress g where (g.projection, g.version, g.topic) = (p, new, o.topic)))
  ), marks as (
    insert into millrace.outbox (projection, source, partition, first_seq, messages, incarnation, target, target_partition, meta, vals)
    select p, topic, partition, outbox_seq + nth, 1, coalesce(incarnation, gen_random_uuid()), target, target_partition,
      format('[[%s,%s,null,null,null,null,{"millrace-time":"8640000000000000"}]]',
        to_json('millrace-time ' || p || '/' || topic || '/' || partition), coalesce(stream_time, 0)), ''
    from ending
  )
  update millrace.progress o set outbox_seq = o.outbox_seq + e.count
  from (select topic, partition, count(*) from ending group by 1, 2) e
  where o.projection = p and o.version = old and (o.topic, o.partition) = (e.topic, e.partition);
  -- it keeps its incarnation, so that its process goes on at once; the stream goes on where the old build left it, with the times that it has announced
  update millrace.progress n set mode = 'live', outbox_seq = o.outbox_seq, announced = coalesce(o.announced, n.announced)
  from millrace.progress o
  where n.projection = p and n.version = new and o.projection = p and o.version = old
    and (o.topic, o.partition) = (n.topic, n.partition);
  -- of a topic that the old build does not read: an earlier build may have published
  update millrace.progress n set mode = 'live', outbox_seq = (select max(g.outbox_seq) from millrace.progress g
    where (g.projection, g.topic, g.partition) = (p, n.topic, n.partition))
  where n.projection = p and n.version = new and n.mode = 'follower';
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
