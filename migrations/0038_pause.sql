-- Projections that a person has paused: no process processes events into their live builds, and their positions stay.

create table millrace.pause (
  projection text primary key,
  paused_at timestamptz not null default now()
);
