// Connections to a PostgreSQL server through postgres.js, with the project's settings, and transactions on sessions of their own.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import postgres from "postgres"
import { query, SqlError } from "./errors.ts"
import { PipelineLimit, reuseLast } from "./reuse.ts"
import { withDenseRows } from "./rows.ts"
import { checkPooler, checkServer, optionsOf, settingsFor } from "./server-check.ts"
import { padding, socketFor, splitTls } from "./socket.ts"
import { texts, values } from "./types.ts"

export { query, SqlError } from "./errors.ts"

/** A pool of connections of postgres.js. Do not use its `begin` and `reserve`: see `session`. */
export type Sql = postgres.Sql<{}>
/** How to connect. */
export interface ConnectOptions {
  /** The name that `pg_stat_activity` shows. Default `millrace`. */
  readonly applicationName?: string
  /** The largest number of connections. Default 10. */
  readonly max?: number
  /** Whether every value is returned as PostgreSQL's text, for display. Default false: numbers, booleans, JSON and milliseconds. */
  readonly asText?: boolean
  /** The schemas in which names without one are looked for, whatever the role is set to. Default: as the role is set. */
  readonly searchPath?: string
  /** Whether the connections only read: a standby will do, and transactions stay read-only if the role is set so. Default false. */
  readonly readOnly?: boolean
  /** For queries of clients: every transaction is read-only, and each statement is cancelled after this time, in milliseconds. Default: neither. */
  readonly queryMs?: number
}

const closeSeconds = 2
/** How long the first answer may take, in milliseconds: the driver connects again and again to a server that closes every connection. */
const firstAnswerMs = 15_000

/**
 * Opens a pool of connections, which is closed with the scope within two seconds. Sessions have the settings of
 * `neededSettings`; an int8 is returned as a safe integer and a timestamptz as epoch milliseconds. Fails with a hint if the server cannot be
 * reached or cannot be used: it is older than PostgreSQL 15, a standby, not in UTF8, or behind a pooler that shares sessions.
 */
export const connect = Effect.fnUntraced(function* (
  url: string,
  options: ConnectOptions = {}
): Effect.fn.Return<Sql, SqlError, Scope.Scope> {
  const first = yield* opened(url, options)
  const { corrections, isPooled } = yield* query("connect", () => checkServer(first.sql, options.readOnly)).pipe(
    answering(url)
  )
  if (isPooled) yield* query("connect", () => checkPooler(() => open(url, { ...options, max: 1 }).sql))
  const { queryMs } = options
  const settings = {
    ...corrections,
    ...(queryMs !== undefined && { default_transaction_read_only: "on", statement_timeout: String(queryMs) })
  }
  if (Object.keys(settings).length === 0) return yield* reusing(first, url)
  yield* Effect.promise(() => first.sql.end({ timeout: closeSeconds }))
  return yield* reusing(yield* opened(url, options, settings), url)
})

/** A pool, and the limit of the statements that a connection of it has at once. */
interface Pool {
  readonly sql: Sql
  readonly limit: PipelineLimit
}
const opened = (url: string, options: ConnectOptions, settings: Readonly<Record<string, string>> = {}) =>
  Effect.acquireRelease(
    query("connect", async () => open(url, options, settings)),
    ({ sql }) => Effect.promise(() => sql.end({ timeout: closeSeconds }))
  )
const reusing = ({ limit, sql }: Pool, url: string) =>
  Effect.as(query("connect", () => reuseLast(sql, limit)).pipe(answering(url)), sql)

/** Fails if the server has not answered after a while. */
const answering =
  (url: string) =>
  <A>(effect: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> =>
    effect.pipe(
      Effect.timeoutOrElse({ duration: firstAnswerMs, orElse: () => noAnswer(url) }),
      Effect.catchIf(
        ({ code }) => code === "CONNECT_TIMEOUT",
        () => noAnswer(url)
      )
    )

const noAnswer = (url: string): Effect.Effect<never, SqlError> => {
  const { host } = new URL(url)
  const reason = `${host} does not answer as PostgreSQL does. try: check that a PostgreSQL server runs at that address, that no firewall blocks it, and that it asks for TLS only if the URL has an sslmode`
  return Effect.fail(
    new SqlError({ operation: "connect", code: "CONNECT_TIMEOUT", retryable: true, inDoubt: false, reason })
  )
}

const open = (
  text: string,
  { applicationName = "millrace", asText = false, max = 10, readOnly = false, searchPath }: ConnectOptions,
  settings: Readonly<Record<string, string>> = {}
): Pool => {
  const limit = new PipelineLimit()
  const { tls, url } = splitTls(checked(text))
  const { DateStyle, TimeZone, ...others } = settingsFor(readOnly)
  const asked = {
    plan_cache_mode: "force_generic_plan",
    ...others,
    ...settings,
    ...(searchPath !== undefined && { search_path: searchPath })
  }
  const clientOptions = {
    max,
    types: asText ? texts : values,
    // If the backend is killed during the query for types, Node crashes; and every new connection would have to wait for that query.
    fetch_types: false,
    prepare: true,
    max_pipeline: limit as unknown as number,
    connect_timeout: 10,
    keep_alive: 30,
    max_lifetime: null,
    // The default waits up to 20 s after a server was unreachable; callers that retry have schedules of their own.
    backoff: () => 0.05,
    onnotice: () => undefined,
    connection: {
      application_name: applicationName,
      TimeZone,
      DateStyle,
      options: `${optionsOf(asked)}${padding}`
    },
    // The socket does TLS itself.
    ssl: false,
    socket: socketFor(tls)
  }
  return { limit, sql: withDenseRows(postgres(url, clientOptions)) as unknown as Sql }
}

const isDecodable = (text: string): boolean => {
  try {
    decodeURIComponent(text)
    return true
  } catch {
    return false
  }
}
const checked = (url: string): string => {
  const isUrl = URL.canParse(url) && /^postgres(ql)?:$/.test(new URL(url).protocol)
  if (isUrl && isDecodable(url.split("?", 1)[0] ?? "")) return url
  const reason = isUrl
    ? "the database's URL has a % that is not followed by the two digits of a character. try: write %25 for a % in the user, the password or the name"
    : "the database's URL is malformed. try: postgres://user:password@host:5432/database"
  throw new SqlError({ operation: "connect", code: "", retryable: false, inDoubt: false, reason })
}

/** One session. It never reconnects: once its connection is lost, every further statement fails and none is executed. */
export interface Session {
  /** A query as a tagged template, or a fragment of one. */
  <T extends ReadonlyArray<object> = ReadonlyArray<postgres.Row>>(
    text: TemplateStringsArray,
    ...parameters: ReadonlyArray<postgres.ParameterOrFragment<never>>
  ): postgres.PendingQuery<T & Array<postgres.Row>>
  /** A query as plain text; without parameters it may hold several statements. */
  readonly unsafe: Sql["unsafe"]
  readonly json: Sql["json"]
}

/**
 * Opens a session of its own beside the pool, for transactions and session locks. This takes some milliseconds.
 *
 * When a connection is lost, postgres.js reconnects for the next statement, also within `begin` (its issue 1186) and `reserve`: the
 * rest of a transaction would then be executed outside of it. Here statements go to the driver one at a time, so that none
 * is queued inside it, and none is sent after the connection was lost.
 */
export const session = (sql: Sql): Effect.Effect<Session, SqlError, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      query("open a session", async () => single(sql)),
      ({ client, isLost }) => Effect.promise(() => client.end({ timeout: isLost() ? 0 : closeSeconds }))
    ),
    ({ guarded }) => guarded
  )

// The part of a postgres.js query that is used here: a promise that calls `handler` when it is first awaited.
type Pending = Promise<unknown> & {
  handler: (query: Pending) => unknown
  readonly reject: (cause: unknown) => void
}

const single = (sql: Sql) => {
  let lost = false
  let last: Promise<unknown> = Promise.resolve()
  const client = postgres({
    ...(sql.options as unknown as postgres.Options<{}>),
    max: 1,
    onclose: () => (lost = true)
  }) as unknown as Sql
  const guard = (value: unknown): unknown => {
    const pending = value as Pending
    if (typeof pending?.handler !== "function") return value
    const send = pending.handler
    pending.handler = (self) => {
      last = last.then(() => {
        if (lost) return self.reject(closed())
        send(self)
        return self.then(
          () => undefined,
          (cause: unknown) => (lost || isAnswer(cause) ? undefined : client.unsafe("").then(ignore, ignore))
        )
      })
    }
    return pending
  }
  const run = client as unknown as (...args: ReadonlyArray<unknown>) => unknown
  const unsafe = client.unsafe as (...args: ReadonlyArray<unknown>) => unknown
  const guarded = Object.assign((...args: ReadonlyArray<unknown>) => guard(run(...args)), {
    unsafe: (...args: ReadonlyArray<unknown>) => guard(unsafe(...args)),
    json: client.json
  }) as unknown as Session
  return { client, guarded, isLost: () => lost }
}

/** Whether an error is PostgreSQL's. Otherwise values could not be written out, and the driver would never answer a second such statement at once. */
const isAnswer = (cause: unknown) => cause instanceof Error && "severity" in cause
const ignore = () => undefined

const closed = () =>
  new SqlError({
    operation: "session",
    code: "CONNECTION_CLOSED",
    retryable: true,
    inDoubt: false,
    reason: "the statement was not sent, because the session's connection was lost before"
  })

/**
 * Runs `use` in a transaction on a session of its own, and commits if it succeeds, or rolls back if it fails or is interrupted. When
 * the connection is lost, the remaining statements fail without being executed. If the reply to the commit is lost, the error is
 * `inDoubt` and not `retryable`: check first whether the transaction was committed.
 */
export const transaction = <A, E, R>(
  sql: Sql,
  use: (tx: Session) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | SqlError, Exclude<R, Scope.Scope>> =>
  Effect.scoped(
    Effect.flatMap(session(sql), (tx) =>
      Effect.uninterruptibleMask(
        Effect.fnUntraced(function* (restore) {
          yield* query("begin", () => tx.unsafe("begin"))
          const exit = yield* Effect.exit(restore(use(tx)))
          if (Exit.isFailure(exit)) {
            // If this fails, closing the session rolls back.
            yield* Effect.ignore(query("roll back", () => tx.unsafe("rollback")))
            return yield* exit
          }
          const { command } = yield* query("commit", () => tx.unsafe("commit")).pipe(Effect.mapError(doubtful))
          // PostgreSQL answers a commit so if a statement failed and its error was caught.
          if (command === "ROLLBACK") return yield* rolledBack()
          return yield* exit
        })
      )
    )
  ) as Effect.Effect<A, E | SqlError, Exclude<R, Scope.Scope>>

const rolledBack = () =>
  new SqlError({
    operation: "commit",
    code: "25P02",
    retryable: false,
    inDoubt: false,
    reason: "the transaction was rolled back, because one of its statements failed"
  })
const doubtful = (error: SqlError): SqlError =>
  error.inDoubt
    ? new SqlError({
        ...error,
        retryable: false,
        reason: `${error.reason}. It is unknown whether the transaction was committed. try: check that before running it again`
      })
    : error
