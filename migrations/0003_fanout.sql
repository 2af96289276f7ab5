-- Durable subscriptions of the log's topics: how far each has come, and what it delivered that is not acknowledged.
create table millrace.subscription (
  subscription_id integer generated always as identity primary key,
  topic_id integer not null references millrace.log_topic on delete cascade,
  name text not null,
  type text not null check (type in ('exclusive', 'failover', 'shared', 'keyShared')),
  created_at timestamptz not null default now(),
  unique (topic_id, name)
);

-- What lies before a cursor was delivered; of that, what no lease has is acknowledged.
create table millrace.subscription_cursor (
  subscription_id integer not null references millrace.subscription on delete cascade,
  partition integer not null,
  next_position bigint not null,
  claims bigint not null default 0, -- grows with every claim: tells one that read leases before it had the cursor's lock
  primary key (subscription_id, partition)
) with (fillfactor = 50);

-- Messages that one consumer has until `due`, or, without a consumer, that may be delivered from `due` on. `slot` is 0, or, where
-- messages of a key stay together, 1 and a hash of their key: a chunk is one row for every slot in it.
create table millrace.subscription_lease (
  lease_id bigint generated always as identity primary key,
  subscription_id integer not null references millrace.subscription on delete cascade,
  partition integer not null,
  slot integer not null,
  positions int8multirange not null,
  consumer integer,
  redeliveries integer not null default 0,
  due timestamptz not null
) with (fillfactor = 70);
create index subscription_lease_place on millrace.subscription_lease (subscription_id, partition, slot);

-- How far each subscription is behind, for people. `unacknowledged` counts positions that were delivered, holes included.
create view millrace.subscription_lag as
select t.name as topic, s.name as subscription, s.type, c.partition, h.next_position - c.next_position as undelivered,
  coalesce(l.positions, 0) as unacknowledged
from millrace.subscription s
join millrace.log_topic t using (topic_id)
join millrace.subscription_cursor c using (subscription_id)
join millrace.log_head h on (h.topic_id, h.partition) = (s.topic_id, c.partition)
left join lateral (
  select sum(upper(r) - lower(r))::bigint as positions
  from millrace.subscription_lease l, unnest(l.positions) as r
  where (l.subscription_id, l.partition) = (s.subscription_id, c.partition)
) l on true;
