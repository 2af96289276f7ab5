-- Where the error of a dead letter was thrown, in the application's own code, as `handle (projections/orders.ts:12:5)`. Null if that is not known, and for
-- dead letters that were stored before. It is in this table alone: what is published of a dead letter has no paths of the machine.
alter table millrace.dead_letters add column thrown_at text;
