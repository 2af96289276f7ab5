-- Inline builds whose code no process that takes commands has: they are released, so that commands go on, and are inline again once one has it.
alter table millrace.projection
  -- The lifecycle is async only because no process that takes commands has the code; the code wants inline.
  add column released boolean not null default false;
alter table millrace.process
  -- <name>_v<version> of the projections that the process declares, of whose inline builds its commands can write the rows.
  add column declares text[] not null default '{}';
