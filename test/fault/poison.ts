// A projection that fails as its events say, and what its tables must then hold. Used by poison.test.ts.
import { Schema } from "effect"
import { assert } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Agg, Application, Column, Event, Projection, ReadModel, Topic, Window } from "../../src/index.ts"
import { query, type Sql } from "../../src/postgres/client/client.ts"
import type { FailurePolicy } from "../../src/model/failure-policy.ts"
import { append, type Engine, run, settled, totals } from "../support/engine.ts"

const fields = { id: Schema.String, key: Schema.String, at: Schema.Int, n: Schema.Finite, does: Schema.String }
const Done = Event.make("done", fields)
/** Events of one type, in four partitions. */
export const events = Topic.events("p.events", { events: [Done], id: "id", key: "key", eventTime: "at", partitions: 4 })
const rows = ReadModel.table("rows", {
  columns: {
    id: Schema.String,
    note: Schema.String,
    whole: Schema.Int,
    at: Column.timestamptz,
    json: Schema.Struct({ list: Schema.Array(Schema.String) })
  },
  primaryKey: ["id"]
})
const owned = ReadModel.table("owned", { columns: { key: Schema.String, times: Schema.Int }, primaryKey: ["key"] })
const sums = Window.global("sums", { key: { key: Schema.String }, aggregate: { events: Agg.count, n: Agg.sum } })
const hours = Window.tumbling("hours", {
  size: "1 hour",
  key: { key: Schema.String },
  aggregate: { events: Agg.count }
})

/** Counts how often a handler was called for an id. */
export class Calls extends Context.Service<Calls, { readonly of: (id: string) => Effect.Effect<number> }>()(
  "test/Calls"
) {}
/** How often the handler's Effect was called for an id. */
export const calls = new Map<string, number>()
const counted = Layer.succeed(
  Calls,
  Calls.of({
    of: (id) => Effect.sync(() => (calls.set(id, (calls.get(id) ?? 0) + 1), calls.get(id)!))
  })
)
/** What a handler fails with. */
export class Refused extends Schema.TaggedError<Refused>()("Refused", { why: Schema.String }) {
  override get message() {
    return `refused: ${this.why}`
  }
}

/** The first event's time; each later one is a millisecond on. */
export const start = 1_700_000_000_000
let made = 0
/** A new event; `does` says how it fails. */
export const done = (does = "", more: Partial<(typeof Done)["Event"]> = {}) => {
  const i = made++
  return { type: "done" as const, id: `e${i}`, key: `k${i % 16}`, at: start + i, n: 1, does, ...more }
}
/** Every event leaves a row, and counts in both windows and in its key's row, unless it says how to fail. */
const projection = (failure: FailurePolicy, fixed = false) =>
  Projection.make({
    name: "poison",
    version: 1,
    source: events,
    dedupe: { within: "1 hour" },
    writes: [rows, owned, sums, hours],
    failure,
    handle: ({ at, does, id, key, n }, out) => {
      out.add(sums, { key, events: 1, n })
      out.add(hours, { key, events: 1 })
      if (does === "fold") {
        out.modify(owned, { key }, () => {
          throw new RangeError("the change failed")
        })
      } else out.modify(owned, { key }, (row) => ({ key, times: (row?.times ?? 0) + 1 }))
      if (does === "throw" && !fixed) throw new TypeError(`cannot handle ${id}`)
      const note =
        does === "nul" ? "a \u0000 b" : does === "surrogate" ? "half \ud83d" : does === "long" ? noise() : does
      const whole = does === "whole" ? 2 ** 63 : 1
      const json = { list: does === "json" ? ("none" as never) : [does] }
      out.upsert(rows, { id: does === "long" ? note : id, note, whole, json, at: does === "time" ? 8.64e15 : at })
      if (does === "" || does === "throw") return undefined
      return asked(does, id, () => out.add(sums, { key, events: 1_000, n: 1_000 }))
    }
  })
const noise = () => Array.from({ length: 4_000 }, () => String.fromCharCode(33 + Math.random() * 90)).join("")
/** What the handler does as an Effect; `before` records something that its failure must undo. */
const asked = Effect.fnUntraced(function* (does: string, id: string, before: () => void) {
  const call = yield* (yield* Calls).of(id)
  if (does === "fail" || (does === "third" && call < 3)) before()
  if (does === "fail" || (does === "third" && call < 3)) return yield* new Refused({ why: `call ${call}` })
  if (does === "die") return yield* Effect.die(new Error("a defect"))
  if (does === "interrupt") return yield* Effect.interrupt
  if (does === "slow" && call === 1) return yield* Effect.sleep("1 minute")
})
/** The projection under a policy; `fixed`: its handler no longer throws. */
export const application = (failure: FailurePolicy, fixed = false) =>
  Application.make({ name: "poison", projections: [Projection.async(projection(failure, fixed))], services: counted })

/** Appends events, and runs the projection until all of them are processed or their partitions are halted. */
export const handled = Effect.fnUntraced(function* (made: Engine, values: ReadonlyArray<object>) {
  yield* append(made, events, values)
  const stop = yield* run(made)
  yield* settled(made, 50_000)
  yield* stop
})
/** Dead letters, by position. */
export const deadLetters = (sql: Sql) =>
  query(
    "dead letters",
    () =>
      sql<
        Array<{
          topic: string
          partition: number
          position: number
          status: string
          key: string
          error: string
          message: string
          attempts: number
          value: string
          trace_id: string
          event_time: number
        }>
      >`select * from millrace.dead_letters order by position, partition`
  )
/** Asserts that the events given are counted in all tables, once each, and nothing else is. */
export const assertCounted = Effect.fnUntraced(function* (
  sql: Sql,
  values: ReadonlyArray<{ id: string; key: string }>
) {
  const found = yield* query("rows", () => sql<Array<{ id: string }>>`select id from poison_v1.rows`)
  assert.deepStrictEqual(found.map(({ id }) => id).toSorted(), values.map(({ id }) => id).toSorted())
  const expected = Object.fromEntries([...Map.groupBy(values, ({ key }) => key)].map(([key, of]) => [key, of.length]))
  const tables = { sums: "sum(events)::int8", hours: "sum(events)::int8", owned: "max(times)::int8" }
  for (const [table, sum] of Object.entries(tables)) {
    const read = yield* query("sums", () =>
      sql.unsafe<Array<{ key: string; n: number }>>(`select key, ${sum} as n from poison_v1.${table} group by key`)
    )
    assert.deepStrictEqual(Object.fromEntries(read.map(({ key, n }) => [key, n])), expected, table)
  }
  assert.strictEqual((yield* totals(sql)).events, values.length)
})
/** Events that do not fail. */
export const many = (count: number) => Array.from({ length: count }, () => done())
