// Duplicates are counted once: within the bound of event time, across restarts and claims, in parallel, and as a whole file.
import { Schema } from "effect"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { Agg, Application, Projection, Topic, Window } from "../../src/index.ts"
import { query, type Sql } from "../../src/postgres/client/client.ts"
import signalsApplication from "../support/signals.ts"
import { features, rawEvents } from "../../projections/signals.ts"
import { append, engine, run, settled, totals, type Engine } from "../support/engine.ts"
import { assertOracle, flights, january, planes } from "../support/oracle.ts"
import { server } from "../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const hits = Topic.records("d.hits", {
  value: { id: Schema.String, key: Schema.String, at: Schema.Int, tenant: Schema.String },
  key: "key",
  id: "id",
  eventTime: "at",
  tenant: "tenant",
  partitions: 3
})
const counts = Window.global("counts", { key: { key: Schema.String }, aggregate: { hits: Agg.count } })
const counter = Projection.make({
  name: "counter",
  version: 1,
  source: hits,
  dedupe: { within: "10 minutes" },
  writes: [counts],
  handle: ({ key }, out) => out.add(counts, { key, hits: 1 })
})
const application = Application.make({ name: "counter", projections: [Projection.async(counter)] })

const minute = 60_000
const start = 1_700_000_000_000
const hit = (id: string, atMinutes = 0, tenant = "t", key = "k") => ({
  id,
  key,
  tenant,
  at: start + atMinutes * minute
})
const test = (name: string, body: (made: Engine) => Effect.Effect<void, unknown, Scope.Scope>, timeout = 60_000) =>
  it.live(name, () => Effect.scoped(Effect.flatMap(engine(root, application), body)), timeout)
const hitsOf = (sql: Sql) =>
  Effect.map(
    query("hits", () => sql`select coalesce(sum(hits), 0)::int8 as hits from counts`),
    ([row]) => row!["hits"] as number
  )
/** Appends in one go, lets a new claimant handle it, and stops that. */
const handled = Effect.fnUntraced(function* (made: Engine, values: ReadonlyArray<object>) {
  yield* append(made, hits, values)
  const stop = yield* run(made)
  yield* settled(made)
  yield* stop
})

describe("an event that is sent again", () => {
  test(
    "is a duplicate within the bound of event time, and another event beyond it",
    Effect.fnUntraced(function* (made) {
      yield* handled(made, [
        // each within the bound of an earlier record: one
        hit("a", 0),
        hit("a", 0),
        hit("a", 10),
        hit("a", 20),
        // eleven minutes apart: two
        hit("b", 0),
        hit("b", 11),
        // the second within the bound of the first, and the third of the second: one
        hit("c", 30),
        hit("c", 25),
        hit("c", 19),
        // two tenants: two
        hit("d", 0),
        hit("d", 0, "other"),
        hit("e", 0)
      ])
      assert.deepStrictEqual(yield* totals(made.sql), { events: 1 + 2 + 1 + 2 + 1, duplicates: 3 + 2, dead: 0 })
      assert.strictEqual(yield* hitsOf(made.sql), 7)
    })
  )
  test(
    "after a restart is found by the ids that commits have stored",
    Effect.fnUntraced(function* (made) {
      yield* handled(made, [hit("a", 0), hit("b", 0), hit("late", -500), hit("c", 300)])
      assert.deepStrictEqual(yield* totals(made.sql), { events: 4, duplicates: 0, dead: 0 })
      // each by a claimant of its own, which knows nothing
      for (const again of [hit("a", 0), hit("b", 9), hit("b", 18), hit("late", -500), hit("c", 300), hit("c", 291)]) {
        yield* handled(made, [again])
      }
      assert.deepStrictEqual(yield* totals(made.sql), { events: 4, duplicates: 6, dead: 0 })
      // and now some that only look alike
      for (const other of [hit("a", -11), hit("late", -489), hit("c", 311), hit("b", 0, "other")]) {
        yield* handled(made, [other])
      }
      assert.deepStrictEqual(yield* totals(made.sql), { events: 8, duplicates: 6, dead: 0 })
      assert.strictEqual(yield* hitsOf(made.sql), 8)
      const [seen] = yield* query("seen", () => made.sql`select count(*) as rows from millrace.seen`)
      // a few chunks, and no row an event
      assert.isBelow(seen!["rows"], 4)
    })
  )
  test(
    "a hundred times in parallel is counted once",
    Effect.fnUntraced(function* (made) {
      const stop = yield* run(made)
      const appends = Array.from({ length: 100 }, () => append(made, hits, [hit("same")]))
      yield* Effect.all(appends, { concurrency: "unbounded" })
      yield* settled(made)
      yield* stop
      assert.deepStrictEqual(yield* totals(made.sql), { events: 1, duplicates: 99, dead: 0 })
      assert.strictEqual(yield* hitsOf(made.sql), 1)
    })
  )
  test(
    "while partitions move between claimants is counted once",
    Effect.fnUntraced(function* (made) {
      const ids = Array.from({ length: 300 }, (_, i) => hit(`i${i}`, i / 100, "t", `k${i % 40}`))
      for (let round = 0; round < 6; round++) {
        const stops = [yield* run(made), yield* run(yield* engine(root, application, { on: made }))]
        yield* append(made, hits, ids)
        yield* Effect.sleep(Math.random() * 60)
        for (const stop of stops) yield* stop
      }
      const stop = yield* run(made)
      yield* settled(made)
      yield* stop
      assert.deepStrictEqual(yield* totals(made.sql), { events: 300, duplicates: 1_500, dead: 0 })
      assert.strictEqual(yield* hitsOf(made.sql), 300)
    })
  )
})

/** A checksum of each table of the projection, and of what came late. */
const checksums = Effect.fnUntraced(function* (sql: Sql) {
  const tables = yield* query(
    "tables",
    () =>
      sql`select schemaname || '.' || quote_ident(tablename) as name from pg_tables where schemaname = 'signals_v1' order by 1`
  )
  assert.isAtLeast(tables.length, 2)
  const sums: Record<string, string> = {}
  for (const name of [
    ...tables.map((row) => row["name"] as string),
    "millrace.late_events",
    "millrace.outbox",
    "millrace.seen"
  ]) {
    const [row] = yield* query("sum", () =>
      sql.unsafe(
        `select count(*) || ' ' || coalesce(md5(string_agg(md5(t::text), '' order by md5(t::text))), '') as sum from ${name} t`
      )
    )
    sums[name] = row!["sum"]
  }
  return sums
})

describe("a file that is sent again", () => {
  it.live(
    "changes no table",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const made = yield* engine(root, signalsApplication)
          const events = flights().map((line) => JSON.parse(line) as object)
          const known = planes().map((line) => JSON.parse(line) as object)
          yield* append(made, features, known)
          const send = Effect.gen(function* () {
            for (let i = 0; i < events.length; i += 3_000) yield* append(made, rawEvents, events.slice(i, i + 3_000))
          })
          yield* send
          const stop = yield* run(made)
          yield* settled(made, 60_000)
          yield* stop
          assert.deepStrictEqual(yield* totals(made.sql), { events: january.events, duplicates: 0, dead: 0 })
          yield* assertOracle(made.sql)
          const before = yield* checksums(made.sql)
          yield* send
          const again = yield* run(made)
          yield* settled(made, 60_000)
          yield* again
          assert.deepStrictEqual(yield* totals(made.sql), {
            events: january.events,
            duplicates: january.events,
            dead: 0
          })
          assert.deepStrictEqual(yield* checksums(made.sql), before)
        })
      ),
    120_000
  )
})
