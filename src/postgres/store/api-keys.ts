// API keys as the database stores them: digests of secrets, and what a key allows.
import * as Effect from "effect/Effect"
import { query, type Sql, type SqlError } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"

/** What a request needs of a key. */
export interface ApiKeyRow {
  /** SHA-256 of the secret. */
  readonly digest: Uint8Array
  readonly name: string
  /** The only tenant that the key reads and writes; null: all. */
  readonly tenant: string | null
  readonly scopes: ReadonlyArray<string>
  /** Epoch milliseconds; null: never. */
  readonly expires_ms: number | null
  readonly revoked: boolean
}
/** A key, without what could authenticate anybody. Times are ISO 8601. */
export interface ListedApiKey {
  readonly id: string
  readonly name: string
  readonly tenant: string | null
  readonly scopes: ReadonlyArray<string>
  readonly created_at: string
  readonly expires_at: string | null
  readonly revoked_at: string | null
  /** To the minute; null: it was not used yet. */
  readonly last_used_at: string | null
}
/** A key to store. */
export interface NewApiKey {
  readonly id: string
  readonly digest: Uint8Array
  readonly name: string
  readonly tenant: string | undefined
  readonly scopes: ReadonlyArray<string>
  /** Milliseconds from now; undefined: it does not expire. */
  readonly validMs: number | undefined
}

const time = (column: string) => `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as ${column}`
const listed = `key_id as id, name, tenant, to_jsonb(scopes) as scopes, ${["created_at", "expires_at", "revoked_at", "last_used_at"].map(time).join(", ")}`

/** The key with this id, revoked or not; undefined if it does not exist. */
export const findApiKey = (sql: Sql, id: string): Effect.Effect<ApiKeyRow | undefined, SqlError> =>
  query("read an API key", async () => {
    const [row] = await sql<Array<ApiKeyRow>>`
      select digest, name, tenant, to_jsonb(scopes) as scopes, (extract(epoch from expires_at) * 1000)::float8 as expires_ms,
        revoked_at is not null as revoked
      from millrace.api_key where key_id = ${id}`
    return row
  })

/** Stores a key, and returns it as it is listed. */
export const createApiKey = (
  sql: Sql,
  { digest, id, name, scopes, tenant, validMs }: NewApiKey
): Effect.Effect<ListedApiKey, SqlError> =>
  query("create an API key", async () => {
    const [row] = await sql<Array<ListedApiKey>>`
      insert into millrace.api_key (key_id, digest, name, tenant, scopes, expires_at)
      values (${id}, ${Buffer.from(digest)}, ${name}, ${tenant ?? null}, ${arrayOf(scopes)}::text[],
        now() + ${validMs ?? null}::float8 * interval '1 millisecond')
      returning ${sql.unsafe(listed)}`
    return row!
  })

/** All keys, the newest first; revoked ones only if they are asked for. */
export const listApiKeys = (sql: Sql, isAll: boolean): Effect.Effect<ReadonlyArray<ListedApiKey>, SqlError> =>
  query(
    "list API keys",
    () => sql<Array<ListedApiKey>>`
      select ${sql.unsafe(listed)} from millrace.api_key where ${isAll} or revoked_at is null order by millrace.api_key.created_at desc, key_id`
  )

/** Revokes a key for good. Undefined if it does not exist; a key that was revoked before stays so. */
export const revokeApiKey = (sql: Sql, id: string): Effect.Effect<ListedApiKey | undefined, SqlError> =>
  query("revoke an API key", async () => {
    const [row] = await sql<Array<ListedApiKey>>`
      update millrace.api_key set revoked_at = coalesce(revoked_at, now()) where key_id = ${id} returning ${sql.unsafe(listed)}`
    return row
  })

/** A key as lists have it; undefined if there is none with this id. */
export const showApiKey = (sql: Sql, id: string): Effect.Effect<ListedApiKey | undefined, SqlError> =>
  query("show an API key", async () => {
    const [row] = await sql<Array<ListedApiKey>>`
      select ${sql.unsafe(listed)} from millrace.api_key where key_id = ${id}`
    return row
  })

/** Notes that a key was used, at most once a minute. */
export const noteApiKeyUse = (sql: Sql, id: string): Effect.Effect<void, SqlError> =>
  query(
    "note the use of an API key",
    () => sql`update millrace.api_key set last_used_at = date_trunc('minute', now())
      where key_id = ${id} and last_used_at is distinct from date_trunc('minute', now())`
  ).pipe(Effect.asVoid)

/** Whether a key exists that could be used now. */
export const hasApiKey = (sql: Sql): Effect.Effect<boolean, SqlError> =>
  query("look for an API key", async () => {
    const [row] = await sql<Array<{ readonly found: boolean }>>`
      select exists (select from millrace.api_key where revoked_at is null and coalesce(expires_at > now(), true)) as found`
    return row!.found
  })
