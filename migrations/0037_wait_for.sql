-- Waits until projections have processed positions of the log, which a token names: so a reader sees what it has written.

-- What a token says, as goals: {"positions": [[topic, partition, position of the next record], …]}.
create function millrace.token_goals(token text) returns jsonb language plpgsql immutable as $$
declare
  body text := translate(substr(token, 4), '-_', '+/');
  positions jsonb;
begin
  if token !~ '^p1\.[A-Za-z0-9_-]+$' then raise invalid_parameter_value; end if;
  positions := convert_from(decode(body || repeat('=', (4 - length(body) % 4) % 4), 'base64'), 'UTF8')::jsonb;
  if jsonb_typeof(positions) <> 'array' or exists (
    select from jsonb_array_elements(positions) e where jsonb_typeof(e) <> 'array' or jsonb_typeof(e -> 0) is distinct from 'string'
      or (e ->> 1) !~ '^\d{1,9}$' is not false or (e ->> 2) !~ '^\d{1,15}$' is not false) then raise invalid_parameter_value; end if;
  return jsonb_build_object('positions', positions);
exception when others then
  raise exception 'the token is not one of Millrace' using errcode = '22023', hint = 'use the token of an answer to events or commands, as it was';
end
$$;

-- What has not reached the goals, as a JSON array: live builds that read the positions, and the relay to the log on this server that copies streams.
-- `only`: the names of the projections that count; null: all.
create function millrace.behind_goals(goals jsonb, only_of text[]) returns jsonb language sql stable as $$
  select coalesce(jsonb_agg(jsonb_build_object('who', who, 'topic', topic, 'partition', "partition", 'position', at, 'wanted', wanted)), '[]') from (
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
  ) b
$$;

-- The goals behind goals that were reached: what the projections have published until then, and after that the ends of the topics that it went to.
create function millrace.next_goals(goals jsonb, only_of text[]) returns jsonb language sql stable as $$
  select case when goals ? 'streams' then jsonb_build_object('positions', (
    select coalesce(jsonb_agg(jsonb_build_array(t.name, h.partition, h.next_position)), '[]')
    from millrace.log_topic t join millrace.log_head h using (topic_id)
    where not t.aggregate and exists (
        select from millrace.progress g join millrace.live l on (l.projection, l.version) = (g.projection, g.version)
        where (g.topic, g.partition) = (t.name, h.partition) and (only_of is null or g.projection = any (only_of)))
      -- a relay copied its last record: no client writes such a topic
      and (select b.stream from millrace.log_batch b where (b.topic_id, b.partition) = (h.topic_id, h.partition)
        order by b.base_position desc limit 1) is not null))
  else jsonb_build_object('streams', (
    select coalesce(jsonb_agg(jsonb_build_array(g.projection, g.topic, g.partition, g.outbox_seq)), '[]')
    from millrace.progress g join millrace.live l on (l.projection, l.version) = (g.projection, g.version)
    where g.outbox_seq > 0 and (only_of is null or g.projection = any (only_of)))) end
$$;

-- Waits until the live builds have processed what a token names, and what follows from it down their chains; at most `timeout`, then fails with MR504.
-- The statement that reads has to be another one, for it must see what was committed meanwhile. `projections`: those that count; null: all.
create function millrace.wait_for(token text, timeout interval default '10 s', projections text[] default null)
returns void language plpgsql volatile as $$
declare
  until timestamptz := clock_timestamp() + timeout;
  goals jsonb := millrace.token_goals(token);
  behind jsonb;
  links integer;
  pause float8;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'in a transaction % nothing new becomes visible, so it cannot be waited for', upper(current_setting('transaction_isolation'))
      using errcode = '25001', hint = 'call millrace.wait_for before the transaction begins';
  end if;
  select count(distinct g.projection) into links from millrace.progress g
    join millrace.live l on (l.projection, l.version) = (g.projection, g.version)
    where g.outbox_seq > 0 and (projections is null or g.projection = any (projections));
  for step in 0 .. 2 * links loop
    if step > 0 then goals := millrace.next_goals(goals, projections); end if;
    pause := 0.002;
    loop
      behind := millrace.behind_goals(goals, projections);
      exit when behind = '[]';
      if clock_timestamp() >= until then
        raise exception 'not yet: % has processed %/% up to position %, and the token asks for %', behind -> 0 ->> 'who', behind -> 0 ->> 'topic',
          behind -> 0 ->> 'partition', behind -> 0 ->> 'position', behind -> 0 ->> 'wanted'
          using errcode = 'MR504', detail = behind::text, hint = 'wait longer, or see millrace status for what is halted';
      end if;
      perform pg_sleep(pause);
      pause := least(0.1, pause * 1.5);
    end loop;
  end loop;
end
$$;
