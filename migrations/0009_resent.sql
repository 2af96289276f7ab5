-- Where a message is that a retry of a dead letter sent and did not live to write down: letters of any topic, of bridges too, and of relays.
alter table millrace.subscription_letter rename to topic_letter;
alter table millrace.topic_letter
  -- the partition that it is sent to, and a place there before which it is not, as its system writes them
  add column sent_to text,
  add column sent_after text not null default '',
  -- attempts to send it
  add column tries int not null default 1;

alter table millrace.relay_parked
  add column sent_after text not null default '',
  add column tries int not null default 0;
