// Whatever code of an event throws, and however its Effect ends: the event is parked, and the next one is processed.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as SchemaTransformation from "effect/SchemaTransformation"
import { describe, expect, test } from "vitest"
import { Agg, Event, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"
import { MemoryEngine } from "../../../src/runner/in-memory.ts"
import { mostAttempts } from "../../../src/runner/handler-caller.ts"
import { ProjectionTest } from "../../../src/testing/testing.ts"
import { recordOf } from "../../support/engine.ts"

const fields = { id: Schema.String, shop: Schema.String, at: Schema.Int, data: Schema.Unknown }
const Placed = Event.make("order.placed", fields)
const orders = Topic.events("orders.v1", { events: [Placed], id: "id", key: "shop", eventTime: "at" })
const newest = ReadModel.table("newest", {
  columns: { shop: Schema.String, data: Schema.optionalKey(Schema.Unknown) },
  primaryKey: ["shop"]
})
const order = (shop: string, data: unknown = null) =>
  Placed.make({ id: `of ${shop}`, shop, at: Date.UTC(2026, 0, 1, 12), data })
type Handled = (event: { readonly shop: string; readonly data: unknown }, out: never) => unknown
const projectionOf = (handle: Handled, more: object = {}) =>
  Projection.make({
    name: "p",
    version: 1,
    source: orders,
    writes: [newest],
    ...more,
    handle: ((
      event: { readonly shop: string; readonly data: unknown },
      out: { upsert: (...args: Array<unknown>) => void }
    ) => {
      if (event.shop === "oslo") return handle(event, out as never)
      out.upsert(newest, { shop: event.shop })
      return undefined
    }) as never
  })
/** The dead letter of the first event; the second one must pass. */
const parked = async (projection: Projection.Any, expected: object, data?: unknown) =>
  Effect.runPromise(
    ProjectionTest.make(projection as Projection<string, object, never>)
      .when([order("oslo", data), order("rome")])
      .thenEffect({ newest: [{ shop: "rome" }], deadLetters: [{ position: 0, ...expected }] } as never)
  )
const thrower = (value: unknown) => () => {
  throw value
}
const revoked = () => {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return proxy
}
const circular = Object.assign(new Error("a circle"), {})
Object.assign(circular, { cause: new Error("other", { cause: circular }) })
const odd: ReadonlyArray<readonly [what: string, value: unknown, expected: object]> = [
  ["undefined", undefined, { message: "undefined" }],
  ["a symbol", Symbol("s"), { message: "Symbol(s)" }],
  ["a function", Effect.void.pipe, {}],
  ["an object without a prototype", Object.create(null), { message: "it has no text" }],
  ["a revoked proxy", revoked(), { error: "Error", message: "it has no text" }],
  ["an object whose toString throws", { toString: thrower(new Error("no")) }, { message: "it has no text" }],
  [
    "an error whose message is an object",
    Object.assign(new Error("x"), { message: { a: 1 } }),
    { message: "[object Object]" }
  ],
  ["an error in a circle of causes", circular, { message: "a circle" }],
  [
    "an error with getters that throw",
    Object.defineProperty(new Error("x"), "name", { get: thrower(new Error("no")) }),
    { message: "it has no text" }
  ],
  ["a bigint", 5n, { message: "5" }],
  [
    "an UnknownError",
    new Cause.UnknownError(new TypeError("no network")),
    { error: "TypeError", message: "no network" }
  ]
]

describe("an event is parked", () => {
  for (const [what, value, expected] of odd)
    test(`whose handler throws, fails with or dies of ${what}`, async () => {
      await parked(projectionOf(thrower(value)), expected)
      await parked(
        projectionOf(() => Effect.fail(value)),
        expected
      )
      await parked(
        projectionOf(() => Effect.die(value)),
        expected
      )
      await parked(
        projectionOf(() => Effect.promise(() => Promise.reject(value as Error))),
        expected
      )
      await parked(
        projectionOf(() => Effect.sync(thrower(value))),
        expected
      )
    })
  test("whose error has a message of 10 MB, which is cut", async () => {
    const deadLetters: Array<{ readonly message: string }> = []
    const spec = ProjectionTest.make(
      projectionOf(thrower(new Error("x".repeat(1e7)))) as Projection<string, object, never>
    ).when([order("oslo")])
    try {
      spec.then({ deadLetters: [] } as never)
    } catch (error) {
      deadLetters.push(...(error as { actual: typeof deadLetters }).actual)
    }
    expect(deadLetters[0]!.message).toHaveLength(100_000 + "… (9900000 more characters)".length)
  })
  test("whose handler's promise is rejected, with the error of the rejection", async () => {
    const handler = () => Effect.tryPromise(() => Promise.reject(new TypeError("no network")))
    await parked(projectionOf(handler), { error: "TypeError", message: "no network" })
  })
  test("whose handler interrupts itself, by an Effect or by its fiber", async () => {
    const message = /interrupt/i
    for (const effect of [
      Effect.interrupt,
      Effect.failCause(Cause.interrupt()),
      Effect.withFiber<void>((fiber) => {
        fiber.interruptUnsafe()
        return Effect.yieldNow
      }),
      Effect.flatMap(Effect.withFiber(Effect.succeed), (fiber) => Fiber.interrupt(fiber))
    ]) {
      await expect(
        parked(
          projectionOf(() => effect),
          { position: 1 }
        )
      ).rejects.toThrow(message)
      await parked(
        projectionOf(() => effect),
        {}
      )
    }
  })
  test("whose `modify`, fold, lookup, id, upcaster or column throws anything", async () => {
    const value = revoked()
    const expected = { error: "Error", message: "it has no text" }
    const calling =
      (call: string, ...args: Array<unknown>) =>
      (_: unknown, out: Record<string, (...args: Array<unknown>) => void>) =>
        out[call]!(...args)
    const folded = Window.global("folded", {
      key: { shop: Schema.String },
      aggregate: {
        n: Agg.fold({ input: Schema.Int, state: Schema.Int, initial: 0, add: thrower(value) })
      }
    })
    const throwing = Schema.String.pipe(
      Schema.decodeTo(
        Schema.String,
        SchemaTransformation.transform<string, string>({ decode: (text) => text, encode: thrower(value) })
      )
    )
    const coded = ReadModel.table("coded", { columns: { shop: Schema.String, text: throwing }, primaryKey: ["shop"] })
    const names = Topic.compacted("names", { value: { shop: Schema.String }, key: "shop" })
    const by = ({ shop }: { shop: string }) => (shop === "oslo" ? thrower(value)() : shop)
    const writes = [newest, folded, coded]
    await parked(projectionOf(calling("modify", newest, { shop: "oslo" }, thrower(value)) as never), expected)
    await parked(projectionOf(calling("add", folded, { shop: "oslo", n: 1 }) as never, { writes }), expected)
    await parked(projectionOf(calling("upsert", newest, revoked()) as never), { error: "TypeError" })
    await parked(projectionOf(calling("upsert", coded, { shop: "oslo", text: "x" }) as never, { writes }), {})
    await parked(
      projectionOf(() => undefined, { enrich: { names: { topic: names, by } } }),
      expected
    )
    await parked(
      projectionOf(() => undefined, { dedupe: { within: "1 hour", by } }),
      expected
    )
    const getter = Object.defineProperty({ shop: "oslo" }, "data", { enumerable: true, get: thrower(value) })
    await parked(projectionOf(calling("upsert", newest, getter) as never), expected)
  })
  test("whose retry policy never ends, after 1,000 attempts", async () => {
    const failure = { retry: Schedule.forever }
    await parked(
      projectionOf(() => Effect.fail(new Error("never")), { failure }),
      { attempts: mostAttempts, message: "never" }
    )
  })
  test("that writes to what its projection does not list, or to what is of another kind", async () => {
    const other = ReadModel.table("other", { columns: { shop: Schema.String }, primaryKey: ["shop"] })
    const write = (method: "upsert" | "add", target: unknown, row: unknown = { shop: "oslo" }) =>
      projectionOf(((_: unknown, out: Record<string, (...args: Array<unknown>) => void>) =>
        out[method]!(target, row)) as never)
    const list = "which the projection does not write; list it in the projection's `writes`"
    await parked(write("upsert", other), { message: `out.upsert: it was given table other, ${list}` })
    await parked(write("upsert", undefined), { message: `out.upsert: it was given table undefined, ${list}` })
    await parked(write("add", newest), { message: "out.add: it was given a table, newest, and takes a window" })
    await parked(write("upsert", newest, null), { message: "newest: null is no row; give an object" })
    await parked(write("upsert", newest, 5), { message: "newest: number is no row; give an object" })
  })
  test("that has JSON 8,000 levels deep, or writes or publishes such", async () => {
    const nested = (levels: number): unknown => JSON.parse("[".repeat(levels) + "]".repeat(levels))
    const said = Topic.records("said", { value: { shop: Schema.String, data: Schema.Unknown }, key: "shop" })
    const folded = Window.global("folded", {
      key: { shop: Schema.String },
      aggregate: {
        n: Agg.fold({ input: Schema.Unknown, state: Schema.Unknown, initial: null, add: (_, data) => data })
      }
    })
    const writes = [newest, said, folded]
    const writing = (method: string, target: unknown, row: (data: unknown) => unknown) =>
      projectionOf(
        ((event: { data: unknown }, out: Record<string, (...args: Array<unknown>) => void>) =>
          out[method]!(target, row(event.data))) as never,
        { writes }
      )
    for (const levels of [1_001, 3_000, 8_000]) {
      const data = nested(levels)
      await parked(
        writing("upsert", newest, () => ({ shop: "oslo", data })),
        {}
      )
      await parked(
        writing("publish", said, () => ({ shop: "oslo", data })),
        {}
      )
      await parked(
        writing("add", folded, () => ({ shop: "oslo", n: data })),
        {}
      )
    }
    // from other producers, for neither the gateway nor the kit could write it
    const values = [8_000, 900].map((levels) =>
      JSON.stringify(order("oslo")).replace("null", "[".repeat(levels) + "]".repeat(levels))
    )
    const engine = new MemoryEngine(
      projectionOf(({ data }, out: { upsert: (...args: Array<unknown>) => void }) =>
        out.upsert(newest, { shop: "oslo", data })
      ) as Projection<string, object, never>
    )
    const records = values.map((value, position) =>
      Object.assign(recordOf(orders, order("oslo"), 1), { value, position, appendedAt: Date.now() })
    )
    await Effect.runPromise(engine.processBatch("orders.v1", 0, { records, next: 2 }))
    expect(engine.deadLetters()).toMatchObject([{ position: 0 }])
    expect(engine.rows()["newest"]).toHaveLength(1)
  })
})
