// Declarations that are refused before anything runs: names, keys, read models with two owners, and projections that cannot run.
// oxlint-disable unicorn/no-thenable -- `then` is a word of failure policies
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import {
  Agg,
  Application,
  Event,
  InvalidName,
  InvalidTopicName,
  Projection,
  type FailurePolicy,
  ReadModel,
  Topic,
  Window
} from "../../../src/index.ts"
import { topicsOf } from "../../../src/model/application.ts"
import { keyText } from "../../../src/model/fields.ts"
import type { Writable } from "../../../src/model/handler.ts"
import { definitionProblem } from "../../../src/model/unsupported.ts"
import { randomOf, seed } from "../../support/random.ts"

const value = { id: Schema.String, user: Schema.String }
const source = Topic.records("s", { value, key: "user", id: "id", partitions: 3 })
const other = Topic.records("o", { value, key: "user", partitions: 5 })
const tableOf = (name: string, shared?: boolean) =>
  ReadModel.table(name, {
    columns: { user: Schema.String },
    primaryKey: ["user"],
    ...(shared !== undefined && { shared })
  })
const windowOf = { key: { user: Schema.String }, aggregate: { n: Agg.count } }
type From = Parameters<typeof Projection.make>[0]["source"]
const projectionOf = (
  name: string,
  writes: ReadonlyArray<Writable>,
  { from = source, version = 1 }: { readonly from?: From; readonly version?: number } = {}
) => Projection.make({ name, version, source: from, writes, handle: () => {} })
const application = (...projections: ReadonlyArray<ReturnType<typeof projectionOf>>) =>
  Application.make({ name: "a", projections: projections.map((projection) => Projection.async(projection)) })

describe("names", () => {
  const names = ["order by", "Orders", "1st", "", "é", "a-b", "_a", "a.b", 'a"b', "x".repeat(56), "a\n", "__proto__"]
  test.each(names)("%j is not allowed", (name) => {
    expect(() => tableOf(name)).toThrow(InvalidName)
    expect(() => projectionOf(name, [])).toThrow(InvalidName)
    const columns = Object.fromEntries([
      ["id", Schema.String],
      [name, Schema.String]
    ])
    if (name !== "__proto__") {
      expect(() => ReadModel.table("t", { columns, primaryKey: ["id"] })).toThrow(InvalidName)
    }
  })
  test.each(["order", "user", "select", "a1_b", "x".repeat(55), "constructor"])("%s is allowed", (name) => {
    expect(tableOf(name).name).toBe(name)
    expect(projectionOf(name, []).name).toBe(name)
  })
  test("the error has the kind of thing, its name, and what is allowed", () => {
    expect(() => tableOf("order by")).toThrow(
      'table "order by": the name is not allowed; use at most 55 lower-case letters, digits and _, beginning with a letter'
    )
    expect(() => ReadModel.table("t", { columns: { "A b": Schema.String }, primaryKey: ["A b"] })).toThrow(
      'column of table t, "A b": the name is not allowed'
    )
  })
})

describe("keys", () => {
  test("the primary key of a table names columns of the table, each once", () => {
    const columns = { a: Schema.String }
    expect(() => ReadModel.table("t", { columns, primaryKey: ["b" as "a"] })).toThrow(
      "table t: the primary key names b, which is no column of the table"
    )
    expect(() => ReadModel.table("t", { columns, primaryKey: ["a", "a"] })).toThrow(
      "table t: the primary key names column a twice; name it once"
    )
    expect(() => ReadModel.table("t", { columns, primaryKey: [] as never })).toThrow(
      "table t: the primary key is empty; name at least one column"
    )
    expect(() => ReadModel.table("t", { columns, primaryKey: ["toString" as "a"] })).toThrow(
      /names toString, which is no column/
    )
  })
  test("different keys have different texts", () => {
    const two = (a: unknown, b: unknown) => keyText(["a", "b"], { a, b })
    expect(keyText(["a"], { a: "x" })).toBe("x")
    expect(keyText(["a"], { a: 5 })).toBe("5")
    expect(two("x", 1)).toBe('["x",1]')
    expect(two("x", "1")).not.toBe(two("x", 1))
    expect(two('a","b', "c")).not.toBe(two("a", 'b","c'))
    expect(two("a", "")).not.toBe(two("", "a"))
    expect(two(0, true)).not.toBe(two("0", "true"))
    expect(keyText(["b", "a"], { a: 1, b: 2 })).toBe("[2,1]")
  })
  test(`no two random keys share a text, seed ${seed}`, () => {
    const random = randomOf(seed)
    const parts = ["", '"', ",", "]", "[", "\\", "a", '","', "null", "1", 1, 0, -1, 0.5, true, false]
    const found = new Map<string, string>()
    for (let i = 0; i < 20_000; i++) {
      const text = () => Array.from({ length: random.int(0, 3) }, () => random.pick(parts)).join("")
      const row = {
        a: random.chance(0.3) ? random.pick(parts) : text(),
        b: random.chance(0.3) ? random.pick(parts) : text()
      }
      const is = `${typeof row.a} ${row.a.toString().length} ${row.a} ${typeof row.b} ${row.b}`
      const key = keyText(["a", "b"], row)
      expect(found.get(key) ?? is).toBe(is)
      found.set(key, is)
    }
  })
})

describe("a projection", () => {
  test.each([0, -1, 1.5, Number.NaN])("version %d is refused", (version) => {
    expect(() => projectionOf("p", [], { version })).toThrow(/version is .*; it must be a whole number, at least 1/)
  })
  test("two targets of the same name are refused", () => {
    expect(() => projectionOf("p", [tableOf("t"), Window.global("t", windowOf)])).toThrow(
      "projection p lists t twice in `writes`; remove one, or rename one of the two"
    )
    expect(() => projectionOf("p", [tableOf("t"), Topic.records("t", { value, key: "user" })])).toThrow(
      /lists t twice in `writes`/
    )
  })
  test("deduplication needs an id: the topic's, or one that `by` selects", () => {
    const make = (
      from: From,
      dedupe: { readonly within: "1 hour"; readonly by?: () => string } = { within: "1 hour" }
    ) => Projection.make({ name: "p", version: 1, source: from, writes: [], dedupe, handle: () => {} })
    expect(make(source).dedupe).toEqual({ by: undefined, withinMs: 3_600_000 })
    expect(() => make(other)).toThrow(
      "projection p deduplicates topic o, which declares no `id`; declare the topic's `id`, or `dedupe.by`"
    )
    expect(() => make([source, other])).toThrow(/deduplicates topic o/)
    expect(make(other, { within: "1 hour", by: () => "u" }).dedupe?.by?.({})).toBe("u")
  })
  test("an event type called like a property of Object has no handler unless one is given", () => {
    const made: Array<string> = []
    const events = [Event.make("made", value), Event.make("toString", value)]
    const topic = Topic.events("t", { events, key: "user" })
    const { handle } = Projection.make({
      name: "p",
      version: 1,
      source: topic,
      writes: [],
      handle: { made: ({ user }: { readonly user: string }) => void made.push(user) } as never
    })
    handle({ type: "made", id: "", user: "u" } as never, {} as never, {})
    expect(handle({ type: "toString", id: "", user: "v" } as never, {} as never, {})).toBeUndefined()
    expect(made).toEqual(["u"])
  })
})

describe("an application", () => {
  const both = "projections a and b write the same read model t"
  test("a read model that is not shared has one projection that writes it", () => {
    expect(() => application(projectionOf("a", [tableOf("t")]), projectionOf("b", [tableOf("t")]))).toThrow(
      `${both}; rename one of the two read models, or declare it with \`shared: true\``
    )
    expect(() =>
      application(projectionOf("a", [tableOf("t")]), projectionOf("b", [Window.global("t", windowOf)]))
    ).toThrow(both)
    const table = tableOf("t")
    expect(() => application(projectionOf("a", [table]), projectionOf("b", [table]))).toThrow(both)
  })
  test("a read model is shared if both projections use one declaration with `shared: true`", () => {
    const shared = tableOf("t", true)
    expect(() => application(projectionOf("a", [shared]), projectionOf("b", [tableOf("t")]))).toThrow(
      `${both}, but only one declares it with \`shared: true\`; declare it once and use it in both`
    )
    expect(() => application(projectionOf("a", [tableOf("t")]), projectionOf("b", [shared]))).toThrow(
      /only one declares it/
    )
    expect(() => application(projectionOf("a", [shared]), projectionOf("b", [tableOf("t", true)]))).toThrow(
      `${both} by two declarations; declare it once and use it in both`
    )
    expect(application(projectionOf("a", [shared]), projectionOf("b", [shared])).projections).toHaveLength(2)
  })
  test("two projections of the same name need different versions", () => {
    expect(() => application(projectionOf("a", [tableOf("t")]), projectionOf("a", [tableOf("u")]))).toThrow(
      "two projections are called a and have version 1; rename one of them, or increase its version"
    )
    const next = projectionOf("a", [tableOf("t")], { version: 2 })
    expect(application(projectionOf("a", [tableOf("t")]), next).projections).toHaveLength(2)
  })
})

describe("topics of an application", () => {
  const derived = Topic.records("d", { value, key: "user" })
  const namesOf = (...projections: ReadonlyArray<ReturnType<typeof projectionOf>>) =>
    Object.fromEntries(
      topicsOf(application(...projections))
        .filter(({ topic }) => !topic.name.endsWith(".dlq"))
        .map(({ partitions, topic }) => [topic.name, partitions])
    )

  test("a derived topic has as many partitions as its source, also through other projections and windows", () => {
    const window = Window.global("w", { ...windowOf, publish: "w.changed" })
    const third = Topic.records("third", { value, key: "user" })
    expect(
      namesOf(
        projectionOf("b", [third], { from: derived }),
        projectionOf("a", [derived, window]),
        projectionOf("c", [], { from: third })
      )
    ).toEqual({ s: 3, d: 3, third: 3, "w.changed": 3 })
  })
  test("a derived topic that declares a number of partitions has that number", () => {
    const own = Topic.records("d", { value, key: "user", partitions: 7 })
    expect(namesOf(projectionOf("a", [own]))).toEqual({ s: 3, d: 7 })
  })
  test("dead-letter topics are topics of the application", () => {
    const failing = (name: string, from: From, failure: FailurePolicy) =>
      Projection.make({ name, version: 1, source: from, writes: [], handle: () => {}, failure })
    const names = topicsOf(
      application(
        projectionOf("a", []),
        failing("b", other, {}),
        failing("c", source, { deadLetterTopic: "errors" }),
        failing("d", other, { deadLetterTopic: "errors" }),
        failing("e", source, { deadLetterTopic: false }),
        failing("f", source, { then: "skip" }),
        failing("g", source, { then: "stop" })
      )
    ).map(({ partitions, topic, writtenBy }) => `${topic.name} ${partitions} ${writtenBy.join(" ")}`.trim())
    expect(names.toSorted()).toEqual(["errors 1 c d", "o 5", "o.b.dlq 5 b", "s 3", "s.a.dlq 3 a"])
    expect(() => failing("h", source, { deadLetterTopic: "a topic" })).toThrow(InvalidTopicName)
  })
  test("a topic that would need two different numbers of partitions is refused", () => {
    expect(() => namesOf(projectionOf("a", [derived]), projectionOf("b", [derived], { from: other }))).toThrow(
      "topic d would need both 3 and 5 partitions; declare the topic with `partitions`"
    )
    const again = Topic.records("s", { value, key: "user", partitions: 4 })
    expect(() => namesOf(projectionOf("a", []), projectionOf("b", [], { from: again }))).toThrow(
      /topic s would need both 3 and 4 partitions/
    )
  })
  test("derived topics in a circle have one partition each, unless they declare a number", () => {
    const back = Topic.records("back", { value, key: "user" })
    expect(namesOf(projectionOf("a", [derived], { from: back }), projectionOf("b", [back], { from: derived }))).toEqual(
      {
        d: 1,
        back: 1
      }
    )
  })
})

describe("the runner cannot run", () => {
  const fold = Agg.fold({ input: Schema.Int, state: Schema.Int, initial: 0, add: (a, b) => a + b })
  const folded = { key: windowOf.key, aggregate: { f: fold } }
  test.each<readonly [string, ReturnType<typeof projectionOf>, RegExp]>([
    [
      "session windows",
      projectionOf("p", [Window.session("w", { ...windowOf, gap: "1 minute" })]),
      /^w is a session window, which is not supported yet; use a tumbling/
    ],
    [
      "rows on a window's close",
      projectionOf("p", [Window.tumbling("w", { ...windowOf, size: "1 hour", emit: "onWindowClose" })]),
      /^w emits "onWindowClose", .* use "onUpdate"/
    ],
    [
      "published windows of several sources",
      projectionOf("p", [Window.global("w", { ...windowOf, publish: "t" })], { from: [source, other] }),
      /^w is published and the projection has 2 sources, .* re-key/
    ],
    [
      "folds of several sources",
      projectionOf("p", [Window.global("w", folded)], { from: [source, other] }),
      /^w has a fold and the projection has 2 sources/
    ],
    [
      "published windows that are shared",
      projectionOf("p", [Window.global("w", { ...windowOf, publish: "t", shared: true })]),
      /^w is published and is shared/
    ],
    [
      "shared folds",
      projectionOf("p", [Window.global("w", { ...folded, shared: true })]),
      /^w has a fold and is shared/
    ],
    ["one source twice", projectionOf("p", [], { from: [source, source] }), /^it lists the source s twice/]
  ])("%s", (_, projection, reason) => {
    expect(definitionProblem(projection)).toMatch(reason)
  })
  test("all other projections can run", () => {
    const writes = [
      tableOf("t"),
      tableOf("u", true),
      Window.tumbling("a", { ...windowOf, size: "1 hour", publish: "x" }),
      Window.calendar("b", { ...windowOf, unit: "day", timeZone: "UTC" }),
      Window.global("c", folded),
      Window.global("d", { ...windowOf, shared: true })
    ]
    expect(definitionProblem(projectionOf("p", writes))).toBeUndefined()
    expect(
      definitionProblem(projectionOf("p", [tableOf("t"), Window.global("w", windowOf)], { from: [source, other] }))
    ).toBeUndefined()
  })
  test("nor can `Projection.live`: it refuses session windows, rows on a window's close, and keys that may be null", () => {
    const sessions = projectionOf("p", [Window.session("w", { ...windowOf, gap: "1 minute" })])
    expect(() => Projection.live(sessions as never, [])).toThrow(
      "projection p: w is a session window, which is not supported yet; use a tumbling, hopping or calendar window"
    )
    const closing = projectionOf("p", [Window.tumbling("w", { ...windowOf, size: "1 hour", emit: "onWindowClose" })])
    expect(() => Projection.live(closing as never, [])).toThrow(
      'projection p: w emits "onWindowClose", which is not supported yet; use "onUpdate"'
    )
    const nullable = ReadModel.table("t", { columns: { id: Schema.NullOr(Schema.String) }, primaryKey: ["id"] })
    expect(() => Projection.live(projectionOf("p", [nullable]) as never, [])).toThrow(
      "projection p: column id in the key of t may be null or missing; use a schema that requires a value"
    )
  })
})
