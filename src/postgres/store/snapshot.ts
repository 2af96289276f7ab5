// Reads one state of the database with several sessions: the first takes a snapshot, the others use it.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { query, session, type Session, type Sql, type SqlError } from "../client/client.ts"

/** A state of the database that sessions can read for as long as its scope is open. */
export interface Snapshot {
  readonly id: string
  /** The session that took it. */
  readonly session: Session
}

const begin = Effect.fnUntraced(function* (sql: Sql, more: string) {
  const one = yield* session(sql)
  // comparing large tables takes longer than the timeouts of a role may allow, and the first session waits for the others
  const settings = "set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; set work_mem = '64MB'"
  yield* query("begin reading a snapshot", () =>
    one.unsafe(`${settings}; begin transaction isolation level repeatable read, read only; ${more}`)
  )
  return one
})

/** Takes a snapshot: everything that was committed before this returns is in it. */
export const takeSnapshot = Effect.fnUntraced(function* (sql: Sql): Effect.fn.Return<Snapshot, SqlError, Scope.Scope> {
  const one = yield* begin(sql, "")
  const [row] = yield* query("export a snapshot", () =>
    one.unsafe<Array<{ readonly id: string }>>("select pg_export_snapshot() as id")
  )
  return { id: row!.id, session: one }
})

/** Opens a further session that reads a snapshot. */
export const joinSnapshot = (sql: Sql, { id }: Snapshot): Effect.Effect<Session, SqlError, Scope.Scope> =>
  begin(sql, `set transaction snapshot '${id.replaceAll("'", "''")}'`)
