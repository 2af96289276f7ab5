-- A relay to a target that keeps no positions of its own, as Pulsar: where a stream is in each topic there, and messages that no topic takes.

-- Grows with a person's word that a position is right (`adopt`): producers have other names from then on, so that what they sent before,
-- under numbers that may come again, counts for nothing.
alter table millrace.relay_position add column generation integer not null default 1;

-- How far a stream is in a topic, by generation. Whatever of the stream is beyond `seq` in the topic lies after `place`: there a relay
-- begins to look for what was sent and not written down. `sent` is the last sequence id, which counts the stream's messages in the topic.
create table millrace.relay_topic (
  target text not null,
  projection text not null,
  source text not null,
  partition integer not null,
  generation integer not null,
  topic text not null,
  seq bigint not null,
  sent bigint not null,
  place text not null,
  primary key (target, projection, source, partition, generation, topic)
) with (fillfactor = 50);

-- Messages that a target refuses for what they are. Their streams go on without them; they are kept for people, and for whoever sends them
-- by other means. `meta` and `val` are as in the outbox, of one message.
create table millrace.relay_parked (
  target text not null,
  projection text not null,
  source text not null,
  partition integer not null,
  seq bigint not null,
  incarnation uuid not null,
  topic text not null,
  key text not null,
  meta text not null,
  val text not null,
  reason text not null,
  parked_at timestamptz not null default clock_timestamp(),
  primary key (target, projection, source, partition, seq, incarnation)
);
