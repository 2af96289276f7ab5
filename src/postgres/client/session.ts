// One connection of this process that lasts: it hears notifications and holds advisory locks, and says when it was lost.
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import postgres from "postgres"
import { query } from "./errors.ts"

/** A connection with its own state on the server. */
export interface Session {
  /** One connection, opened anew when it is lost. A query may meet the new one: compare `pg_backend_pid()` where locks matter. */
  readonly sql: postgres.Sql
  /** The server process that holds this session's locks; undefined while there is none. */
  readonly pid: () => number | undefined
  /** Waits for it. */
  readonly opened: Effect.Effect<number>
}
/** What a session tells; all are called synchronously. */
export interface Hooks {
  readonly notified: (payload: string) => void
  /** Listening, and no lock is held: at the start, and after every loss. */
  readonly ready: () => void
  readonly lost: () => void
}

/** A client of one connection with the same options as `sql`. Ended with the scope; what waits for it fails then. */
export const single = (
  sql: postgres.Sql,
  name: string,
  hooks: { readonly onclose?: () => void; readonly onnotify?: (channel: string, payload: string) => void } = {}
): Effect.Effect<postgres.Sql, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const connection = { ...sql.options.connection, application_name: name, lock_timeout: 10_000 }
      // `max_lifetime` would drop the locks by and by
      const options = {
        ...sql.options,
        ...hooks,
        max: 1,
        idle_timeout: null,
        max_lifetime: null,
        fetch_types: false,
        connection
      }
      return postgres(options as unknown as postgres.Options<{}>)
    }),
    (one) => Effect.promise(() => one.end({ timeout: 1 }))
  )

const again = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("2 seconds")])

/** Opens a session that listens on a channel, until the scope closes; after a loss it is opened anew. Does not wait for it. */
export const make = Effect.fnUntraced(function* (
  sql: postgres.Sql,
  channel: string,
  hooks: Hooks
): Effect.fn.Return<Session, never, Scope.Scope> {
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
    // One message, so one connection. A query that overtook it there may have left a lock that nobody knows of.
    const results = await one.unsafe(
      `select pg_advisory_unlock_all(); listen ${channel}; select pg_backend_pid() as pid`
    )
    // a result a select; `listen` has none of its own
    const [row] = (results as unknown as ReadonlyArray<ReadonlyArray<{ readonly pid: number }>>).at(-1)!
    return Number(row!.pid)
  })
  const keep = Effect.gen(function* () {
    const opened = yield* Effect.retry(begin, again)
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
