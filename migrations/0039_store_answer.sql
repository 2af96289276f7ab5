-- Stores what a command without events answered, in one transaction with the look whether it was answered before and whether its stream is
-- still as the command expects. Otherwise a copy of the command could meet a version conflict before the answer is stored.
-- `expected` is the version that the command expects its stream to have; null: any. Returns whether the answer was stored, and if not,
-- the stream's version, which is other than the expected one; null: the command was answered before.
-- millrace.remember_answer stays for processes of earlier versions.
create function millrace.store_answer(
  of_topic integer, of_partition integer, of_stream text, id uuid, of_digest uuid, at_version bigint, of_answer text, expected bigint,
  out stored boolean, out actual bigint
) language plpgsql as $$
begin
  insert into millrace.event_stream as s (topic_id, stream, version, asked, added, remembered)
  values (of_topic, of_stream, 0, -1, 0, 1)
  on conflict (topic_id, stream) do update set remembered = s.remembered + 1
  returning s.version into actual;
  -- statements of their own see what was committed until the lock was had
  stored := false;
  if exists (
    select from millrace.log_batch b
    where (b.topic_id, b.partition, b.command_id, b.entity) = (of_topic, of_partition, id, of_stream) and b.entity is not null
  ) or exists (
    select from millrace.command c where (c.topic_id, c.stream, c.command_id) = (of_topic, of_stream, id)
      and c.answered_at >= now() - interval '7 days'
  ) then
    actual := null;
    return;
  end if;
  if actual <> expected then
    return;
  end if;
  insert into millrace.command as c (topic_id, stream, command_id, digest, version, answer)
  values (of_topic, of_stream, id, of_digest, at_version, of_answer)
  on conflict (topic_id, stream, command_id) do update
    set digest = excluded.digest, version = excluded.version, answer = excluded.answer, answered_at = excluded.answered_at;
  delete from millrace.command where ctid = any (array(
    select ctid from millrace.command where answered_at < now() - interval '7 days' order by answered_at limit 10 for update skip locked
  ));
  stored := true;
  actual := null;
end
$$;
