// Two projections write the same few rows from all their partitions: no deadlock, and every event is in the totals.
import { Schema } from "effect"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { Agg, Application, Projection, ReadModel, Topic, Window } from "../../src/index.ts"
import { connect, query, type Sql } from "../../src/postgres/client/client.ts"
import { append, engine, run, settled, totals } from "../support/engine.ts"
import { databaseOn, server } from "../support/postgres.ts"
import { watched } from "./mutants.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const orders = Topic.records("s.orders", {
  value: { id: Schema.String, customer: Schema.String, region: Schema.String, amount: Schema.Finite, at: Schema.Int },
  key: "customer",
  id: "id",
  eventTime: "at",
  partitions: 12
})
const region = { region: Schema.String }
const totalsOf = { orders: Agg.count, amount: Agg.sum, highest: Agg.max }
const perHour = Window.tumbling("per_hour", { size: "1 hour", key: region, aggregate: totalsOf, shared: true })
const ever = Window.global("ever", { key: region, aggregate: totalsOf, shared: true })
const newest = ReadModel.table("newest", {
  columns: { region: Schema.String, id: Schema.String, note: Schema.NullOr(Schema.String) },
  primaryKey: ["region"],
  shared: true
})
/** Tables come in another order than in the other projection, and keys in that of the events. */
const first = Projection.make({
  name: "first",
  version: 1,
  source: orders,
  writes: [perHour, newest, ever],
  handle: ({ amount, id, region }, out) => {
    out.add(perHour, { region, orders: 1, amount, highest: amount })
    out.upsert(newest, { region, id, note: null })
    out.add(ever, { region, orders: 1, amount, highest: amount })
  }
})
const second = Projection.make({
  name: "second",
  version: 1,
  source: orders,
  writes: [newest, ever, perHour],
  handle: ({ amount, id, region }, out) => {
    out.add(ever, { region, orders: 1, amount, highest: amount })
    // three kinds of change to the same few rows
    if (amount % 3 === 0) out.delete(newest, { region })
    else if (amount % 3 === 1) out.update(newest, { region, note: id })
    else out.upsert(newest, { region, id, note: "second" })
    out.add(perHour, { region, orders: 1, amount, highest: amount })
  }
})
const application = Application.make({
  name: "shared",
  projections: [Projection.async(first), Projection.async(second)]
})

const regions = 8
const count = 6_000
const input = Array.from({ length: count }, (_, i) => ({
  id: `o${i}`,
  customer: `c${Math.floor(Math.random() * 500)}`,
  region: `r${Math.floor(Math.random() * regions)}`,
  amount: Math.floor(Math.random() * 1_000),
  at: 1_700_000_000_000 + i * 100
}))

/** All deadlocks that the server counts in this database; a session tells of its own when it ends. */
const deadlocksOf = (sql: Sql) =>
  Effect.map(
    query("deadlocks", () => sql`select deadlocks from pg_stat_database where datname = current_database()`),
    ([row]) => row!["deadlocks"] as number
  )

describe("rows that two projections share", () => {
  it.live(
    "count every event, without a deadlock, while 12 partitions of each write them at once",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const database = yield* databaseOn(root, 2)
          let deadlocks = 0
          const rolledBack = (code: string) => void (deadlocks += code === "40P01" ? 1 : 0)
          yield* Effect.scoped(
            Effect.gen(function* () {
              const sql = yield* connect(database.url, { max: 26 })
              const made = yield* engine(root, application, {
                on: { url: database.url, sql },
                storeSql: (pool) => watched(pool, { failed: rolledBack })
              })
              const stop = yield* run(made)
              // in pieces, so that there are many small commits, all at the same time
              for (let i = 0; i < count; i += 150) {
                yield* append(made, orders, input.slice(i, i + 150))
                // a machine on which handling is slow has many commits all the same
                if (i % 1_500 === 0) yield* settled(made, 30_000)
                else yield* Effect.sleep(5)
              }
              yield* settled(made, 30_000)
              yield* stop
            })
          )
          const { sql } = database
          yield* Effect.sleep(200)
          assert.strictEqual(deadlocks, 0)
          assert.strictEqual(yield* deadlocksOf(sql), 0)
          const sums = yield* query("read", () => sql`select * from ever order by region collate "C"`)
          const expected = [...Map.groupBy(input, ({ region }) => region)]
            .map(([region, of]) => ({
              region,
              orders: 2 * of.length,
              amount: 2 * of.reduce((sum, { amount }) => sum + amount, 0),
              highest: Math.max(...of.map(({ amount }) => amount))
            }))
            .toSorted((a, b) => (a.region < b.region ? -1 : 1))
          assert.deepStrictEqual(JSON.parse(JSON.stringify(sums)), expected)
          const [hours] = yield* query("read", () => sql`select sum(orders)::int8 as orders from per_hour`)
          const [late] = yield* query("read", () => sql`select count(*) as late from millrace.late_events`)
          assert.strictEqual(hours!["orders"] + late!["late"], 2 * count)
          const commits = yield* query("read", () => sql`select sum(commit_no)::int8 as n from millrace.progress`)
          assert.isAbove(commits[0]!["n"], 60)
          assert.deepInclude(yield* totals(sql), { events: 2 * count, dead: 0 })
        })
      ),
    120_000
  )
})
