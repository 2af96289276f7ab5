-- What people decided about dead letters that no projection has: messages that relays parked, and those that subscriptions gave up.
alter table millrace.relay_parked
  add column id bigint not null generated always as identity unique,
  -- retrying: it is about to be sent by itself, or was; retried: it is there
  add column status text not null default 'parked' check (status in ('parked', 'retrying', 'retried', 'discarded')),
  add column decided_by text,
  add column decided_at timestamptz;

-- The letters themselves are messages of a dead-letter topic; one without a row is parked. `origin` is the message's place in the topic
-- that it came from, by which a letter that was written twice is one.
create table millrace.subscription_letter (
  topic text not null,
  origin text not null,
  status text not null check (status in ('retrying', 'retried', 'discarded')),
  decided_by text not null,
  decided_at timestamptz not null default clock_timestamp(),
  primary key (topic, origin)
);
