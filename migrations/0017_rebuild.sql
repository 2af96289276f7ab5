-- Rebuilds: what `millrace rebuild` asks of all processes that run a build which follows the live one. The position of a rebuild is the build's own
-- in `millrace.progress`.
create table millrace.rebuild (
  projection text not null,
  -- the number of the build
  version integer not null,
  state text not null check (state in ('running', 'paused', 'done', 'cancelled')),
  -- events a second for all processes together; null: no limit
  rate float8 check (rate > 0),
  -- while an event waits longer than this for the live build, the rebuild waits; null: no limit
  max_live_lag_ms float8 check (max_live_lag_ms > 0),
  -- with a rate: when the next events may be processed
  next_at timestamptz,
  -- how fast it was, once it is done
  events_per_second float8,
  started_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (projection, version)
) with (fillfactor = 50);
