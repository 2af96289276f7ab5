// Functions of declarations that are asynchronous: refused where they are declared, or where they first return a promise.
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import { Agg, Aggregate, Event, Projection, ReadModel, Topic } from "../../../src/index.ts"
import { checkRule } from "../../../src/bridge/rule-checks.ts"
import { route } from "../../../src/bridge/route.ts"

const Placed = Event.make("order.placed", { id: Schema.String, shop: Schema.String, at: Schema.Int })
const orders = Topic.events("orders.v1", { events: [Placed], id: "id", key: "shop", eventTime: "at" })
const newest = ReadModel.table("newest", { columns: { shop: Schema.String }, primaryKey: ["shop"] })
const names = Topic.compacted("names", { value: { shop: Schema.String }, key: "shop" })
const waits = async () => "x"
// oxlint-disable-next-line require-yield -- only its kind matters
function* yields() {
  return "x"
}
async function* streams() {
  yield "x"
}
const project = (options: object) =>
  Projection.make({ name: "p", version: 1, source: orders, writes: [newest], handle: () => {}, ...options } as never)
const fold = (options: object) =>
  Agg.fold({ input: Schema.Int, state: Schema.Int, initial: 0, add: (a, b) => a + b, ...options })
const shop = (options: object) =>
  Aggregate.make({
    name: "shop",
    events: [Placed],
    commands: { open: {} },
    state: Schema.Null,
    initial: null,
    evolve: { "order.placed": () => null },
    decide: { open: () => [] },
    ...options
  } as never) as unknown as Aggregate.Any
const rule = { name: "r", from: "kafka:a", to: "pulsar:persistent://public/default/a" }
const handlerRemedy = "return an Effect: Effect.promise(() => …), or Effect.gen(function* () { … })"

describe("a function is refused where it is declared", () => {
  const refuses = (what: string, declare: (run: unknown) => unknown, remedy: RegExp | string) =>
    test(`that is async or a generator: ${what}`, () => {
      for (const [run, kind] of [
        [waits, "an async function"],
        [yields, "a generator function"],
        [streams, "an async generator function"]
      ] as const) {
        expect(() => declare(run)).toThrow(`${what} is ${kind}, and nothing would wait for its result; `)
        expect(() => declare(run)).toThrow(remedy)
      }
    })
  refuses("projection p: the handler", (handle) => project({ handle }), handlerRemedy)
  refuses(
    "projection p: the handler of order.placed",
    (handle) => project({ handle: { "order.placed": handle } }),
    handlerRemedy
  )
  const synchronous = /write a synchronous function/
  refuses(
    "projection p: `dedupe.by`",
    (by) => project({ dedupe: { within: "1 hour", by } }),
    "a projection's handler can wait, in the Effect that it returns"
  )
  refuses(
    "projection p: `by` of the lookup names",
    (by) => project({ enrich: { names: { topic: names, by } } }),
    synchronous
  )
  for (const option of ["key", "id", "eventTime", "tenant"])
    refuses(
      `topic t: \`${option}\``,
      (run) => Topic.events("t", { events: [Placed], key: "shop", [option]: run } as never),
      synchronous
    )
  refuses(
    "the upcaster of event type order.placed to version 2",
    (upcast) => Placed.upcast({ id: Schema.String }, upcast as never),
    synchronous
  )
  refuses("Agg.fold: `add`", (add) => fold({ add }), synchronous)
  refuses("Agg.fold: `merge`", (merge) => fold({ merge }), synchronous)
  refuses(
    "aggregate shop: `evolve` of order.placed",
    (evolve) => shop({ evolve: { "order.placed": evolve } }),
    synchronous
  )
  refuses("aggregate shop: `decide` of open", (decide) => shop({ decide: { open: decide } }), synchronous)
  refuses("rule r: `where`", (where) => checkRule({ ...rule, where } as never), synchronous)
  refuses("rule r: `key`", (key) => checkRule({ ...rule, key } as never), synchronous)
  test("that is none", () => {
    expect(() => project({ handle: undefined })).toThrow(
      "projection p: the handler is undefined; it must be a function"
    )
    expect(() => project({ handle: { "order.placed": "x" } })).toThrow(
      "the handler of order.placed is string; it must be"
    )
  })
})

describe("a function that looks synchronous and returns a promise is refused where it returns it", () => {
  const late = () => Promise.reject(new Error("nobody waits"))
  test("in topics, upcasters and aggregates", () => {
    const promising = Topic.events("t", { events: [Placed], key: late as never, id: late as never })
    const event = Placed.make({ id: "1", shop: "a", at: 1 })
    expect(() => promising.keyOf(event)).toThrow("topic t: `key` returned a promise, and nothing would wait for it")
    expect(() => promising.idOf!(event)).toThrow("topic t: `id` returned a promise")
    const newer = Placed.upcast({ id: Schema.String }, late as never)
    expect(() => newer.decode({ type: "order.placed", id: "1", shop: "a", at: 1 })).toThrow(
      "the upcaster of event type order.placed to version 2 returned a promise"
    )
    expect(() => shop({ decide: { open: late } }).decide(null, { type: "open" })).toThrow(
      "aggregate shop: `decide` of open returned a promise"
    )
  })
  test("an upcaster must return an object", () => {
    for (const [value, kind] of [
      [5, "number"],
      [null, "null"],
      [undefined, "undefined"],
      [[], "object"]
    ] as const) {
      const newer = Placed.upcast({ id: Schema.String }, (() => value) as never)
      expect(() => newer.decode({ type: "order.placed", id: "1", shop: "a", at: 1 })).toThrow(
        `the upcaster of event type order.placed to version 2 returned ${kind}; it must return an object with the new data`
      )
    }
  })
  test("a record whose filter or key does is a dead letter of the bridge, and one whose filter throws something strange", () => {
    const record = { key: "k", value: "v", headers: {}, eventTime: 1 }
    const reason = (options: object) => {
      const context = {
        rule: checkRule({ ...rule, ...options }),
        words: {},
        bridge: "b",
        sourceCluster: "kafka:a",
        targetCluster: "pulsar:b",
        stream: "s"
      }
      return route(context, record as never, "0")
    }
    const dead = (text: string) => ({ kind: "dead", reason: `the rule's code failed: ${text}` })
    expect(reason({ where: late })).toEqual(
      dead("`where` returned a promise, and nothing would wait for it; write a synchronous function")
    )
    expect(reason({ key: late })).toEqual(
      dead("`key` returned a promise, and nothing would wait for it; write a synchronous function")
    )
    expect(reason({ key: () => 5 })).toEqual(dead("`key` returned 5; it must return a text or null"))
    const throws = (value: unknown) => () => {
      throw value
    }
    expect(reason({ where: throws(Object.create(null)) })).toEqual(dead("it has no text"))
    expect(reason({ where: throws(Symbol("s")) })).toEqual(dead("Symbol(s)"))
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    expect(reason({ where: throws(proxy) })).toEqual(dead("it has no text"))
  })
})
