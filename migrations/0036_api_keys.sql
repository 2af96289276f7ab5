-- API keys: credentials of clients of the HTTP server. Secrets are stored as SHA-256 of 256 random bits, so nobody can use what is stored.

create table millrace.api_key (
  key_id text primary key,
  digest bytea not null,
  name text not null,
  -- the only tenant that the key reads and writes; null: all
  tenant text,
  scopes text[] not null check (scopes <@ array['ingest', 'read', 'operate'] and cardinality(scopes) > 0),
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  revoked_at timestamptz,
  -- to the minute
  last_used_at timestamptz,
  -- who operates the system sees all tenants
  check (tenant is null or not 'operate' = any (scopes))
);
