-- Whose database this is: an id of its own and the name of its application, from which names on shared brokers are made; and which projections
-- the application no longer has.
create table millrace.system (
  is_only boolean primary key default true check (is_only),
  -- tells databases of applications of one name apart; short, because names on brokers contain it
  id text not null default substr(replace(gen_random_uuid()::text, '-', ''), 1, 8),
  -- null until an application is started or migrated on the database
  application text,
  -- what transactional ids, names of producers and the relay's groups on Kafka start with
  relay_prefix text,
  -- grows when the names of consumer groups change: claims of members of the newest groups supersede all others
  epoch integer not null default 1,
  -- the server and the database in it that this was last started on, by numbers that a restored dump does not have
  home text
);
insert into millrace.system default values;

alter table millrace.projection
  -- since when the configuration does not have it; null while it does
  add column removed_at timestamptz,
  -- since when it is retired: it processes nothing any more and is not counted
  add column retired_at timestamptz,
  -- whether its tables were dropped
  add column dropped boolean not null default false;
