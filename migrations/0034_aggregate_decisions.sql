-- Retry and discard records of dead letters in the topics of aggregates. They are records of no event stream: `entity` and `first_version` of their
-- rows are null, so versions, loads, boundaries and command ids do not see them; projections do, in a replay too.

-- Appends such records to a partition, in the form of a row of log_batch. As an append of events does, it moves the positions of inline builds
-- over them, and writes a segment of the outbox where relays publish the topic, whose sequence is the position and 1. Returns the partition's new end.
-- Raises MR411 while a promotion has frozen an inline build. Each statement sees what was committed until the counter was locked.
create function millrace.append_decisions(of_topic integer, of_partition integer, added integer, size integer, of_meta text, of_vals text)
returns bigint language plpgsql as $$
declare
  topic_name text;
  ends bigint;
  is_published boolean;
begin
  select t.name into strict topic_name from millrace.log_topic t where t.topic_id = of_topic and t.aggregate;
  update millrace.log_head h set next_position = h.next_position + added where (h.topic_id, h.partition) = (of_topic, of_partition)
    returning h.next_position, h.published into strict ends, is_published;
  insert into millrace.log_batch (topic_id, partition, base_position, next_position, records, bytes, meta, vals)
    values (of_topic, of_partition, ends - added, ends, added, size, of_meta, of_vals);
  -- as a promotion does, which freezes all positions in this order
  perform 1 from millrace.progress g where (g.topic, g.partition) = (topic_name, of_partition) and g.inline
    order by g.projection, g.version for update;
  if exists (select from millrace.progress g where (g.topic, g.partition) = (topic_name, of_partition) and g.inline
    and g.mode <> 'live' and (g.frozen_until < clock_timestamp()) is not true) then
    perform millrace.refuse_frozen();
  end if;
  update millrace.progress g set next_position = ends, commit_no = g.commit_no + 1, mode = 'live', frozen_until = null, frozen_by = null,
      fingerprint = null, committed_at = clock_timestamp()
    where (g.topic, g.partition) = (topic_name, of_partition) and g.inline;
  if is_published then
    insert into millrace.outbox (projection, source, partition, first_seq, messages, incarnation, target, target_partition, meta, vals)
      values (topic_name, topic_name, of_partition, ends - added + 1, added, gen_random_uuid(), topic_name, of_partition, of_meta, of_vals);
    perform pg_notify('millrace_outbox', '');
  end if;
  -- the readers of all processes wait for it
  perform pg_notify('millrace_log', format('a;decisions;%s.%s=%s', of_topic, of_partition, ends));
  return ends;
end
$$;
