// Names and values that PostgreSQL might see in another way than the store in memory: both do the same with them.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Agg, Column, Event, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"
import { calendarSpan, calendarUnits } from "../../../src/model/calendar.ts"
import type { Out, Writable } from "../../../src/model/handler.ts"
import { Log } from "../../../src/log/log.ts"
import { connect, query, type Sql } from "../../../src/postgres/client/client.ts"
import { arrayLiteral } from "../../../src/postgres/client/types.ts"
import { MemoryEngine } from "../../../src/runner/in-memory.ts"
import { halts } from "../../support/engine.ts"
import { memoryEngine } from "../../support/memory-engine.ts"
import { server } from "../../support/postgres.ts"
import { randomOf, seed } from "../../support/random.ts"
import {
  outbox,
  outboxOf,
  same,
  sameDeadLetters,
  sameRows,
  type Engine,
  type Message
} from "../../support/same-as-memory.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

/** Plays batches of events on PostgreSQL and in memory, and compares all but late events. Returns the database. */
const playGiven = Effect.fnUntraced(function* (
  projection: Projection.Any,
  source: Topic.Any,
  batches: ReadonlyArray<ReadonlyArray<object>>
) {
  const { append, handle, sql } = yield* memoryEngine(root, projection, [source])
  const engine: Engine = new MemoryEngine(projection as never)
  for (const batch of batches) {
    yield* append(source, batch)
    yield* handle
    yield* engine.process(batch as never)
  }
  assert.deepStrictEqual([...(yield* halts(sql))], [])
  yield* sameRows(sql, engine)
  yield* sameDeadLetters(sql, engine)
  const published = (messages: ReadonlyArray<Message>) => messages.filter(([, topic]) => !topic.endsWith(".dlq"))
  same(published(yield* outbox(sql, () => 1)), published(outboxOf(engine)), "messages")
  return sql
})
const WasSet = Event.make("set", { k: Schema.String, at: Schema.Int, how: Schema.String, value: Schema.Unknown })
const sets = Topic.events("sets", { events: [WasSet], key: "k", eventTime: "at" })
const set = (k: string, how: string, value: unknown = null, at = Date.UTC(2026, 0, 1, 12)) =>
  WasSet.make({ k, at, how, value })
/** A projection whose handler writes what its events say. */
const setting = (
  writes: ReadonlyArray<Writable>,
  handle: (event: (typeof WasSet)["Event"], out: Out<Writable>) => void
): Projection.Any => Projection.make({ name: "setting", version: 1, source: sets, writes, handle: handle as never })

describe("what PostgreSQL might see in another way is the same in memory", () => {
  it.live(
    "columns that are called as parts of the statement were",
    () =>
      Effect.gen(function* () {
        for (const name of ["meta", "upserted", "m0", "m1", "part", "j"]) {
          const table = ReadModel.table("named", {
            columns: { k: Schema.String, [name]: Schema.Int, other: Schema.Int },
            primaryKey: ["k"]
          })
          const window = Window.global("totals", {
            key: { k: Schema.String },
            aggregate: { [name]: Agg.sum },
            publish: "totals.changed"
          })
          const projection = setting([table, window], ({ how, k, value }, out) => {
            if (how === "upsert") out.upsert(table, { k, [name]: value, other: 1 } as never)
            else if (how === "update") out.update(table, { k, [name]: value } as never)
            else out.delete(table, { k } as never)
            out.add(window, { k, [name]: 2 } as never)
          })
          yield* playGiven(projection, sets, [
            [set("a", "upsert", 1), set("b", "upsert", 2)],
            [set("a", "update", 3), set("b", "delete"), set("c", "upsert", 4)]
          ])
        }
      }).pipe(Effect.scoped),
    60_000
  )
  it.live("instants with fractions of milliseconds, and the order of the keys of jsonb", () => {
    const table = ReadModel.table("odd", {
      columns: {
        k: Schema.String,
        at: Column.timestamptz,
        counts: Schema.Record(Schema.String, Schema.Int),
        seen: Schema.String
      },
      primaryKey: ["k"]
    })
    const newest = Window.global("newest", {
      key: { k: Schema.String },
      aggregate: {
        at: Agg.fold({ input: Column.timestamptz, state: Column.timestamptz, initial: 0, add: (_, at) => at })
      },
      publish: "newest.changed"
    })
    const projection = setting([table, newest], ({ how, k, value }, out) => {
      out.modify(table, { k }, (row) => {
        const counts = { ...row?.counts, [how]: 1 }
        return { k, at: value as number, counts, seen: Object.keys(counts).join() }
      })
      out.add(newest, { k, at: value as number })
    })
    return Effect.scoped(
      playGiven(projection, sets, [
        [set("a", "zz", 1.5), set("b", "x", -1.5)],
        [set("a", "\u{1f600}", 1.9), set("b", "y", 1e-9)],
        [set("a", "b", 253_402_300_799_999.9)],
        [set("a", "ü", 7)],
        [set("a", "far", 9e15)],
        [set("a", "end", 7), set("b", "far", 9e15)]
      ])
    )
  })
  it.live("values that are not of their column's type", () => {
    const optional = Schema.optionalKey
    const table = ReadModel.table("odd", {
      columns: {
        k: Schema.String,
        text: optional(Schema.String),
        int: optional(Schema.Int),
        real: optional(Schema.Finite),
        flag: optional(Schema.Boolean),
        at: optional(Column.timestamptz)
      },
      primaryKey: ["k"]
    })
    const scalars = [
      NaN,
      Infinity,
      -0,
      1.5,
      1e21,
      1e-7,
      true,
      5n,

      2n ** 64n,
      new Date(0),
      ["a"],
      [],
      {}
    ]
    const texts =
      "7,7.0, 7 ,+5,.5,1.,1e3,1e400,1e-400,0x10,1_000,NaN,-Infinity,-9007199254740993,,tr,ye,YES,of,o,on,nul".split(",")
    const values: ReadonlyArray<unknown> = [...scalars, ...texts, Symbol("a"), () => 1, "\ufeff7"]
    const events = values.flatMap((_, i) =>
      ["text", "int", "real", "flag", "at"].map((column) => set(`${i} ${column}`, column, i))
    )
    const projection = setting([table], ({ how, k, value }, out) =>
      out.upsert(table, { k, [how]: values[value as number] } as never)
    )
    return Effect.scoped(playGiven(projection, sets, [events]))
  })
  it.live("totals that overflow: the event that exceeds them fails, in one batch and singly", () => {
    const totals = Window.global("totals", {
      key: { k: Schema.String },
      aggregate: { n: Agg.count, total: Agg.sum, low: Agg.min, high: Agg.max }
    })
    const most = Number.MAX_SAFE_INTEGER
    const contributions: ReadonlyArray<Readonly<Record<string, unknown>>> = [
      { n: most },
      { n: 1 },
      { n: -1 },
      { n: 2 ** 52 },
      { n: 0.5 },
      { n: 0.5 },
      { n: true, total: true },
      { total: 1.7e308 },
      { total: 1.7e308 },
      { total: -1.7e308 },
      { low: true },
      { low: -0, high: "5" },
      { low: -0, high: -0 },
      { low: 0, high: 0 },
      { n: -most },
      { n: -most },
      { n: -1 }
    ]
    const projection = setting([totals], ({ k, value }, out) =>
      out.add(totals, { k, n: 0, total: 1, low: 1, high: 1, ...contributions[value as number] } as never)
    )
    const events = contributions.map((_, i) => set("a", "add", i))
    return Effect.gen(function* () {
      const parked = (sql: Sql) =>
        Effect.map(
          query("read dead letters", () => sql`select position from millrace.dead_letters order by position`),
          (rows) => rows.map(({ position }) => position as number)
        )
      const together = yield* parked(yield* playGiven(projection, sets, [events]))
      const singly = yield* parked(
        yield* playGiven(
          projection,
          sets,
          events.map((event) => [event])
        )
      )
      assert.deepStrictEqual(together, singly)
      assert.deepStrictEqual(together, [1, 3, 4, 5, 6, 8, 10, 11, 15])
    }).pipe(Effect.scoped)
  })
  it.live("late events whose contribution has no JSON form, or whose window began before PostgreSQL's time", () => {
    const counted = Window.tumbling("counted", {
      size: "7 hours",
      key: { k: Schema.String },
      aggregate: {
        n: Agg.fold({ input: Schema.Unknown, state: Schema.Int, initial: 0, add: (n) => n + 1 })
      }
    })
    const circle: Array<unknown> = []
    circle.push(circle)
    const inputs: Readonly<Record<string, unknown>> = { big: 12n, circle, none: undefined, nul: "\u0000" }
    const projection = setting([counted], ({ how, k }, out) => out.add(counted, { k, n: inputs[how] }))
    return Effect.gen(function* () {
      const sql = yield* playGiven(projection, sets, [
        [
          set("a", "big"),
          ...Object.keys(inputs).map((how) => set("a", how, null, 0)),
          set("a", "big", null, -210_866_803_200_000),
          set("a", "big")
        ]
      ])
      const late = yield* query(
        "read late events",
        () => sql`select contribution from millrace.late_events order by position`
      )
      assert.deepStrictEqual(
        late.map(({ contribution }) => contribution as unknown),
        [{ n: "12" }, { n: null }, {}, { n: "\ufffd" }]
      )
      const dead = yield* query("read dead letters", () => sql`select position, message from millrace.dead_letters`)
      assert.match(dead[0]!["message"] as string, /timestamp out of range/)
    }).pipe(Effect.scoped)
  })
})

it.live("a defect halts its partition with the reason", () =>
  Effect.gen(function* () {
    const projection = setting([], () => {})
    const { append, handle, sql } = yield* memoryEngine(root, projection, [sets], {
      wrap: (log) =>
        Log.of({
          ...log,
          assign: (topic, group, use, options) =>
            log.assign(
              topic,
              group,
              (assignment) =>
                use({ ...assignment, open: () => Effect.succeed({ take: Effect.die(new TypeError("not expected")) }) }),
              options
            )
        })
    })
    yield* append(sets, [set("a", "upsert")])
    yield* handle
    assert.deepStrictEqual([...(yield* halts(sql))], [["setting sets/0", "setting_v1 sets/0: not expected"]])
  }).pipe(Effect.scoped)
)

it.live("calendar windows begin where date_trunc does, in every zone: weeks on Monday", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const sql = yield* connect(root)
      const known = new Set(
        (yield* query("zones", () => sql`select name from pg_timezone_names`)).map(({ name }) => name as string)
      )
      const random = randomOf(seed)
      const asked = Intl.supportedValuesOf("timeZone")
        .filter((zone) => known.has(zone))
        .flatMap((zone) =>
          calendarUnits.flatMap((unit) => {
            const time = random.int(0, Date.UTC(2025, 0, 1))
            return [{ zone, unit, time, start: calendarSpan(unit, zone, "monday", time).start }]
          })
        )
      assert.isAbove(asked.length, 1_000)
      const numbers = (of: (one: (typeof asked)[number]) => number) => arrayLiteral(asked.map(of))
      const found = yield* query(
        "truncate",
        () => sql<Array<{ start: number; weekday: number }>>`
          select (extract(epoch from date_trunc(a.unit, to_timestamp(a.time / 1000.0), a.zone)) * 1000)::float8 as start,
            extract(isodow from to_timestamp(a.start / 1000.0) at time zone a.zone)::int4 as weekday
          from unnest(${arrayLiteral(asked.map(({ zone }) => zone))}::text[], ${arrayLiteral(asked.map(({ unit }) => unit))}::text[],
            ${numbers(({ time }) => time)}::float8[], ${numbers(({ start }) => start)}::float8[]) with ordinality as a(zone, unit, time, start, n)
          order by a.n`
      )
      const other = asked.filter(({ start }, i) => found[i]!.start !== start)
      // midnights that come twice, and rules that differ between the versions of the zone database
      assert.isBelow(other.length, asked.length / 100, JSON.stringify(other.slice(0, 3)))
      for (const [i, { start, unit, zone }] of asked.entries()) {
        const { start: theirs, weekday } = found[i]!
        assert.isAtMost(Math.abs(theirs - start), 7_200_000, `${unit} of ${zone}, seed ${seed}`)
        if (unit === "week" && theirs === start) assert.strictEqual(weekday, 1, zone)
      }
    })
  )
)
it.live("a handler that interrupts the fiber of its partition halts that with the reason", () =>
  Effect.gen(function* () {
    const projection = setting([], ({ how }) => {
      if (how === "interrupt") Fiber.getCurrent()?.interruptUnsafe()
    })
    const { append, handle, sql } = yield* memoryEngine(root, projection, [sets])
    yield* append(sets, [set("a", "fine"), set("a", "interrupt")])
    yield* handle
    const reason = "setting_v1 sets/0: the code of an event interrupted the fiber of its partition"
    assert.deepStrictEqual([...(yield* halts(sql))], [["setting sets/0", reason]])
  }).pipe(Effect.scoped)
)
