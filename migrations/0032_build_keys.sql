-- Builds that `millrace rebuild --keys` creates: copies of the live build in which a replay replaces the rows of some keys.
alter table millrace.build_scope
  -- SHA-256 of the keys, in hex
  add column keys_hash text,
  -- the live build that was copied
  add column base integer,
  -- the build that replays the log up to where the copy was made; null once its rows of the keys are in the copy
  add column scratch integer;
