// A database with the aggregate of `accounts.ts`, and processes on it: each with a pool, a store and the code of its own application.
import { randomUUID } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Append, EventStore, Expected, NewEvent } from "../../src/aggregate/event-store.ts"
import { Log } from "../../src/log/log.ts"
import type { Projection, Run } from "../../src/model/projection.ts"
import type { Row } from "../../src/model/recorder.ts"
import { connect, type Sql } from "../../src/postgres/client/client.ts"
import * as PostgresEvents from "../../src/postgres/events/events.ts"
import * as PostgresLog from "../../src/postgres/log/log.ts"
import { noteLifecycles } from "../../src/postgres/store/lifecycles.ts"
import * as PostgresStore from "../../src/postgres/store/store.ts"
import { live } from "../../src/runner/in-memory.ts"
import * as Runner from "../../src/runner/runner.ts"
import { Store } from "../../src/runner/store.ts"
import { moveOnce } from "../../src/system/lifecycles.ts"
import { Account, accounts } from "./accounts.ts"
import type { Database } from "./postgres.ts"

/** A process: what it appends with, and what runs its projections. */
export interface InlineProcess {
  readonly sql: Sql
  readonly store: EventStore["Service"]
  readonly statements: () => number
  /** Runs the projections behind the log until the returned effect stops them. */
  readonly run: Effect.Effect<Effect.Effect<void>>
  /** The same for one build. */
  readonly runBuild: (build: Projection.Any) => Effect.Effect<Effect.Effect<void>>
}
/** Starts a process whose configuration has these runs, as `openSystem` does. `announces`: whether its lifecycles are noted. */
export const inlineProcess = Effect.fnUntraced(function* (
  { url }: Pick<Database, "url">,
  runs: ReadonlyArray<Run<never, never>>,
  { announces = true, max = 12 }: { readonly announces?: boolean; readonly max?: number } = {}
) {
  const sql = yield* connect(url, { max })
  const { appended, log } = yield* PostgresLog.make(sql, { pollMs: 100 })
  const application = { projections: runs } as never
  const { statements, store } = PostgresEvents.make(sql, { appended, application })
  yield* store.declare([Account])
  const projections = PostgresStore.make(sql)
  yield* projections.prepare(
    runs.map(({ projection }) => projection),
    () => Account.partitions
  )
  if (announces) yield* noteLifecycles(sql, runs)
  yield* moveOnce(sql)
  const running = Effect.fnUntraced(function* (builds: ReadonlyArray<Projection.Any>) {
    const scope = yield* Scope.make()
    const loops = Effect.forEach(builds, (build) => Runner.run(build), { concurrency: "unbounded" })
    const provided = loops.pipe(Effect.provideService(Log, log), Effect.provideService(Store, projections))
    yield* Effect.forkIn(provided as Effect.Effect<unknown>, scope)
    return Scope.close(scope, Exit.void)
  })
  const run = running(runs.map(({ projection }) => projection as Projection.Any))
  const runBuild = (build: Projection.Any) => running([build])
  return { sql, store, statements, run, runBuild } satisfies InlineProcess
})

const at = Date.UTC(2026, 0, 1)
/** An event of an account. */
export const moved = (account: string, amount: number): NewEvent => ({
  type: "account.moved",
  value: JSON.stringify({ type: "account.moved", account_id: account, at, amount }),
  eventId: undefined,
  eventTime: undefined,
  tenant: undefined,
  traceparent: undefined,
  schemaVersion: 1,
  headers: {}
})
/** An append of movements. */
export const movesOf = (stream: string, amounts: ReadonlyArray<number>, expected: Expected = "any"): Append => ({
  aggregate: "account",
  stream,
  expected,
  events: amounts.map((amount) => moved(stream, amount))
})
export const append = ({ store }: Pick<InlineProcess, "store">, one: Append, commandId: string = randomUUID()) =>
  store.append(one, commandId)

const byKey = (rows: ReadonlyArray<Row>) =>
  rows.map((row) => ({ ...row })).toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1))
/** The rows that the views show. */
export const shown = Effect.fnUntraced(function* (sql: Sql, schema = "") {
  const of = (name: string) => Effect.promise(async () => byKey(await sql.unsafe(`select * from ${schema}${name}`)))
  return { balances: yield* of("balances"), turnover: yield* of("turnover"), account_total: yield* of("account_total") }
})
/** The rows that a fold of all appended events has, in the order of each partition. */
export const foldedRows = Effect.fnUntraced(function* (sql: Sql, projection: Projection.Any = accounts) {
  const rows = yield* Effect.promise(
    () => sql<Array<{ readonly value: string }>>`
      select value from millrace.log_record where topic = 'account' order by partition, position`
  )
  const events = rows.map(({ value }) => JSON.parse(value) as never)
  const found = live(projection as never, events) as Record<string, ReadonlyArray<Row>>
  return {
    balances: byKey(found["balances"]!),
    turnover: byKey(found["turnover"]!),
    account_total: byKey(found["account_total"]!)
  }
})
