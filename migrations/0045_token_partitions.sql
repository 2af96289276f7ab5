-- A token of a system with other partitions is refused: nothing processes a partition that the topic does not have, so it would pass at once.

-- As before; fails with 22023 for a partition that the topic does not have.
create or replace function millrace.behind_goals(goals jsonb, only_of text[]) returns jsonb language plpgsql stable as $$
declare
  strange record;
begin
  select topic, wanted, n into strange from (
    -- a topic on Kafka has no row in the log: it has the partitions that projections have read
    select e ->> 0 as topic, (e ->> 1)::int4 as wanted, greatest(
      (select t.partitions from millrace.log_topic t where t.name = e ->> 0),
      (select max(g.partition) + 1 from millrace.progress g where g.topic = e ->> 0)) as n
    from jsonb_array_elements(coalesce(goals -> 'positions', '[]')) e) p
  where wanted >= n limit 1;
  if found then
    raise exception 'the token names partition % of %, which has %', strange.wanted, strange.topic,
      case strange.n when 1 then '1 partition' else strange.n || ' partitions' end using errcode = '22023', hint = 'use a token of this system';
  end if;
  return (select coalesce(jsonb_agg(jsonb_build_object('who', who, 'topic', topic, 'partition', "partition", 'position', at, 'wanted', wanted)), '[]') from (
    select g.projection as who, g.topic, g.partition, g.next_position as at, (e ->> 2)::int8 as wanted
    from jsonb_array_elements(coalesce(goals -> 'positions', '[]')) e
    join millrace.progress g on g.topic = e ->> 0 and g.partition = (e ->> 1)::int4 and g.next_position < (e ->> 2)::int8
    join millrace.live l on (l.projection, l.version) = (g.projection, g.version)
    join millrace.projection b on (b.name, b.version) = (g.projection, g.version) and b.retired_at is null and b.removed_at is null
    where only_of is null or g.projection = any (only_of)
    union all
    select 'relay of ' || r.projection, r.source, r.partition, r.seq, (e ->> 3)::int8
    from jsonb_array_elements(coalesce(goals -> 'streams', '[]')) e
    join millrace.relay_position r on r.target = 'embedded' and r.projection = e ->> 0 and r.source = e ->> 1
      and r.partition = (e ->> 2)::int4 and r.seq < (e ->> 3)::int8
  ) b);
end
$$;
