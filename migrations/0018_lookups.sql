-- Reproducible lookups: each value that a lookup topic had (its versions), how far they are stored, and which of them the batches of
-- projections saw. So a replay gives each event the value that it had when it was processed live, whatever the topic has today.

-- How far the versions of a lookup topic are stored, without a gap.
create table millrace.lookup_read (
  topic text not null,
  partition integer not null,
  generation integer not null, -- rises when the topic is recreated: its positions begin again
  identity text, -- of the topic, by which a recreated one is recognized
  next_position bigint not null,
  scattered boolean not null default false, -- whether a record lies in another partition than Millrace's partitioner gives
  primary key (topic, partition)
);

-- One row for each record of a lookup topic that could be read.
create table millrace.lookup_version (
  topic text not null,
  generation integer not null,
  key_hash bigint not null, -- hashtextextended(key, 0), because a key may be too long for an index
  position bigint not null,
  partition integer not null,
  key text not null,
  value text, -- null: the key was deleted
  appended_at bigint, -- epoch milliseconds; null if the log does not know it
  valid_from double precision not null, -- the record's event time, epoch milliseconds
  primary key (topic, generation, key_hash, position, partition)
);
create index lookup_version_valid on millrace.lookup_version (topic, generation, key_hash, valid_from, position);
create index lookup_version_deleted on millrace.lookup_version (topic, appended_at) where value is null;

-- From which event on a projection saw a lookup topic up to these positions. There is a row only where they moved.
create table millrace.lookup_journal (
  projection text not null,
  journal integer not null, -- the number of the journal: builds that were enriched anew have one of their own
  topic text not null, -- of the events
  partition integer not null,
  lookup text not null, -- the lookup topic
  from_position bigint not null,
  generation integer not null,
  only_partition integer, -- the partition of the lookup topic that counts; null: all of them, in order
  newest boolean not null, -- whether events see values that were appended after them, too
  positions bigint[] not null,
  primary key (projection, journal, topic, partition, lookup, from_position)
);

alter table millrace.projection
  add column lookup_journal integer not null default 1, -- what the build reads as a follower
  add column lookups text not null default 'asSeen' check (lookups in ('asSeen', 'today')); -- what the build sees as a follower
