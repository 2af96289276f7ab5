// Rows in PostgreSQL: every kind of column is read back as it was written, and an event with a value that cannot be stored is parked alone.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Agg, Column, Event, Projection, ReadModel, Topic, Window } from "../../../../src/index.ts"
import { query } from "../../../../src/postgres/client/client.ts"
import { halts } from "../../../support/engine.ts"
import { memoryEngine, parked } from "../../../support/memory-engine.ts"
import { server } from "../../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const source = Topic.records("did", {
  value: { key: Schema.String, what: Schema.String, at: Schema.Finite },
  key: "key",
  eventTime: "at"
})
const did = (what: string, key = "k", at = 0) => ({ key, what, at })

const all = ReadModel.table("user", {
  columns: {
    key: Schema.String,
    order: Schema.Int,
    real: Schema.Finite,
    bool: Schema.Boolean,
    at: Column.timestamptz,
    literal: Schema.Literals(["a", "b'\""]),
    brand: Schema.String.pipe(Schema.brand("Brand")),
    null: Schema.NullOr(Schema.String),
    nothing: Schema.optionalKey(Schema.Finite),
    either: Schema.optionalKey(Schema.NullOr(Column.timestamptz)),
    struct: Schema.Struct({
      list: Schema.Array(Schema.Int),
      when: Schema.Date,
      more: Schema.optionalKey(Schema.Boolean)
    }),
    array: Schema.Array(Schema.NullOr(Schema.String)),
    record: Schema.Record(Schema.String, Schema.Unknown),
    maybe: Schema.NullOr(Schema.Struct({ a: Schema.Int })),
    union: Schema.Union([Schema.String, Schema.Int]),
    number: Schema.Number,
    unknown: Schema.Unknown,
    date: Schema.Date,
    big: Schema.BigInt
  },
  // one of every type that a key can have
  primaryKey: ["key", "order", "real", "bool", "at"]
})
type All = (typeof all)["Row"]
const plain: All = {
  key: "k",
  order: 0,
  real: 0,
  bool: false,
  at: 0,
  literal: "a",
  brand: "b" as All["brand"],
  null: null,
  either: null, // what may be null or missing is null in SQL, and comes back so
  struct: { list: [], when: new Date(0) },
  array: [],
  record: {},
  maybe: null,
  union: 1,
  number: 1,
  unknown: 1,
  date: new Date(0),
  big: 0n
}
const nasty = [
  "'",
  '"',
  "\\",
  "\\\\\"'",
  "a\nb\r\n\t",
  "NULL",
  "{}",
  '{a,"b"}',
  " ",
  "",
  "ü",
  "日本",
  "😀🇳🇴",
  "\u007f\u0080\ufeff",
  "$1 %s"
]
const instants = {
  "before 1970": [-1, "1969-12-31 23:59:59.999+00"],
  "the year 1": [Date.parse("0001-01-01T00:00:00.001Z"), "0001-01-01 00:00:00.001+00"],
  "before Christ": [-62_198_755_200_000, "0002-01-01 00:00:00+00 BC"],
  "the year 9999": [253_402_300_799_999, "9999-12-31 23:59:59.999+00"],
  "the year 2262": [9_223_372_036_854, "2262-04-11 23:47:16.854+00"],
  "JavaScript's last": [8_640_000_000_000_000, "275760-09-13 00:00:00+00"]
} as const
const variants: ReadonlyArray<Partial<All>> = [
  {},
  ...nasty.map((text) => ({ null: text, union: text, array: [text, null], record: { [text]: text }, unknown: text })),
  ...nasty.map((text) => ({ brand: text as All["brand"], struct: { list: [1], when: new Date(5), more: true } })),
  ...Object.values(instants).map(([at]) => ({ at, either: at, date: new Date(at) })),
  ...[0.1, -1.5, 1e308, -1e308, 5e-324, 1.7976931348623157e308, 123_456_789.123_456_79, 1e21].map((real) => ({
    real,
    nothing: real
  })),
  ...[-1, 2 ** 53 - 1, -(2 ** 53) + 1].map((order) => ({ order, union: order, big: BigInt(order) ** 3n })),
  ...[Number.NaN, Infinity, -Infinity, 0.5].map((number) => ({ number })),
  { bool: true, literal: "b'\"", either: null, maybe: { a: 1 }, unknown: null },
  { unknown: { deep: [{ er: null }] }, record: { a: [1, "x", null], __proto__x: {} } }
]
const rows = variants.map((variant, i): All => Object.assign({}, plain, { order: 1_000 + i }, variant))

describe("every kind of column", () => {
  it.live("is read back as it was written, by `modify` and by SQL", () => {
    const found: Array<All | undefined> = []
    const projection = Projection.make({
      name: "order",
      version: 1,
      source,
      writes: [all],
      handle: ({ what }, out) => {
        for (const row of rows) {
          if (what === "write") out.upsert(all, row)
          else {
            out.modify(all, row, (stored) => {
              found.push(stored)
              return stored
            })
          }
        }
      }
    })
    return Effect.scoped(
      Effect.gen(function* () {
        const { append, handle, sql } = yield* memoryEngine(root, projection, [source])
        const read = query("read rows", () => sql`select "user"::text as text from "user" order by 1`)
        yield* append(source, [did("write")])
        yield* handle
        assert.deepStrictEqual(yield* parked(sql), [])
        const written = yield* read
        assert.strictEqual(written.length, rows.length)
        yield* append(source, [did("read")])
        yield* handle
        assert.deepStrictEqual(yield* parked(sql), [])
        assert.deepStrictEqual(found, rows)
        assert.deepStrictEqual(yield* read, written)
        const [types] = yield* query(
          "read types",
          () => sql`select json_object_agg(column_name, data_type || ' ' || is_nullable) as of
            from information_schema.columns where table_schema = 'order_v1' and table_name = 'user'`
        )
        assert.deepInclude(types!["of"], {
          key: "text NO",
          order: "bigint NO",
          real: "double precision NO",
          bool: "boolean NO",
          at: "timestamp with time zone NO",
          null: "text YES",
          nothing: "double precision YES",
          struct: "jsonb NO",
          maybe: "jsonb YES"
        })
        const shown = yield* query(
          "read instants",
          () => sql`select at::text as text, either = at as same from "user" where either is not null`
        )
        assert.sameDeepMembers(
          shown.map(({ same, text }) => ({ text, same })),
          Object.values(instants).map(([, text]) => ({ text, same: true }))
        )
        const [nulls] = yield* query(
          "count nulls",
          () => sql`select count(*) filter (where maybe is null) as maybe, count(*) filter (where nothing is null) as nothing,
            count(*) filter (where unknown = 'null'::jsonb) as unknown from "user"`
        )
        assert.deepStrictEqual({ ...nulls }, { maybe: rows.length - 1, nothing: rows.length - 8, unknown: 1 })
      })
    )
  })

  it.live("minus zero is zero, as in JSON", () => {
    const table = ReadModel.table("t", {
      columns: { key: Schema.String, real: Schema.Finite },
      primaryKey: ["key", "real"]
    })
    const projection = Projection.make({
      name: "p",
      version: 1,
      source,
      writes: [table],
      handle: ({ key }, out) => {
        out.upsert(table, { key, real: -0 })
        out.upsert(table, { key, real: 0 })
      }
    })
    return Effect.scoped(
      Effect.gen(function* () {
        const { append, handle, sql } = yield* memoryEngine(root, projection, [source])
        yield* append(source, [did("")])
        yield* handle
        assert.deepStrictEqual(yield* parked(sql), [])
        const [row] = yield* query("read", () => sql`select real from t`)
        assert.isTrue(Object.is(row!["real"], 0))
      })
    )
  })
})

const table = ReadModel.table("t", {
  columns: {
    key: Schema.String,
    n: Schema.Int,
    text: Schema.optionalKey(Schema.String),
    real: Schema.optionalKey(Schema.Finite)
  },
  primaryKey: ["key", "n"]
})
const sums = Window.tumbling("sums", {
  size: "1 hour",
  key: { key: Schema.String },
  aggregate: { n: Agg.count, sum: Agg.sum }
})
const names = Window.global("names", {
  key: { key: Schema.String },
  aggregate: {
    all: Agg.fold({
      input: Schema.String,
      state: Schema.Array(Schema.String),
      initial: [],
      add: (all, name) => {
        if (name === "bad") throw new Error("bad name")
        return [...all, name]
      }
    })
  }
})
const parts = ReadModel.table("parts", {
  columns: { key: Schema.String, part: Schema.String },
  primaryKey: ["key", "part"]
})
const timed = Topic.records("timed", { value: { key: Schema.String, at: Schema.Number }, key: "key", eventTime: "at" })
/** What a handler does after valid changes, by the event's `what`. */
const faulty = Projection.make({
  name: "p",
  version: 1,
  source,
  writes: [table, parts, sums, names, timed],
  handle: ({ key, what }, out) => {
    out.upsert(table, { key, n: 1, text: what })
    out.add(sums, { key, n: 1, sum: what === "huge" ? 1e308 : 1 })
    out.add(names, { key, all: what })
    out.publish(timed, { key, at: what === "no time" ? Number.NaN : 1 })
    if (what === "throws in modify") {
      out.modify(table, { key, n: 1 }, () => {
        throw new Error("no change")
      })
    }
    if (what === "NUL in a key") out.modify(parts, { key, part: "\0" }, (row) => row)
    if (what === "half a key") out.modify(table, { key, n: 1.5 }, (row) => row)
    if (what === "the row of another key") out.modify(table, { key: "other", n: 1 }, (row) => row)
    if (what === "too large a number") out.upsert(table, { key, n: 2 ** 53 })
    if (what === "infinite") out.upsert(table, { key, n: 3, real: Infinity })
    if (what === "infinite sum") out.add(sums, { key, n: 1, sum: -Infinity })
    if (what === "no number") out.add(sums, { key, n: 1, sum: undefined as never })
    if (what === "modified to text with NUL") out.modify(table, { key, n: 1 }, () => ({ key, n: 1, text: "\0" }))
  }
})

describe("an event whose changes cannot be stored", () => {
  const faults: ReadonlyArray<readonly [string, string, RegExp]> = [
    ["bad", "Error", /bad name/],
    ["throws in modify", "Error", /no change/],
    ["NUL in a key", "UnstorableValue", /parts\.part: the text has a NUL character/],
    ["half a key", "Unstorable", /1\.5 is not a whole number/],
    ["the row of another key", "KeyNotOwned", /holds the event's key "k"/],
    ["too large a number", "Unstorable", /9007199254740992 is not a whole number/],
    ["infinite", "Unstorable", /Infinity is not a finite number/],
    ["infinite sum", "UnstorableValue", /sums: sum is -Infinity; windows add up finite numbers only/],
    ["no number", "UnstorableValue", /sums: sum is undefined; windows add up finite numbers only/],
    ["modified to text with NUL", "UnstorableValue", /NUL character/],
    ["no time", "UnstorableValue", /event time is NaN/]
  ]
  it.live("is parked alone, and none of its changes are stored", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { append, handle, sql } = yield* memoryEngine(root, faulty, [source])
        const events = faults.flatMap(([what], i) => [did(`fine ${i}`), did(what)])
        yield* append(source, [...events, did("last")])
        yield* handle
        assert.deepStrictEqual([...(yield* halts(sql))], [])
        const deadLetters = yield* parked(sql)
        assert.deepStrictEqual(
          deadLetters.map(([position, error]) => [position, error]),
          faults.map(([, error], i) => [2 * i + 1, error])
        )
        for (const [i, [, , message]] of deadLetters.entries()) assert.match(message, faults[i]![2])
        const fine = faults.map((_, i) => `fine ${i}`)
        const read = yield* query(
          "read",
          () => sql`select (select json_agg(t) from t) as rows, (select json_agg(s) from (select n, sum from sums) s) as sums,
            (select "all" from names) as names, (select sum(messages)::int8 from millrace.outbox where target not like '%.dlq') as messages`
        )
        assert.deepStrictEqual(
          { ...read[0] },
          {
            rows: [{ key: "k", n: 1, text: "last", real: null }],
            sums: [{ n: fine.length + 1, sum: fine.length + 1 }],
            names: [...fine, "last"],
            messages: fine.length + 1
          }
        )
      })
    )
  )

  it.live("a sum that a double cannot hold is refused, in one batch or in several", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { append, handle, sql } = yield* memoryEngine(root, faulty, [source])
        yield* append(source, [did("huge"), did("huge")])
        yield* handle
        yield* append(source, [did("huge")])
        yield* handle
        const deadLetters = yield* parked(sql)
        assert.deepStrictEqual(
          deadLetters.map(([position, error]) => [position, error]),
          [
            [1, "Unstorable"],
            [2, "Unstorable"]
          ]
        )
        for (const [, , message] of deadLetters) assert.match(message, /out of range|Infinity is not a finite number/)
        const [row] = yield* query("read", () => sql`select n, sum from sums`)
        assert.deepStrictEqual({ ...row }, { n: 1, sum: 1e308 })
      })
    )
  )

  it.live("is parked if its time is not finite or beyond PostgreSQL's range", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const loose = Topic.records("did", {
          value: { key: Schema.String, what: Schema.String, at: Schema.Number },
          key: "key",
          eventTime: ({ at }) => (at === 1 ? Number.NaN : at)
        })
        const projection = Projection.make({
          name: "p",
          version: 1,
          source: loose,
          writes: [sums],
          handle: ({ key }, out) => out.add(sums, { key, n: 1, sum: 1 })
        })
        const { append, handle, sql } = yield* memoryEngine(root, projection, [source])
        yield* append(source, [did("", "k", 1), did("", "k", -1e16), did("", "k", 8.7e15), did("", "k", 0.5)])
        yield* handle
        assert.deepStrictEqual(
          (yield* parked(sql)).map(([position, , message]) => [position, message.slice(0, 22)]),
          [
            [0, "its event time NaN is "],
            [1, "its event time -100000"],
            [2, "its event time 8700000"]
          ]
        )
        const [progress] = yield* query("read", () => sql`select stream_time, events from millrace.progress`)
        assert.deepStrictEqual({ ...progress }, { stream_time: 0, events: 1 })
      })
    )
  )
})

describe("a published event of several versions", () => {
  it.live("has the version that it was written with", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const Made = Event.make("made", { key: Schema.String })
        const Paid = Event.make("paid", { key: Schema.String, n: Schema.Int }).upcast(
          { key: Schema.String, cents: Schema.Int },
          ({ key, n }) => ({ key, cents: n * 100 })
        )
        const derived = Topic.events("derived", { events: [Made, Paid], key: "key" })
        const projection = Projection.make({
          name: "p",
          version: 1,
          source,
          writes: [derived],
          handle: ({ key }, out) => {
            out.publish(derived, Made.make({ key }))
            out.publish(derived, Paid.make({ key, cents: 5 }))
          }
        })
        const { append, handle, sql } = yield* memoryEngine(root, projection, [source])
        yield* append(source, [did("")])
        yield* handle
        const [segment] = yield* query("read", () => sql`select meta, vals from millrace.outbox`)
        const versions = (JSON.parse(segment!["meta"]) as ReadonlyArray<ReadonlyArray<unknown>>).map((meta) => meta[5])
        assert.deepStrictEqual(versions, [undefined, 2])
        const values = (segment!["vals"] as string).split("\n")
        assert.deepStrictEqual(
          derived.decode(JSON.parse(values[1]!), versions[1] as number),
          Paid.make({ key: "k", cents: 5 })
        )
      })
    )
  )
})
