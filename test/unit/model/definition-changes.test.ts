// What a change of each part of a projection is called, and which spellings are no change.
// oxlint-disable unicorn/no-thenable -- `then` is a word of failure policies
import { runInThisContext } from "node:vm"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import { Agg, Event, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"
import { definitionOf, functionTextsOf, type Definition } from "../../../src/model/definition.ts"
import { definitionChanges, functionChanges, mergedDefinition } from "../../../src/model/definition-changes.ts"
import { functionText } from "../../../src/model/function-text.ts"
import type { Fields } from "../../../src/model/fields.ts"

const fields = { id: Schema.String, k: Schema.String, n: Schema.Finite, at: Schema.Int, who: Schema.String }
const Happened = Event.make("happened", fields)
const sourceOf = (more: object = {}, name = "src", events: ReadonlyArray<typeof Happened> = [Happened]) =>
  Topic.events(name, { events, id: "id", key: "k", eventTime: "at", tenant: "who", partitions: 3, ...more })
const rates = Topic.compacted("rates", { value: { k: Schema.String, w: Schema.Finite }, key: "k" })
const columns = { id: Schema.String, s: Schema.Finite }
const tableOf = (more: object = {}) => ReadModel.table("t", { columns, primaryKey: ["id"], ...more })
const state = Schema.Struct({ a: Schema.Finite, b: Schema.Finite })
const longest = (add: (s: { a: number; b: number }) => { a: number; b: number }, initial = { a: 0, b: 0 }) =>
  Agg.fold({ input: Schema.Finite, state, initial, add })
const add = (s: { a: number; b: number }) => s
const windowOf = (more: object = {}, name = "w") =>
  Window.tumbling(name, {
    size: ["1 minute", "1 hour"],
    grace: "1 minute",
    key: { k: Schema.String, who: Schema.String },
    aggregate: { n: Agg.count, total: Agg.sum },
    publish: "w.v1",
    ...more
  } as never)
const folded = (fold: ReturnType<typeof longest>) =>
  Window.global("f", { key: { k: Schema.String }, aggregate: { longest: fold } })
const outOf = (more: object = {}, value: Fields = { id: Schema.String, k: Schema.String, at: Schema.Int }) =>
  Topic.records("out.v1", { value, key: "k", id: "id", retention: "1 day", ...more } as never)
const make = (more: object = {}) =>
  Projection.make({
    name: "p",
    version: 1,
    source: sourceOf(),
    dedupe: { within: "1 hour" },
    enrich: { rate: { topic: rates, by: "who" } },
    failure: { then: "park", order: "key" },
    maxAhead: "1 minute",
    writes: [tableOf(), windowOf(), folded(longest(add)), outOf()],
    handle: { happened: () => {} },
    ...more
  } as never) as Projection.Any
// as it comes back from the database
const stored = (projection: Projection.Any) => JSON.parse(JSON.stringify(definitionOf(projection))) as Definition
const base = stored(make())
const changes = (more: object) => definitionChanges(base, stored(make(more))).map(({ effect, text }) => [effect, text])
const writes = (...targets: ReadonlyArray<{ readonly name: string }>) => ({
  writes: [tableOf(), windowOf(), folded(longest(add)), outOf()].map(
    (target) => targets.find((other) => other.name === (target as { name: string }).name) ?? target
  )
})

describe("a change that needs a new version is called by its part, what it was and what it is", () => {
  const by = (event: { readonly who: string }) => event.who
  test.each<[string, object]>([
    ["source other was added", { source: [sourceOf(), sourceOf({}, "other")], writes: [tableOf(), outOf()] }],
    ["source src was removed", { source: sourceOf({}, "other") }],
    ["source src: key was k and is id", { source: sourceOf({ key: "id" }) }],
    ["source src: eventTime was at and is n", { source: sourceOf({ eventTime: "n" }) }],
    ["source src: eventTime was at and is not declared", { source: sourceOf({ eventTime: undefined }) }],
    ["source src: tenant was who and is (a function)", { source: sourceOf({ tenant: by }) }],
    ["dedupe: within was 1 hour and is 90 minutes", { dedupe: { within: "90 minutes" } }],
    ["dedupe: within was 1 hour and is not declared", { dedupe: undefined }],
    ["dedupe: by was id of src and is who", { dedupe: { within: "1 hour", by: "who" } }],
    ["dedupe: by was id of src and is k of src", { source: sourceOf({ id: "k" }) }],
    ["lookup rate was removed", { enrich: {} }],
    ["lookup more was added", { enrich: { rate: { topic: rates, by: "who" }, more: rates } }],
    ["lookup rate: by was who and is k", { enrich: { rate: { topic: rates, by: "k" } } }],
    ["lookup rate: by was who and is not declared", { enrich: { rate: rates } }],
    [
      "lookup rate: topic was rates and is rates.v2",
      { enrich: { rate: { topic: Topic.compacted("rates.v2", { value: columns, key: "id" }), by: "who" } } }
    ],
    ["failure: then was park and is skip", { failure: { then: "skip" } }],
    ["failure: order was key and is not declared", { failure: {} }],
    ["failure: deadLetterTopic was not declared and is false", { failure: { order: "key", deadLetterTopic: false } }],
    ["maxAhead was 1 minute and is 1 day", { maxAhead: "1 day" }],
    [
      "table t: column s was double precision and is bigint",
      writes(tableOf({ columns: { ...columns, s: Schema.Int } }))
    ],
    [
      "table t: column s was double precision and is double precision or null",
      writes(tableOf({ columns: { ...columns, s: Schema.NullOr(Schema.Finite) } }))
    ],
    ["table t: column x (bigint) was added", writes(tableOf({ columns: { ...columns, x: Schema.Int } }))],
    ["table t: column s was removed", writes(tableOf({ columns: { id: Schema.String } }))],
    ["table t: primaryKey was id and is id, s", writes(tableOf({ primaryKey: ["id", "s"] }))],
    ["table t: shared was false and is true", writes(tableOf({ shared: true }))],
    ["table u was added", { writes: [...writes().writes, ReadModel.table("u", { columns, primaryKey: ["id"] })] }],
    ["window w: size was 1h, 1m and is 1m", writes(windowOf({ size: "1 minute" }) as never)],
    // the label is a value of rows
    ["window w: size was 1h, 1m and is 1h, 60s", writes(windowOf({ size: ["60 seconds", "1 hour"] }) as never)],
    ["window w: grace was 1 minute and is 5 minutes", writes(windowOf({ grace: "5 minutes" }) as never)],
    ["window w: grace was 1 minute and is 0 milliseconds", writes(windowOf({ grace: undefined }) as never)],
    ["window w: grace was 1 minute and is Infinity", writes(windowOf({ grace: "Infinity" }) as never)],
    ["window w: emit was onUpdate and is onWindowClose", writes(windowOf({ emit: "onWindowClose" }) as never)],
    ["window w: shared was false and is true", writes(windowOf({ shared: true }) as never)],
    ["window w: publish was w.v1 and is w.v2", writes(windowOf({ publish: "w.v2" }) as never)],
    ["window w: key who was removed", writes(windowOf({ key: { k: Schema.String } }) as never)],
    [
      "window w: aggregate n was count and is sum",
      writes(windowOf({ aggregate: { n: Agg.sum, total: Agg.sum } }) as never)
    ],
    ["window w: aggregate n was removed", writes(windowOf({ aggregate: { total: Agg.sum } }) as never)],
    [
      'window f: aggregate longest was fold to jsonb from {"a":0,"b":0} and is fold to jsonb from {"a":1,"b":0}',
      writes(folded(longest(add, { a: 1, b: 0 })))
    ],
    [
      "window w: kind was fixed and is global",
      writes(Window.global("w", { key: { k: Schema.String }, aggregate: { n: Agg.count } }))
    ],
    ["published topic out.v1 was removed", { writes: [tableOf(), windowOf(), folded(longest(add))] }],
    ["published topic out.v1: partitions was not declared and is 5", writes(outOf({ partitions: 5 }) as never)],
    ["published topic out.v1: key was k and is id", writes(outOf({ key: "id" }) as never)],
    ["published topic out.v1: id was id and is not declared", writes(outOf({ id: undefined }) as never)],
    ["published topic out.v1: eventTime was not declared and is at", writes(outOf({ eventTime: "at" }) as never)],
    [
      "published topic w.v1: key was k, who and is who, k",
      writes(windowOf({ key: { who: Schema.String, k: Schema.String } }) as never)
    ]
  ])("%s", (text, more) => {
    expect(changes(more)).toContainEqual(["rebuild", text])
  })
  test("hopping and calendar windows: every, time zone and the first day of weeks", () => {
    const options = { key: { k: Schema.String }, aggregate: { n: Agg.count } }
    const of = (window: object) => stored(make({ writes: [window] }))
    const texts = (was: object, is: object) => definitionChanges(of(was), of(is)).map(({ text }) => text)
    const hops = (every: string) => Window.hopping("w", { size: "1 hour", every: every as never, ...options })
    expect(texts(hops("10 minutes"), hops("600 seconds"))).toEqual([])
    expect(texts(hops("10 minutes"), hops("20 minutes"))).toEqual(["window w: every was 10 minutes and is 20 minutes"])
    const days = (more: object) => Window.calendar("w", { unit: "week", timeZone: "UTC", ...options, ...more })
    expect(texts(days({}), days({ weekStartsOn: "monday" }))).toEqual([])
    expect(texts(days({}), days({ weekStartsOn: "sunday", timeZone: "Europe/Berlin", unit: ["week", "day"] }))).toEqual(
      [
        "window w: size was week and is day, week",
        "window w: timeZone was UTC and is Europe/Berlin",
        "window w: weekStartsOn was monday and is sunday"
      ]
    )
  })
})

describe("no change is", () => {
  test.each<[string, object]>([
    ["the same declaration", {}],
    [
      "another spelling of durations",
      {
        dedupe: { within: "60 minutes" },
        maxAhead: "60 seconds",
        ...writes(windowOf({ grace: "60 seconds", size: ["1 minutes", "1 hours"] }) as never)
      }
    ],
    [
      "another order of columns, aggregates, sizes, lookups and targets",
      {
        writes: [
          folded(longest(add, { b: 0, a: 0 })),
          outOf(),
          windowOf({ size: ["1 hour", "1 minute"], aggregate: { total: Agg.sum, n: Agg.count } }),
          tableOf({ columns: { s: Schema.Finite, id: Schema.String } })
        ]
      }
    ],
    ["a default that is written out", { failure: { order: "key" } }],
    ["a retry, and how many failures halt", { failure: { order: "key", retry: Schedule.recurs(3), haltAfter: 7 } }],
    [
      "the retention, the fields and the settings of topics",
      {
        source: sourceOf({ retention: "1 day", kafka: {} }),
        ...writes(
          outOf(
            { retention: "2 days" },
            { id: Schema.String, k: Schema.String, at: Schema.Int, x: Schema.String }
          ) as never
        )
      }
    ],
    [
      "a new event type and another version of one",
      { source: sourceOf({}, "src", [Happened.upcast(fields, (v) => v), Event.make("other", fields) as never]) }
    ],
    ["an optional column in place of a nullable one", {}]
  ])("%s", (_, more) => {
    expect(changes(more)).toEqual([])
  })
  test("null or missing is the same column", () => {
    const of = (x: object) => stored(make(writes(tableOf({ columns: { ...columns, x } }))))
    expect(definitionChanges(of(Schema.NullOr(Schema.String)), of(Schema.optionalKey(Schema.String)))).toEqual([])
  })
  test("an option that an earlier release did not store", () => {
    const { by: _, ...older } = base["lookup rate"]!
    expect(definitionChanges({ ...base, "lookup rate": older }, base)).toEqual([])
    expect(definitionChanges(base, { ...base, "lookup rate": older })).toEqual([])
  })
})

describe("nullable columns", () => {
  const more = writes(tableOf({ columns: { ...columns, x: Schema.NullOr(Schema.String) } }))
  test("one that is new is added, and one that is no longer declared stays", () => {
    expect(changes(more)).toEqual([["addColumn", "table t: column x (text or null) was added"]])
    const wider = stored(make(more))
    expect(definitionChanges(wider, base)).toMatchObject([
      { effect: "keptColumn", text: "table t: column x was removed" }
    ])
    expect(mergedDefinition(wider, base)).toEqual(wider)
    expect(mergedDefinition(base, wider)).toEqual(wider)
  })
  test("a column that stayed is not declared with another type", () => {
    const other = stored(make(writes(tableOf({ columns: { ...columns, x: Schema.NullOr(Schema.Int) } }))))
    expect(definitionChanges(mergedDefinition(stored(make(more)), base), other)).toMatchObject([{ effect: "rebuild" }])
  })
})

describe("functions", () => {
  const texts = (more: object) => functionChanges(functionTextsOf(make()), functionTextsOf(make(more)))
  const upcast = Happened.upcast(fields, (v) => ({ ...v, n: v.n + 1 }))
  test.each<[string, object]>([
    ["the handler of happened changed", { handle: { happened: () => void 0 } }],
    ["the handler was added", { handle: () => {} }],
    ["the add of aggregate longest of window f changed", writes(folded(longest((s) => ({ ...s }))))],
    ["the by of dedupe was added", { dedupe: { within: "1 hour", by: () => "x" } }],
    ["the by of lookup rate was added", { enrich: { rate: { topic: rates, by: () => "x" } } }],
    ["the eventTime of source src was added", { source: sourceOf({ eventTime: () => 1 }) }],
    ["the id of source src was added", { source: sourceOf({ id: () => "1" }) }],
    ["the key of topic out.v1 was added", writes(outOf({ key: () => "1" }) as never)]
  ])("%s", (text, more) => {
    expect(texts(more)).toContain(text)
  })
  test("a new upcaster is no change, another one is", () => {
    expect(texts({ source: sourceOf({}, "src", [upcast]) })).toEqual([])
    const was = functionTextsOf(make({ source: sourceOf({}, "src", [upcast]) }))
    const is = functionTextsOf(make({ source: sourceOf({}, "src", [Happened.upcast(fields, (v) => v)]) }))
    expect(functionChanges(was, is)).toEqual(["the upcaster of happened to version 2 changed"])
  })
  test("white space, comments, quotes, semicolons and trailing commas are no part of a text", () => {
    const run = (text: string) => runInThisContext(`(${text})`) as () => unknown
    const plain = functionText(run('(e) => { out({ a: e.n, b: "x y" }); return `a ${e} // b` }'))
    const spaced = functionText(
      run("(e      ) => { // why\n  out({ /* \"a\" */ a: e.n, b: 'x y', }\n)\n  return `a ${e} // b`;\n}")
    )
    expect(spaced).toBe(plain)
    expect(functionText(run('(e) => { out({ a: e.n, b: "x  y" }); return `a ${e} // b` }'))).not.toBe(plain)
    expect(functionText(run("(e) => e.n > 1"))).not.toBe(functionText(run("(e) => e.n > 2")))
  })
})
