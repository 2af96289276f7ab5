-- Snapshots of states that may have personal data are sealed from now on. Those of before had such states in plain text: they are taken again when
-- a stream is next loaded.
delete from millrace.event_snapshot where subjects <> '{}';
