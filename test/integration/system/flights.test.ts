// January's flights give the oracle's read models on the log of PostgreSQL, on the log in memory, and in the driver.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import application from "../../support/signals.ts"
import { MemoryEngine } from "../../../src/runner/in-memory.ts"
import * as MemoryLog from "../../../src/memory/log.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import type { Row } from "../../../src/model/recorder.ts"
import { features, rawEvents, signals } from "../../../projections/signals.ts"
import { append, engine, run, settled, totals, type Engine } from "../../support/engine.ts"
import { flights, january, linesOf, planes } from "../../support/oracle.ts"
import { server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const events = flights().map((line) => rawEvents.decode(JSON.parse(line)))
const known = planes().map((line) => features.decode(JSON.parse(line)))
const { late, ...counts } = january
const lateBySize = { "1m": 448, "5m": 444, "1h": 330 }

const lateRows = (sql: Sql) =>
  Effect.map(
    query(
      "count late rows",
      () => sql<Array<{ window_size: string; n: number }>>`
        select window_size, count(*) as n from millrace.late_events group by 1 order by 1`
    ),
    (rows) => Object.fromEntries(rows.map(({ n, window_size }) => [window_size, n]))
  )
const published = (sql: Sql) =>
  Effect.map(
    query(
      "count messages",
      () => sql<Array<{ target: string; n: number }>>`
        select target, sum(messages)::int8 as n from millrace.outbox where target <> 'alerts.analytics.v1' group by 1`
    ),
    (rows) => Object.fromEntries(rows.map(({ n, target }) => [target, n]))
  )

const tables = Effect.fnUntraced(function* (sql: Sql) {
  const alerts = yield* query("read alerts", () => sql`select * from alerts`)
  const activity = yield* query("read windows", () => sql`select * from entity_activity`)
  sameAsOracle(alerts, activity)
})

/** Appends the flights in several requests while the projection runs, and compares its read models with the oracle's. */
const runs = Effect.fnUntraced(function* (on: Engine) {
  yield* append(on, features, known)
  const stop = yield* run(on)
  for (let i = 0; i < events.length; i += 4_000) yield* append(on, rawEvents, events.slice(i, i + 4_000))
  yield* settled(on)
  assert.deepStrictEqual(yield* totals(on.sql), { events: counts.events, duplicates: 0, dead: 0 })
  yield* tables(on.sql)
  assert.deepStrictEqual(yield* lateRows(on.sql), lateBySize)
  assert.deepStrictEqual(yield* published(on.sql), {
    "signals.scores.v1": counts.events,
    "alerts.v1": counts.alerts
  })
  yield* stop
})

describe("January's flights", () => {
  it.live(
    "give the oracle's tables on PostgreSQL, and change nothing when they are sent again",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const on = yield* engine(root, { ...application, services: undefined })
          yield* runs(on)
          const stop = yield* run(on)
          yield* append(on, rawEvents, events.slice(0, 5_000))
          yield* settled(on)
          assert.deepStrictEqual(yield* totals(on.sql), { events: counts.events, duplicates: 5_000, dead: 0 })
          yield* tables(on.sql)
          yield* stop
        })
      ),
    60_000
  )

  it.live(
    "give the oracle's tables from the log in memory",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const on = yield* engine(root, { ...application, services: undefined })
          const { log } = MemoryLog.make()
          for (const topic of [rawEvents, features]) {
            yield* log.declare([
              { name: topic.name, partitions: 12, compacted: topic === features, retentionMs: undefined }
            ])
          }
          yield* runs({ ...on, log })
        })
      ),
    60_000
  )

  it.live("give the oracle's tables in the engine in memory, without a database", () =>
    Effect.gen(function* () {
      const engine = new MemoryEngine(signals, 12)
      engine.seed(features, known)
      for (let i = 0; i < events.length; i += 1_000) yield* engine.processOrFail(events.slice(i, i + 1_000))
      const { alerts, entity_activity } = engine.rows()
      sameAsOracle(alerts!, entity_activity!)
      assert.strictEqual(engine.late().length, late)
      const sizes = Object.groupBy(engine.late(), (row) => row["window_size"] as string)
      assert.deepStrictEqual(
        Object.fromEntries(Object.entries(sizes).map(([size, rows]) => [size, rows!.length])),
        lateBySize
      )
    })
  )
})

const texts = ({ columns, rows }: { readonly columns: ReadonlyArray<string>; readonly rows: ReadonlyArray<Row> }) =>
  rows
    .map((row) =>
      columns.map((column) => (/score|threshold/.test(column) ? row[column].toFixed(4) : row[column])).join("\t")
    )
    .toSorted(byBytes)
const byBytes = (a: string, b: string) => (a < b ? -1 : 1)
/** Asserts that the read models equal the oracle's line by line. Instants are milliseconds. */
const sameAsOracle = (alerts: ReadonlyArray<Row>, activity: ReadonlyArray<Row>) => {
  const alertColumns = ["alert_id", "entity_id", "score", "threshold", "segment", "occurred_at"]
  const activityColumns = ["entity_id", "window_size", "window_start", "events", "alerts", "score_sum", "score_max"]
  sameLines(texts({ columns: alertColumns, rows: alerts }), linesOf("test/data/2013-01.alerts.tsv.gz"))
  sameLines(texts({ columns: activityColumns, rows: activity }), linesOf("test/data/2013-01.entity_activity.tsv.gz"))
  assert.deepStrictEqual([alerts.length, activity.length], [counts.alerts, counts.windows])
}
// compares the first line that differs: a difference of 80,000 lines takes a minute to print
const sameLines = (found: ReadonlyArray<string>, oracle: ReadonlyArray<string>) => {
  const expected = oracle.toSorted(byBytes)
  const at = expected.findIndex((line, i) => line !== found[i])
  if (at >= 0) assert.strictEqual(found[at], expected[at], `line ${at}`)
  assert.strictEqual(found.length, expected.length)
}
