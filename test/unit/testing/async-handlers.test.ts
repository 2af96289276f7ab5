// Handlers whose work nothing would wait for: their events fail with the remedy, and what such work does later reaches no other event.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { expect, test } from "vitest"
import { Agg, Event, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"
import { ProjectionTest } from "../../../src/testing/testing.ts"

const Placed = Event.make("order.placed", { id: Schema.String, shop: Schema.String, at: Schema.Int })
const orders = Topic.events("orders.v1", { events: [Placed], id: "id", key: "shop", eventTime: "at" })
const newest = ReadModel.table("newest", {
  columns: { shop: Schema.String, id: Schema.String },
  primaryKey: ["shop"]
})
const order = (shop: string) => Placed.make({ id: `of ${shop}`, shop, at: Date.UTC(2026, 0, 1, 12) })
type Out = { readonly upsert: (table: typeof newest, row: { shop: string; id: string }) => void }
const handled = (handle: (event: { shop: string; id: string }, out: Out) => unknown) =>
  ProjectionTest.make(
    Projection.make({ name: "p", version: 1, source: orders, writes: [newest], handle: handle as never })
  )
const later = (ms = 0) => new Promise((resolve) => setTimeout(resolve, ms))
const lost =
  "and what that does would be lost; return nothing, or return an Effect: Effect.promise(() => …), or Effect.gen(function* () { … })"

test("an event fails whose handler returns a promise, a generator, a function or another object", async () => {
  const returned: ReadonlyArray<readonly [() => unknown, string]> = [
    [() => Promise.resolve(), "a promise"],
    [() => Promise.reject(new Error("nobody waits")), "a promise"],
    [() => ({ then: () => {} }), "a promise"],
    [() => (function* () {})(), "a generator"],
    [() => (async function* () {})(), "an async generator"],
    [() => () => Effect.void, "a function"],
    [() => [1, 2].map(async () => Promise.reject(new Error("nobody waits"))), "an array"],
    [() => [Effect.void], "an array"],
    [() => new Map(), "an object that is no Effect"]
  ]
  for (const [result, what] of returned)
    handled(({ id, shop }, out) => {
      out.upsert(newest, { shop, id })
      return shop === "oslo" ? result() : undefined
    })
      .when([order("oslo"), order("rome")])
      .then({
        newest: [{ shop: "rome" }],
        deadLetters: [{ error: "RefusedResult", message: `the handler returned ${what}, ${lost}`, position: 0 }]
      })
  // a rejection that nothing handles would fail this run
  await later()
})
test("an event passes whose handler returns nothing, an Effect, or by accident a number, a text or null", () => {
  for (const result of [undefined, null, 7, "x", true, 5n, Effect.void, Effect.succeed(5)])
    handled(({ id, shop }, out) => {
      out.upsert(newest, { shop, id })
      return result
    })
      .when([order("oslo")])
      .then({ newest: [{ shop: "oslo" }] })
})
test("what a refused promise writes later reaches no other event, and fails with a clear error", async () => {
  const errors: Array<unknown> = []
  const spec = handled(({ id, shop }, out) => {
    if (shop !== "oslo") return Effect.promise(() => later(5)).pipe(Effect.andThen(Effect.void))
    return (async () => {
      await later()
      try {
        out.upsert(newest, { shop: "late", id })
      } catch (error) {
        errors.push(error)
        throw error
      }
    })()
  }).when([order("oslo"), order("rome"), order("paris")])
  await Effect.runPromise(spec.thenEffect({ newest: [], deadLetters: [{ position: 0 }] }))
  const message =
    "out.upsert was called after the handler of projection p_v1, event orders.v1/0 position 0 had ended, so nothing was written; " +
    "return an Effect that waits for the work: Effect.promise(() => …). The function of modify and those of folds run later and cannot use `out`"
  expect(errors).toMatchObject([{ name: "HandlerEnded", message }])
})
test("an `out` that a timer, another event or a child fiber uses later throws", async () => {
  const errors: Array<string> = []
  const tried = (run: () => void) => {
    try {
      run()
    } catch (error) {
      errors.push((error as Error).name)
    }
  }
  let kept: Out | undefined
  const spec = handled(({ id, shop }, out) => {
    tried(() => kept?.upsert(newest, { shop: "kept", id }))
    kept = out
    setTimeout(() => tried(() => out.upsert(newest, { shop: "timer", id })))
    if (shop !== "rome") return undefined
    const child = Effect.sync(() => tried(() => out.upsert(newest, { shop: "child", id })))
    return Effect.forkDetach(
      Effect.andThen(
        Effect.promise(() => later()),
        child
      )
    ).pipe(Effect.andThen(Effect.sync(() => out.upsert(newest, { shop, id }))))
  }).when([order("oslo"), order("rome")])
  await Effect.runPromise(spec.thenEffect({ newest: [{ shop: "rome" }], deadLetters: [] }))
  await expect.poll(() => errors.length).toBe(4)
  expect(errors).toEqual(["HandlerEnded", "HandlerEnded", "HandlerEnded", "HandlerEnded"])
})
test("an event fails whose `modify`, fold, key or lookup returns a promise", () => {
  const late = () => Promise.reject(new Error("nobody waits")) as never
  const names = Topic.compacted("names", { value: { shop: Schema.String }, key: "shop" })
  const folded = Window.global("folded", {
    key: { shop: Schema.String },
    aggregate: { ids: Agg.fold({ input: Schema.String, state: Schema.Unknown, initial: null, add: late }) }
  })
  const told = Topic.records("told", { value: { shop: Schema.String }, key: late })
  // oxlint-disable-next-line typescript/no-explicit-any -- calls with all kinds of targets
  const parks = (message: RegExp, more: object, handle: (out: any, shop: string) => void) => {
    const projection = Projection.make({
      name: "p",
      version: 1,
      source: orders,
      writes: [newest, folded, told],
      ...more,
      handle: ({ id, shop }, out) => {
        if (shop === "oslo") handle(out, shop)
        else out.upsert(newest, { shop, id })
      }
    })
    expect(() =>
      ProjectionTest.make(projection)
        .when([order("oslo"), order("rome")])
        .then({ newest: [{ shop: "rome" }], deadLetters: [] })
    ).toThrow(message)
  }
  parks(/the function of `modify` of newest returned a promise/, {}, (out, shop) => out.modify(newest, { shop }, late))
  parks(/folded: the fold of ids returned a promise/, {}, (out, shop) => out.add(folded, { shop, ids: "x" }))
  parks(/topic told: `key` returned a promise/, {}, (out, shop) => out.publish(told, { shop }))
  const by = ({ shop }: { shop: string }) => (shop === "oslo" ? late() : shop)
  parks(
    /projection p: `by` of the lookup names returned a promise/,
    { enrich: { names: { topic: names, by } } },
    () => {}
  )
  parks(/projection p: `dedupe.by` returned a promise/, { dedupe: { within: "1 hour", by } }, () => {})
})
