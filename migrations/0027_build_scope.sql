-- Builds that do not have everything that the log has: `millrace rebuild --from T` creates them. A build without a row replays the whole log.
create table millrace.build_scope (
  projection text not null,
  version integer not null,
  -- the build has what the log stored at this time or later, in milliseconds since 1970, and began empty
  from_ms bigint,
  primary key (projection, version)
);
