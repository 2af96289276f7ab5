-- For appends that expect all of their commands to pass, see src/postgres/events/append-sql.ts.

-- A new stream or tag is of a topic that its append has found, and topics of aggregates are not deleted. These keys would lock the topic's row for each.
alter table millrace.event_stream drop constraint event_stream_topic_id_fkey;
alter table millrace.event_tag drop constraint event_tag_topic_id_fkey;

-- Whether a command was not answered before without an event. It is asked under the lock of the stream, by a statement of its own, which sees what
-- was committed until the lock was had. Raises MR409 if it was answered.
create function millrace.is_unanswered(of_topic integer, of_stream text, id uuid) returns boolean language plpgsql as $$
begin
  if exists (
    select from millrace.command c where (c.topic_id, c.stream, c.command_id) = (of_topic, of_stream, id) and c.answered_at > now() - interval '7 days')
  then
    perform millrace.refuse_append('{"judge":true}');
  end if;
  return true;
end
$$;
