// Connections to a PostgreSQL server through postgres.js, with the project's settings; it knows no table.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import postgres from "postgres"
import { query, SqlError } from "./errors.ts"
import { padding, socketFor, splitTls } from "./socket.ts"
import { texts, values } from "./types.ts"

export { query, SqlError } from "./errors.ts"

/** A pool of connections, as postgres.js has it. Its `begin` and `reserve` are unsafe here: see `transaction`. */
export type Sql = postgres.Sql<{}>
/** How to connect. */
export interface Options {
  /** What `pg_stat_activity` shows. */
  readonly applicationName?: string
  /** Connections at most. Default 10. */
  readonly max?: number
  /** Every value as PostgreSQL's text, for showing; default false: numbers, booleans, JSON and milliseconds. */
  readonly asText?: boolean
}

const oldest = 150_000
const closeSeconds = 2

/**
 * Connects, and closes when the scope does, after at most two seconds. Sessions are in UTC; int8 arrives as a safe number and
 * timestamptz as epoch milliseconds. Fails with a hint when the server cannot be reached or is older than PostgreSQL 15.
 */
export const connect = Effect.fnUntraced(function* (
  url: string,
  options: Options = {}
): Effect.fn.Return<Sql, SqlError, Scope.Scope> {
  const sql = yield* Effect.acquireRelease(
    query("connect", async () => open(url, options)),
    (client) => Effect.promise(() => client.end({ timeout: closeSeconds }))
  )
  const [row] = yield* query("connect", () => sql`select current_setting('server_version_num') as version`)
  const version = Number(row?.["version"])
  if (version < oldest) {
    const reason = `the server is PostgreSQL ${Math.floor(version / 10_000)}. try: PostgreSQL 15 or newer, or the embedded one`
    return yield* new SqlError({ operation: "connect", code: "", retryable: false, inDoubt: false, reason })
  }
  return sql
})

const open = (text: string, { applicationName = "millrace", asText = false, max = 10 }: Options): Sql => {
  const { tls, url } = splitTls(checked(text))
  const settings = {
    max,
    types: asText ? texts : values,
    // A backend that is killed during that query takes Node with it, and every new connection would wait for it.
    fetch_types: false,
    prepare: true,
    connect_timeout: 10,
    keep_alive: 30,
    max_lifetime: null,
    // The default waits up to 20 s once a server was away; whoever tries again has a schedule of his own.
    backoff: () => 0.05,
    onnotice: () => undefined,
    connection: {
      application_name: applicationName,
      TimeZone: "UTC",
      DateStyle: "ISO, YMD",
      plan_cache_mode: "force_generic_plan",
      options: padding
    },
    // The socket brings its own TLS.
    ssl: false,
    socket: socketFor(tls)
  }
  return postgres(url, settings) as unknown as Sql
}

const checked = (url: string): string => {
  if (URL.canParse(url) && /^postgres(ql)?:$/.test(new URL(url).protocol)) return url
  const reason = "the database's URL is malformed. try: postgres://user:password@host:5432/database"
  throw new SqlError({ operation: "connect", code: "", retryable: false, inDoubt: false, reason })
}

/** One session. It never reconnects: once its connection is lost, everything sent to it fails and nothing is executed. */
export interface Session {
  /** A query, as a tagged template; also a fragment within one. */
  <T extends ReadonlyArray<object> = ReadonlyArray<postgres.Row>>(
    text: TemplateStringsArray,
    ...parameters: ReadonlyArray<postgres.ParameterOrFragment<never>>
  ): postgres.PendingQuery<T & Array<postgres.Row>>
  /** Text as it is; without parameters it may hold several statements. */
  readonly unsafe: Sql["unsafe"]
  readonly json: Sql["json"]
}

/**
 * A session of its own beside the pool, for what needs one: transactions, session locks. Opening takes some milliseconds.
 *
 * postgres.js connects anew for the next statement where a connection is lost, in `begin` (its issue 1186) and `reserve` too: the
 * rest of a transaction would then be executed outside of it. Here statements go to the driver one at a time, so that none
 * waits inside it, and none goes once the connection is lost.
 */
export const session = (sql: Sql): Effect.Effect<Session, SqlError, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      query("open a session", async () => single(sql)),
      ({ client, isLost }) => Effect.promise(() => client.end({ timeout: isLost() ? 0 : closeSeconds }))
    ),
    ({ guarded }) => guarded
  )

// What postgres.js gives back, as far as it is needed: a promise that calls `handler` when somebody first waits for it.
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
          () => undefined
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

const closed = () =>
  new SqlError({
    operation: "session",
    code: "CONNECTION_CLOSED",
    retryable: true,
    inDoubt: false,
    reason: "the session's connection was lost before, so the statement was not sent"
  })

/**
 * Runs `use` in a transaction on a session of its own: committed if it succeeds, rolled back if it fails or is interrupted. When
 * the connection is lost, the rest fails without being executed. A lost reply to the commit is `inDoubt` and not `retryable`:
 * look first whether it was committed.
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
            // Closing the session rolls back too.
            yield* Effect.ignore(query("roll back", () => tx.unsafe("rollback")))
            return yield* exit
          }
          const { command } = yield* query("commit", () => tx.unsafe("commit")).pipe(Effect.mapError(doubtful))
          // So answers PostgreSQL where a statement had failed and its error was caught.
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
    reason: "the transaction was rolled back, since a statement in it had failed"
  })
const doubtful = (error: SqlError): SqlError =>
  error.inDoubt
    ? new SqlError({
        ...error,
        retryable: false,
        reason: `${error.reason}. Whether it was committed is unknown. try: look before doing it again`
      })
    : error
