// Reads one state of the database with several sessions: the first takes a snapshot, the others use it.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { query, session, type Session, type Sql, type SqlError } from "../client/client.ts"

/** Opens a session that can take a snapshot, or join one. */
export const openSnapshotSession = Effect.fnUntraced(function* (
  sql: Sql
): Effect.fn.Return<Session, SqlError, Scope.Scope> {
  const one = yield* session(sql)
  // reading large tables takes longer than the timeouts of a role may allow, and the first session waits for the others
  yield* query("prepare a session", () =>
    one.unsafe(
      "set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; set work_mem = '64MB'; set timezone = 'UTC'"
    )
  )
  // the server notices within a second that this process was killed; not every platform can
  yield* Effect.ignore(query("watch the connection", () => one.unsafe("set client_connection_check_interval = '1s'")))
  return one
})

const begin = "begin transaction isolation level repeatable read, read only"

/** Takes a snapshot: everything that was committed before is in it. Returns its id, by which other sessions can join while this one has it. */
export const takeSnapshot = (one: Session): Effect.Effect<string, SqlError> =>
  query("take a snapshot", async () => {
    await one.unsafe(begin)
    const [row] = await one.unsafe<Array<{ readonly id: string }>>("select pg_export_snapshot() as id")
    return row!.id
  })
/** Gives the session's snapshot up, so that it can take another one. */
export const leaveSnapshot = (one: Session): Effect.Effect<unknown, SqlError> =>
  query("leave a snapshot", () => one.unsafe("rollback"))

/** Opens a session that reads the snapshot of another one. */
export const joinSnapshot = Effect.fnUntraced(function* (
  sql: Sql,
  id: string
): Effect.fn.Return<Session, SqlError, Scope.Scope> {
  const one = yield* openSnapshotSession(sql)
  yield* query("join a snapshot", () => one.unsafe(`${begin}; set transaction snapshot '${id.replaceAll("'", "''")}'`))
  return one
})
