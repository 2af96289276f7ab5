-- A sample of what a build's handler recorded for events, by which a handler that does something else under the same text is noticed.
alter table millrace.projection
  -- a JSON text for each event: a value may hold what jsonb cannot
  add column sample text[],
  -- how the handler differs from the sample since the last start; null if it does not
  add column behaviour text;
