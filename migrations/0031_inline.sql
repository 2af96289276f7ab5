-- Inline projections: builds whose rows the statements write that append the events of an aggregate. A live build is inline or async; followers are async.

alter table millrace.projection
  -- how the code that was started last runs this version
  add column lifecycle text not null default 'async' check (lifecycle in ('async', 'inline'));

alter table millrace.progress
  -- whether appends write the build's rows and move its positions; no process claims its partitions then
  add column inline boolean not null default false;

alter table millrace.log_head
  -- the inline builds of the topic, as JSON: {"since": transaction, "builds": [[name, number, declared version]]}; null if there never was one. An
  -- append says for which builds it has rows, by the same text, and is refused where it differs. So no append leaves a build out, or writes for one
  -- that is not inline any more, whichever code its process has.
  add column inline text;

-- Refuses an append that was made for other inline builds than the topic has.
create function millrace.refuse_inline(t integer, builds text) returns bigint language plpgsql as $$
begin
  raise exception 'the inline projections of the topic are others' using errcode = 'MR410',
    detail = json_build_object('topic_id', t, 'inline', builds)::text;
end
$$;
-- Refuses an append for an inline build that a promotion has frozen.
create function millrace.refuse_frozen() returns boolean language plpgsql as $$
begin
  raise exception 'an inline projection is frozen by a promotion' using errcode = 'MR411';
end
$$;

-- Locks the counters of the topics that builds of a projection read, in the order in which appends lock them. Appends wait from then on.
create function millrace.lock_counters(p text, builds integer[]) returns void language plpgsql as $$
begin
  perform 1 from millrace.log_head h join millrace.log_topic t using (topic_id)
  where t.aggregate and t.name in (select g.topic from millrace.progress g where g.projection = p and g.version = any (builds))
  order by h.topic_id, h.partition for update of h;
end
$$;
-- Writes into the counters of these topics which inline builds they have now. The counters must be locked.
create function millrace.note_inline(topics text[]) returns void language sql as $$
  update millrace.log_head h set inline = json_build_object('since', pg_current_xact_id()::text, 'builds', (
      select coalesce(json_agg(json_build_array(b.name, b.version, b.declared) order by b.name, b.version), '[]')
      from millrace.projection b where exists (
        select from millrace.progress g where (g.projection, g.version, g.topic) = (b.name, b.version, t.name) and g.inline)))::text
  from millrace.log_topic t where t.topic_id = h.topic_id and t.name = any (topics)
$$;

-- Moves a live build to the lifecycle that the code wants. To inline: appends wait until the runner has processed what is appended, at most `ms`
-- milliseconds; then they write its rows. To async: the runner goes on where the appends stopped. Returns 'done', or why not: 'done before',
-- 'not live', 'frozen', 'halted', 'dead letters' or 'behind'; then nothing was changed.
create function millrace.move_lifecycle(p text, v integer, ms float8) returns text language plpgsql as $$
declare
  until timestamptz;
  wants_inline boolean;
  topics text[];
  lag bigint;
begin
  -- as preparing and promoting do
  perform pg_advisory_xact_lock(7216513001);
  select b.lifecycle = 'inline' into wants_inline from millrace.projection b join millrace.live l on (l.projection, l.version) = (b.name, b.version)
    where (b.name, b.version) = (p, v);
  if wants_inline is null then
    return 'not live';
  end if;
  select array_agg(distinct g.topic) into topics from millrace.progress g where (g.projection, g.version) = (p, v);
  if not exists (select from millrace.progress g where (g.projection, g.version) = (p, v) and g.inline <> wants_inline) then
    return 'done before';
  end if;
  if exists (select from millrace.progress g where (g.projection, g.version) = (p, v) and g.mode <> 'live') then
    return 'frozen';
  end if;
  if wants_inline then
    -- an event that failed waits for a person, and nothing could retry it afterwards
    if exists (select from millrace.dead_letters d where (d.projection, d.version) = (p, v) and d.status in ('parked', 'retrying')) then
      return 'dead letters';
    end if;
    if exists (select from millrace.progress g where (g.projection, g.version) = (p, v) and g.halted is not null) then
      return 'halted';
    end if;
    -- appends are not made to wait for more than a moment's work
    select coalesce(sum(h.next_position - coalesce(g.next_position, 0)), 0) into lag from millrace.log_head h
      join millrace.log_topic t using (topic_id)
      left join millrace.progress g on (g.projection, g.version, g.topic, g.partition) = (p, v, t.name, h.partition)
      where t.name = any (topics);
    if lag > 1000 then
      return 'behind';
    end if;
  end if;
  perform millrace.lock_counters(p, array[v]);
  until := clock_timestamp() + ms * interval '1 ms';
  -- each statement sees what was committed until it began
  while wants_inline and exists (
    select from millrace.log_head h join millrace.log_topic t using (topic_id)
    left join millrace.progress g on (g.projection, g.version, g.topic, g.partition) = (p, v, t.name, h.partition)
    where t.name = any (topics) and coalesce(g.next_position, 0) < h.next_position)
  loop
    if clock_timestamp() > until then
      return 'behind';
    end if;
    perform pg_sleep(0.002);
  end loop;
  perform 1 from millrace.progress g where (g.projection, g.version) = (p, v) order by g.topic, g.partition for update;
  -- a runner's commits are fenced from here on; what failed meanwhile would have been left out
  if wants_inline and exists (
    select from millrace.dead_letters d where (d.projection, d.version) = (p, v) and d.status in ('parked', 'retrying')) then
    return 'dead letters';
  end if;
  if exists (select from millrace.progress g where (g.projection, g.version) = (p, v) and g.mode <> 'live') then
    return 'frozen';
  end if;
  update millrace.progress g set inline = wants_inline, incarnation = gen_random_uuid(), commit_no = commit_no + 1,
      fingerprint = null, halted = null, waiting = null, waiting_since = null
    where (g.projection, g.version) = (p, v);
  perform millrace.note_inline(topics);
  return 'done';
end
$$;

-- As before, and the new build takes over from appends, too, where the old one was inline. The switch: `new` becomes the live build in place of `old`, which follows it from then on. Raises MR001 where anything is not as it was frozen. A
-- call that is repeated with its token changes nothing. Both builds need not read the same topics. A partition of a topic that only the new build
-- reads continues the stream that earlier builds left, and must not lie before its end.
create or replace function millrace.promote_flip(p text, old integer, new integer, by uuid) returns text language plpgsql as $$
declare
  bad text;
  was_inline boolean;
  topics text[];
begin
  -- as preparing does, which creates the rows of new partitions; it also makes a repeated call wait for the first one
  perform pg_advisory_xact_lock(7216513001);
  if exists (select from millrace.promotion t where t.token = by) then
    return 'done before';
  end if;
  was_inline := exists (select from millrace.progress g where (g.projection, g.version) = (p, old) and g.inline);
  if was_inline then
    -- before any position, as appends do
    perform millrace.lock_counters(p, array[old, new]);
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
  if was_inline then
    -- Appends write the rows of the new build from now on, if the code wants that and it has processed all that was appended. Otherwise its runner
    -- goes on, and `move_lifecycle` makes it inline.
    select array_agg(distinct g.topic) into topics from millrace.progress g where g.projection = p and g.version in (old, new);
    update millrace.progress o set inline = false where (o.projection, o.version) = (p, old);
    update millrace.progress n set inline = true, incarnation = gen_random_uuid(), commit_no = commit_no + 1, fingerprint = null
    where (n.projection, n.version) = (p, new)
      and exists (select from millrace.projection b where (b.name, b.version) = (p, new) and b.lifecycle = 'inline')
      and not exists (select from millrace.dead_letters d where (d.projection, d.version) = (p, new) and d.status in ('parked', 'retrying'))
      and not exists (
        select from millrace.log_head h join millrace.log_topic t using (topic_id)
        left join millrace.progress g on (g.projection, g.version, g.topic, g.partition) = (p, new, t.name, h.partition)
        where t.name = any (topics) and coalesce(g.next_position, 0) < h.next_position);
    perform millrace.note_inline(topics);
  end if;
  insert into millrace.promotion (token, projection, old, new) values (by, p, old, new);
  return 'done';
end
$$;
