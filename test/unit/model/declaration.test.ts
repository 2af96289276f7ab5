// Declarations that can never work are refused where they are made, with what to do. What the types refuse is tried without types.
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import {
  Agg,
  Aggregate,
  Application,
  Event,
  InvalidDeclaration,
  Projection,
  ReadModel,
  Subscription,
  Tenancy,
  Topic,
  Window
} from "../../../src/index.ts"

const Put = Event.make("put", { id: Schema.String, k: Schema.String, at: Schema.Int })
const Cut = Event.make("cut", { k: Schema.String, at: Schema.Int })
const source = Topic.events("puts", { events: [Put], id: "id", key: "k", eventTime: "at" })
const table = ReadModel.table("rows", { columns: { k: Schema.String }, primaryKey: ["k"] })
const lookup = Topic.compacted("names", { value: { k: Schema.String, name: Schema.String }, key: "k" })

// the declarations as callers without types see them
type Untyped = (...args: ReadonlyArray<unknown>) => unknown
const events = Topic.events as unknown as Untyped
const records = Topic.records as unknown as Untyped
const tableOf = ReadModel.table as unknown as Untyped
const tumbling = Window.tumbling as unknown as Untyped
const globalOf = Window.global as unknown as Untyped
const event = Event.make as unknown as Untyped
const application = Application.make as unknown as Untyped
const project = (options: object) =>
  (Projection.make as unknown as Untyped)({
    name: "p",
    version: 1,
    source,
    writes: [table],
    handle: () => {},
    ...options
  })
const windowOf = (options: object) =>
  tumbling("w", { size: "1 day", key: { k: Schema.String }, aggregate: { n: Agg.count }, ...options })
const refuses = (title: string, declare: () => unknown, message: RegExp) =>
  test(title, () => {
    expect(declare).toThrow(InvalidDeclaration)
    expect(declare).toThrow(message)
  })

describe("a published window", () => {
  const published = (fields: object, key: string) =>
    windowOf({ publish: records("out", { value: { ...fields }, key }) as never })
  refuses(
    "whose topic is keyed by a total",
    () => published({ k: Schema.String, n: Schema.String }, "n"),
    /the key of topic out is `n`, which is not in the key of the window; use a column of the window's key \(k\)/
  )
  refuses(
    "whose topic has a field that no row has",
    () => published({ k: Schema.String, user: Schema.String }, "k"),
    /topic out has the field `user`, which rows of the window do not have; they have window_size, window_start, k, n/
  )
  refuses(
    "to a topic of events",
    () => windowOf({ publish: source }),
    /publish`: it is "puts"; give the name of a topic, or one that `Topic.records` declares/
  )
  refuses("to what is no topic", () => windowOf({ publish: table }), /publish`: it is "rows"/)
  for (const [what, window] of [
    ["without a key", windowOf({ key: {}, publish: "out" })],
    [
      "with a key of numbers",
      windowOf({ key: { n: Schema.Int, on: Schema.Boolean }, aggregate: { c: Agg.count }, publish: "out" })
    ],
    [
      "with a fold and a key of numbers",
      globalOf("w", {
        key: { n: Schema.Int },
        aggregate: { f: Agg.fold({ input: Schema.String, state: Schema.String, initial: "", add: (a, b) => a + b }) }
      })
    ]
  ] as const)
    refuses(
      `${what}, which can hold no event's key`,
      () => project({ writes: [window] }),
      /a column of its key must hold the event's key.*Add a text column/
    )
  test("is accepted with an optional field more, the label as key, or a function", () => {
    expect(() => published({ k: Schema.String, more: Schema.optionalKey(Schema.String) }, "k")).not.toThrow()
    expect(() => published({ window_size: Schema.String }, "window_size")).not.toThrow()
    expect(() => windowOf({ publish: records("out", { value: { k: Schema.String }, key: () => "x" }) })).not.toThrow()
    expect(() => project({ writes: [windowOf({ publish: "out" })] })).not.toThrow()
    expect(() => project({ writes: [windowOf({ key: { m: Schema.Int } })] })).not.toThrow()
  })
})

describe("a topic", () => {
  const value = { k: Schema.String, n: Schema.Int, on: Schema.Boolean }
  for (const what of ["key", "id", "tenant", "eventTime"])
    refuses(
      `whose \`${what}\` names a field that values do not have`,
      () => records("t", { value, key: "k", [what]: "missing" }),
      new RegExp(`topic t: \`${what}\`: the value has no field \`missing\`; it has k, n, on`)
    )
  refuses(
    "of which one event type has no key",
    () => events("t", { events: [Put, Cut], key: "id" }),
    /event type cut has no field `id`; it has type, k, at/
  )
  refuses(
    "whose key is a number",
    () => records("t", { value, key: "n" }),
    /the field `n` of the value is never a text/
  )
  refuses(
    "whose time is a text",
    () => records("t", { value, key: "k", eventTime: "k" }),
    /the field `k` of the value is never a number/
  )
  refuses("without a key", () => records("t", { value }), /topic t: `key` is missing/)
  refuses("without values", () => records("t", { key: "k" }), /topic t: `value` is missing/)
  refuses("without events", () => events("t", { key: "k" }), /topic t: `events` is missing/)
  refuses(
    "with a misspelled option",
    () => records("t", { value, key: "k", partition: 3 }),
    /it has no option `partition`; did you mean `partitions`\?/
  )
  refuses(
    "with a field that is no schema",
    () => records("t", { value: { k: "text" }, key: "k" }),
    /`k` is "text", which is no schema/
  )
  test("may be keyed by a function, a union of texts, or the type", () => {
    expect(() => records("t", { value, key: () => "x" })).not.toThrow()
    expect(() => records("t", { value: { k: Schema.Literals(["a", "b"]) }, key: "k" })).not.toThrow()
    expect(() => events("t", { events: [Put, Cut], key: "type" })).not.toThrow()
  })
})

describe("an event type", () => {
  refuses(
    "with a field `type`",
    () => event("put", { type: Schema.String }),
    /a field is called `type`, which every event has/
  )
  refuses(
    "that is given a field `type` by a newer version",
    () => Put.upcast({ type: Schema.String } as never, () => ({}) as never),
    /a field is called `type`/
  )
  refuses("without a name", () => event("", { k: Schema.String }), /its name is ""/)
  refuses("without fields", () => event("put"), /the fields are undefined; give an object of schemas/)
})

describe("a table", () => {
  const columns = { k: Schema.String }
  refuses("without a primary key", () => tableOf("t", { columns }), /table t: `primaryKey` is missing/)
  refuses(
    "whose primary key is a text",
    () => tableOf("t", { columns, primaryKey: "k" }),
    /list its columns, as `primaryKey: \["id"\]`/
  )
  refuses("without columns", () => tableOf("t", { primaryKey: ["k"] }), /`columns` is missing/)
  refuses(
    "with a column that is no schema",
    () => tableOf("t", { columns: { k: String }, primaryKey: ["k"] }),
    /`k` is .*no schema/
  )
  for (const schema of [Schema.Never, Schema.Undefined, Schema.Symbol, Schema.Void])
    refuses(
      `with a column of ${schema.ast._tag}`,
      () => tableOf("t", { columns: { k: Schema.String, v: schema }, primaryKey: ["k"] }),
      /of which no value can be stored/
    )
  refuses(
    "with a misspelled option",
    () => tableOf("t", { columns, primaryKey: ["k"], share: true }),
    /no option `share`; did you mean `shared`/
  )
  refuses("without options", () => tableOf("t"), /the options are undefined; give an object/)
})

describe("a window", () => {
  refuses("without a key", () => windowOf({ key: undefined }), /window w: `key` is missing/)
  refuses("without aggregates", () => windowOf({ aggregate: undefined }), /window w: `aggregate` is missing/)
  refuses(
    "whose aggregate is none",
    () => windowOf({ aggregate: { n: "count" } }),
    /the aggregate `n` is "count"; use one of `Agg`/
  )
  refuses("with an option of another kind of window", () => windowOf({ gap: "1 minute" }), /no option `gap`/)
})

describe("a projection", () => {
  refuses("without a source", () => project({ source: undefined }), /projection p: `source` is missing/)
  refuses("with an empty list of sources", () => project({ source: [] }), /it has no source/)
  refuses(
    "with a table as its source",
    () => project({ source: table }),
    /the source "rows" is no topic and no aggregate/
  )
  refuses(
    "that writes nothing known",
    () => project({ writes: [table, undefined] }),
    /its element 1 is undefined, which is no table, window, topic or aggregate/
  )
  refuses("that writes to a name", () => project({ writes: ["rows"] }), /its element 0 is "rows"/)
  refuses(
    "whose writes are no list",
    () => project({ writes: table }),
    /list the tables, windows, topics and aggregates/
  )
  refuses(
    "with a misspelled option",
    () => project({ dedup: { within: "1 day" } }),
    /no option `dedup`; did you mean `dedupe`\?/
  )
  refuses(
    "with a misspelled policy",
    () => project({ failure: { haltafter: 3 } }),
    /`failure`: it has no option `haltafter`; did you mean `haltAfter`\?/
  )
  refuses(
    "that dedupes by what events do not have",
    () => project({ dedupe: { by: "uuid", within: "1 day" } }),
    /`dedupe.by`: event type put has no field `uuid`/
  )
  refuses(
    "that looks up by what events do not have",
    () => project({ enrich: { name: { topic: lookup, by: "user" } } }),
    /`enrich.name.by`: event type put has no field `user`/
  )
  refuses(
    "that looks up in a topic that is not compacted",
    () => project({ enrich: { name: source } }),
    /it is no compacted topic/
  )
  refuses(
    "with a handler for an event that its sources do not have",
    () => project({ handle: { put: () => {}, cut: () => {} } }),
    /a handler for `cut`, which is no event type of its sources; they have put/
  )
  test("whose haltAfter makes no sense is refused, too", () => {
    for (const haltAfter of [0, -1, 1.5, NaN, "3"])
      expect(() => project({ failure: { haltAfter } })).toThrow(/failure.haltAfter/)
    for (const haltAfter of [1, 5_000, Infinity]) expect(() => project({ failure: { haltAfter } })).not.toThrow()
  })
})

describe("an application, aggregate, subscription or tenancy", () => {
  const projections = [Projection.async(project({}) as Projection.Any)]
  refuses("without a name", () => application({ name: "", projections }), /its name is ""; give it one/)
  refuses("with a blank name", () => application({ name: " ", projections }), /its name is " "/)
  refuses(
    "with a misspelled option",
    () => application({ name: "a", projection: projections, projections }),
    /no option `projection`; did you mean `projections`/
  )
  refuses(
    "with a bare projection",
    () => application({ name: "a", projections: [project({})] }),
    /wrap it, as `Projection.async\(projection\)`/
  )
  refuses(
    "that knows no such option",
    () => (Aggregate.make as unknown as Untyped)({ name: "a", events: [Put], evolve: {}, decide: {}, command: {} }),
    /no option `command`; did you mean `commands`/
  )
  refuses(
    "of a subscription that knows no such option",
    () => (Subscription.make as unknown as Untyped)({ topic: source, name: "s", type: "shared", maxRedelivery: 3 }),
    /no option `maxRedelivery`/
  )
  refuses(
    "of a tenancy that knows no such option",
    () => (Tenancy.make as unknown as Untyped)({ tenants: [], topics: [], retain: {} }),
    /no option `retain`/
  )
})
