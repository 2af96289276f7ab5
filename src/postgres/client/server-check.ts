// Checks what a connection leads to: the server's version and encoding, whether it can write, the session's settings, and poolers between.
import { randomUUID } from "node:crypto"
import type postgres from "postgres"
import { toSqlError, SqlError } from "./errors.ts"

/**
 * The settings that sessions need, whatever the role, the database or the server has. They are asked for when a connection starts. Values are as
 * `current_setting` returns them.
 */
export const neededSettings = {
  TimeZone: "UTC",
  DateStyle: "ISO, YMD",
  IntervalStyle: "postgres",
  bytea_output: "hex",
  standard_conforming_strings: "on",
  extra_float_digits: "1",
  array_nulls: "on",
  transform_null_equals: "off",
  quote_all_identifiers: "off",
  default_transaction_isolation: "read committed",
  default_transaction_read_only: "off",
  default_transaction_deferrable: "off",
  statement_timeout: "0",
  idle_in_transaction_session_timeout: "0",
  idle_session_timeout: "0"
} as const
/** The needed settings of a session; one that only reads keeps what its role has about writing. */
export const settingsFor = (
  readOnly: boolean
): Readonly<Omit<typeof neededSettings, "default_transaction_read_only">> => {
  const { default_transaction_read_only: writing, ...others } = neededSettings
  return readOnly ? others : Object.assign(others, { default_transaction_read_only: writing })
}
/** Settings that every session has by itself, unless a superuser changed them. */
const unchangedSettings = { session_replication_role: "origin", client_encoding: "UTF8" } as const

/** The start-up parameter `options` that asks for settings. Parameters of their own would have to be allowed one by one in a pooler. */
export const optionsOf = (settings: Readonly<Record<string, string>>): string =>
  Object.entries(settings)
    .map(([name, value]) => `-c ${name}=${value.replaceAll(/[\\\s]/g, String.raw`\$&`)}`)
    .join(" ")

const oldest = 150_000
const refused = (reason: string, code = "") =>
  new SqlError({ operation: "connect", code, retryable: false, inDoubt: false, reason })
const names = [...Object.keys(neededSettings), ...Object.keys(unchangedSettings)]

/** What the first connection of a client shows. */
export interface ServerFacts {
  /** Settings of the role, the database or the server that sessions must not have, with the values to ask for; older servers may not know them. */
  readonly corrections: Readonly<Record<string, string>>
  /** Whether a pooler or a proxy is between: the server process is not the one that the client was told. */
  readonly isPooled: boolean
}

type Simple = Promise<ReadonlyArray<Readonly<Record<string, string>>>> & {
  readonly state?: { readonly pid: number | null } | null
}

/** Reads what a client is connected to. Throws an `SqlError` that says what to do if it cannot be used. */
export const checkServer = async (sql: postgres.Sql, readOnly = false): Promise<ServerFacts> => {
  // without parameters, so that no prepared statement is created before it is known whether there can be one
  const asked = sql.unsafe(
    `select current_setting('server_version_num') as version, current_setting('server_encoding') as encoding,
      current_setting('synchronous_commit') as synchronous, coalesce(current_setting('transaction_timeout', true), '0') as "transactionTimeout", pg_is_in_recovery()::text as standby, pg_backend_pid()::text as pid,
      current_database()::text as database, current_user::text as role, current_setting('is_superuser') as superuser,
      ${names.map((name) => `current_setting('${name}') as "${name}"`).join(", ")}`
  ) as unknown as Simple
  const row = (await asked)[0]!
  const version = Number(row["version"])
  const { database, encoding, role } = row
  if (version < oldest)
    throw refused(
      `the server is PostgreSQL ${Math.floor(version / 10_000)}. try: use PostgreSQL 15 or newer, or the embedded one`
    )
  if (encoding !== "UTF8")
    throw refused(
      `the database ${database} is encoded in ${encoding}, which cannot hold every text; Millrace needs UTF8. ` +
        `try: create database NAME encoding 'UTF8' template template0, and name that one in the database's URL`
    )
  if (row["standby"] === "true" && !readOnly)
    throw refused(
      "the server is a standby, which cannot write. try: name the primary in the database's URL, or promote this server",
      "25006"
    )
  const wrong = Object.entries({ ...settingsFor(readOnly), ...unchangedSettings }).find(
    ([name, value]) => row[name] !== value
  )
  if (wrong !== undefined) {
    const [name, value] = wrong
    throw refused(
      `the setting ${name} is '${row[name]}', although '${value}' was asked for: the database's URL or a pooler overrides it. ` +
        `try: take it out of the URL, or alter role "${role}" set ${name} = '${value}'`
    )
  }
  const corrections = {
    // an accepted event must not be lost with the server: these commits are few and large
    ...(row["synchronous"] === "off" && { synchronous_commit: "on" }),
    // PostgreSQL 17 and newer
    ...(row["transactionTimeout"] !== "0" && { transaction_timeout: "0" })
  }
  return { corrections, isPooled: String(asked.state?.pid ?? "") !== row["pid"] }
}

/** Throws an `SqlError` if the server, the database or the role allows fewer connections than one process needs. */
export const checkConnections = async (sql: postgres.Sql, needed: number): Promise<void> => {
  const [row] = await sql.unsafe<Array<{ readonly limit: number; readonly name: string }>>(
    `select "limit", name from (
      select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int, 'max_connections of the server (less those for superusers)'
      union all select rolconnlimit, 'the connection limit of the role ' || rolname from pg_roles where rolname = current_user and rolconnlimit >= 0
      union all select datconnlimit, 'the connection limit of the database ' || datname from pg_database
        where datname = current_database() and datconnlimit >= 0
    ) as l("limit", name) order by 1 limit 1`
  )
  const { limit, name } = row!
  if (limit >= needed) return
  const reason = `${name} leaves ${limit} connections, and one process of Millrace needs ${needed}. try: raise it to ${needed} for each process, and as many as other programs use`
  throw refused(reason, "53300")
}

const patienceMs = 5_000
/** How many statements and how many other connections look for a shared session. */
const attempts = 8
const others = 2

const poolAdvice =
  "try: connect to the server itself, or set pool_mode = session for this database in PgBouncer (see docs/operations/postgresql.md)"
const inTime = async <A>(answer: PromiseLike<A>): Promise<A> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const reason = `the pooler between this process and PostgreSQL gives it no second connection within ${patienceMs / 1_000} s. try: raise the size of its pool (default_pool_size in PgBouncer) to at least 16 for each process, or connect to the server itself`
      reject(refused(reason))
    }, patienceMs)
  })
  try {
    return await Promise.race([answer, late])
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Throws an `SqlError` if a pooler gives statements of one connection to several server processes, as PgBouncer does with `pool_mode` transaction: advisory locks, notifications, settings and prepared statements would get lost. `open` opens a client of one connection.
 *
 * One connection leaves a mark on its server process. Others then open transactions, which keep a server process each: they must not get the marked
 * one, and the first must not get another one afterwards.
 */
export const checkPooler = async (open: () => postgres.Sql): Promise<void> => {
  const clients = Array.from({ length: 1 + others }, open)
  const mark = randomUUID()
  type Seen = { readonly pid: number; readonly mark: string | null }
  const look = async (client: postgres.Sql): Promise<Seen> =>
    (
      await inTime(
        client.unsafe<Array<Seen>>(`select pg_backend_pid() as pid, current_setting('millrace.mark', true) as mark`)
      )
    )[0]!
  const shared = () => {
    const reason = `a pooler between this process and PostgreSQL gives each transaction to another session: session locks, notifications and prepared statements get lost, and nothing takes over after a crash. ${poolAdvice}`
    return refused(reason)
  }
  try {
    const [first, ...rest] = clients as [postgres.Sql, ...Array<postgres.Sql>]
    // all connect before the first is marked: a connection that is opened later may bring a server process of its own
    for (const client of clients) await look(client)
    const { pid } = (
      await inTime(
        first.unsafe<Array<Seen>>(
          `select pg_backend_pid() as pid, set_config('millrace.mark', '${mark}', false) as mark`
        )
      )
    )[0]!
    for (const client of rest) {
      await inTime(client.unsafe("begin")).catch((cause: unknown) => {
        const failure = toSqlError("connect", cause)
        if (failure.code !== "CONNECTION_CLOSED") throw failure
        const reason = `the pooler between this process and PostgreSQL closed a connection at the start of a transaction, as PgBouncer does with pool_mode = statement. ${poolAdvice}`
        throw new SqlError({ ...failure, inDoubt: false, reason })
      })
      const seen = await look(client)
      if (seen.pid === pid || seen.mark === mark) throw shared()
    }
    for (let i = 0; i < attempts; i++) {
      const seen = await look(first)
      if (seen.pid !== pid || seen.mark !== mark) throw shared()
    }
  } catch (cause) {
    throw toSqlError("connect", cause)
  } finally {
    await Promise.all(clients.map((client) => client.end({ timeout: 0 })))
  }
}
