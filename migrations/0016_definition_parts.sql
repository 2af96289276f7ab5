-- What a build was created with, by parts, so that code whose definition differs is noticed; and what a start found that a person should decide.
alter table millrace.projection
  -- parts with their options; null until the first start with this release
  add column parts jsonb,
  -- hashes of the texts of functions that were accepted, by what they are
  add column functions jsonb,
  -- what differs from the accepted functions since the last start; null if nothing does
  add column warnings jsonb;
