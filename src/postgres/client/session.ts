// A long-lived connection that receives notifications and holds advisory locks, reconnects, and reports when it was lost.
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import postgres from "postgres"
import { query } from "./errors.ts"
import { withDenseRows } from "./rows.ts"

/** A connection that has state on the server. */
export interface ListeningSession {
  /** A client of one connection, which reconnects. A query may run on a later connection: compare `pg_backend_pid()` where locks matter. */
  readonly sql: postgres.Sql
  /** The id of the server process that holds this session's locks; undefined while the connection is lost. */
  readonly pid: () => number | undefined
  /** Waits until the session is open, and returns that id. */
  readonly opened: Effect.Effect<number>
}
/** Callbacks of a session; all are called synchronously. */
export interface SessionHooks {
  /** A notification on the channel arrived. */
  readonly notified: (payload: string) => void
  /** The session listens and holds no lock: at the start, and after every reconnect. */
  readonly ready: () => void
  /** The connection was lost, and with it all locks. */
  readonly lost: () => void
}

/** A client of one connection with the options of `sql`. It is closed with the scope; queries that still wait then fail. */
export const single = (
  sql: postgres.Sql,
  name: string,
  hooks: { readonly onclose?: () => void; readonly onnotify?: (channel: string, payload: string) => void } = {}
): Effect.Effect<postgres.Sql, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { connection: given } = sql.options
      const settings = `-c lock_timeout=10000 ${String(given["options"] ?? "")}`
      const connection = { ...given, application_name: name, options: settings }
      // `max_lifetime` would end the connection, and with it the locks
      const options = {
        ...sql.options,
        ...hooks,
        max: 1,
        idle_timeout: null,
        max_lifetime: null,
        fetch_types: false,
        connection
      }
      return withDenseRows(postgres(options as unknown as postgres.Options<{}>))
    }),
    (one) => Effect.promise(() => one.end({ timeout: 1 }))
  )

const reconnecting = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("2 seconds")])

/** Keeps a session that listens on a channel open until the scope closes, and reconnects when it is lost. Does not wait for it to open. */
export const make = Effect.fnUntraced(function* (
  sql: postgres.Sql,
  channel: string,
  hooks: SessionHooks
): Effect.fn.Return<ListeningSession, never, Scope.Scope> {
  let pid: number | undefined
  const closed = Latch.makeUnsafe(false)
  const ready = Latch.makeUnsafe(false)
  const one = yield* single(sql, "millrace log session", {
    onclose: () => {
      closed.openUnsafe()
      if (pid === undefined) return
      pid = undefined
      ready.closeUnsafe()
      hooks.lost()
    },
    onnotify: (_, payload) => hooks.notified(payload)
  })
  const begin = query("open the session", async () => {
    closed.closeUnsafe()
    // One message, so that all three run on one connection. A query that ran there earlier may have left a lock that is not accounted for.
    const results = await one.unsafe(
      `select pg_advisory_unlock_all(); listen ${channel}; select pg_backend_pid() as pid`
    )
    // the results of the two selects; `listen` has none
    const [row] = (results as unknown as ReadonlyArray<ReadonlyArray<{ readonly pid: number }>>).at(-1)!
    return Number(row!.pid)
  })
  const keep = Effect.gen(function* () {
    const opened = yield* Effect.retry(begin, reconnecting)
    if (!closed.isOpen()) {
      pid = opened
      ready.openUnsafe()
      hooks.ready()
      yield* closed.await
    }
    yield* Effect.sleep("20 millis")
  })
  yield* Effect.forkScoped(Effect.forever(keep))
  const opened: Effect.Effect<number> = Effect.flatMap(ready.await, () =>
    pid === undefined ? opened : Effect.succeed(pid)
  )
  return { sql: one, pid: () => pid, opened }
})
