// Handlers, and functions of declarations, that throw or return odd things: their events are parked in the test kit, as in production.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { test } from "vitest"
import { Agg, Event, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"
import { ProjectionTest } from "../../../src/testing/testing.ts"

const Placed = Event.make("order.placed", { id: Schema.String, shop: Schema.String, at: Schema.Int })
const orders = Topic.events("orders.v1", { events: [Placed], id: "id", key: "shop", eventTime: "at" })
const newest = ReadModel.table("newest", {
  columns: { shop: Schema.String, id: Schema.String },
  primaryKey: ["shop"]
})
const noon = Date.UTC(2026, 0, 1, 12)
const order = (shop: string) => Placed.make({ id: `of ${shop}`, shop, at: noon })

test("whatever a handler throws, its event is parked with texts as error and message", () => {
  const thrown: ReadonlyArray<readonly [() => unknown, string, string]> = [
    [() => null, "Error", "null"],
    [() => Object.create(null), "Error", "it has no text"],
    [() => ({ _tag: Object.create(null) }), "Error", "it has no text"],
    [() => ({ _tag: "Silent", toJSON: () => undefined }), "Silent", "the error has no JSON form"],
    [() => Object.assign(new Error("x"), { message: 5 }), "Error", "5"],
    [() => Object.assign(new Error("x"), { message: undefined }), "Error", "undefined"],
    [() => Object.assign(new Error("x"), { name: null }), "Error", "x"],
    [
      () => Object.defineProperty(new Error("x"), "message", { get: () => Object.create(null) }),
      "Error",
      "it has no text"
    ]
  ]
  for (const [make, error, message] of thrown) {
    const throws = Projection.make({
      name: "throws",
      version: 1,
      source: orders,
      writes: [newest],
      handle: ({ id, shop }, out) => {
        if (shop === "oslo") throw make()
        out.upsert(newest, { shop, id })
      }
    })
    ProjectionTest.make(throws)
      .when([order("oslo"), order("rome")])
      .then({ newest: [{ shop: "rome" }], deadLetters: [{ error, message, position: 0 }] })
  }
})
test("an event without an id by which duplicates could be found is parked", () => {
  const by = (id: (shop: string) => unknown) =>
    Projection.make({
      name: "unique",
      version: 1,
      source: orders,
      writes: [newest],
      dedupe: { within: "1 hour", by: ({ shop }) => id(shop) as string },
      handle: ({ id, shop }, out) => out.upsert(newest, { shop, id })
    })
  const parks = (id: (shop: string) => unknown, message: string) =>
    ProjectionTest.make(by((shop) => (shop === "oslo" ? id(shop) : shop)))
      .when([order("oslo"), order("rome")])
      .then({ newest: [{ shop: "rome" }], deadLetters: [{ error: "Error", message, key: "oslo" }] })
  parks(() => {
    throw new Error("no id")
  }, "no id")
  parks(() => 5, "the id by which duplicates are found is 5, which is not a text")
})
test("a handler's Effect loses against a timeout as in production: if it takes longer, not if it waits for something else than the clock", async () => {
  const within5Seconds = (work: Effect.Effect<void>) => {
    const timed = Projection.make({
      name: "timed",
      version: 1,
      source: orders,
      writes: [newest],
      handle: ({ id, shop }, out) =>
        Effect.map(Effect.timeout(work, "5 seconds"), () => out.upsert(newest, { shop, id }))
    })
    return ProjectionTest.make(timed).when([order("oslo")])
  }
  const answer = Effect.promise(() => new Promise<void>((done) => setTimeout(done, 20)))
  const passes = { newest: [{ shop: "oslo" }] }
  within5Seconds(Effect.void).then(passes)
  for (const work of [answer, Effect.yieldNow, Effect.sleep("4 seconds")])
    await Effect.runPromise(within5Seconds(work).thenEffect(passes))
  for (const work of [Effect.never, Effect.sleep("6 seconds")]) {
    const fails = within5Seconds(work).thenEffect({ newest: [], deadLetters: [{ error: "TimeoutError" }] })
    await Effect.runPromise(fails)
  }
})
test("an event that modifies a row to null is parked", () => {
  const nothing = Projection.make({
    name: "nothing",
    version: 1,
    source: orders,
    writes: [newest],
    handle: ({ id, shop }, out) =>
      out.modify(newest, { shop }, () => (shop === "oslo" ? (null as never) : { shop, id }))
  })
  ProjectionTest.make(nothing)
    .when([order("oslo"), order("rome")])
    .then({
      newest: [{ shop: "rome" }],
      deadLetters: [{ message: "newest: `modify` returned null; return the row, or undefined to delete it" }]
    })
})
test("an event is parked that changes a window whose topic has no key for the row", () => {
  const keyed = Topic.records("keyed", {
    value: { shop: Schema.String, n: Schema.Int },
    key: ({ shop }) => {
      if (shop === "oslo") throw new TypeError("no key for oslo")
      return shop
    }
  })
  const totals = Window.tumbling("totals", {
    size: ["1 hour", "1 day"],
    key: { shop: Schema.String },
    aggregate: { n: Agg.count },
    publish: keyed
  })
  const published = Projection.make({
    name: "published",
    version: 1,
    source: orders,
    writes: [newest, totals, keyed],
    handle: ({ id, shop }, out) => {
      out.upsert(newest, { shop, id })
      out.add(totals, { shop, n: 1 })
    }
  })
  ProjectionTest.make(published)
    .when([order("oslo"), order("rome")])
    .then({
      newest: [{ shop: "rome" }],
      totals: [{ shop: "rome" }, { shop: "rome" }],
      published: { keyed: [{ shop: "rome", n: 1 }, { shop: "rome" }] },
      deadLetters: [{ error: "TypeError", message: "no key for oslo" }]
    })
})
test("an event is parked whose retry policy throws", () => {
  const retry = Schedule.recurs(3).pipe(
    Schedule.while(() => {
      throw new TypeError("no such field")
    })
  )
  const retried = Projection.make({
    name: "retried",
    version: 1,
    source: orders,
    failure: { retry },
    writes: [newest],
    handle: ({ id, shop }, out) => {
      out.upsert(newest, { shop, id })
      return shop === "oslo" ? Effect.fail(new Error("not now")) : Effect.void
    }
  })
  ProjectionTest.make(retried)
    .when([order("oslo"), order("rome")])
    .then({ newest: [{ shop: "rome" }], deadLetters: [{ error: "TypeError", message: "no such field", attempts: 1 }] })
})
test("records of several sources without event types are told apart by their fields", () => {
  const short = Topic.records("short", { value: { shop: Schema.String }, key: "shop" })
  const long = Topic.records("long", { value: { shop: Schema.String, id: Schema.String }, key: "shop" })
  const both = Projection.make({
    name: "both",
    version: 1,
    source: [short, long],
    writes: [newest],
    handle: (value, out, { meta }) =>
      out.upsert(newest, { shop: `${meta.topic} ${value.shop}`, id: "id" in value ? String(value.id) : "none" })
  })
  ProjectionTest.make(both)
    .when([{ shop: "oslo" }, Object.assign({ shop: "rome" }, { id: "x" })])
    .then({
      newest: [
        { shop: "short oslo", id: "none" },
        { shop: "long rome", id: "x" }
      ]
    })
})

const list = Schema.mutable(Schema.Array(Schema.String))
test("a modification that changes its row in place and fails leaves nothing behind", () => {
  const lists = ReadModel.table("lists", { columns: { shop: Schema.String, ids: list }, primaryKey: ["shop"] })
  const pushing = Projection.make({
    name: "pushing",
    version: 1,
    source: orders,
    writes: [lists],
    handle: ({ id, shop }, out) =>
      out.modify(lists, { shop }, (row = { shop, ids: [] }) => {
        row.ids.push(id)
        if (row.ids.length === 2) throw new Error("the second")
        return row
      })
  })
  ProjectionTest.make(pushing)
    .when([order("oslo"), order("oslo")])
    .then({ lists: [{ ids: ["of oslo"] }], deadLetters: [{ message: "the second" }] })
})
test("a fold that changes its state in place changes no other key's", () => {
  const folded = Window.global("folded", {
    key: { shop: Schema.String },
    aggregate: {
      ids: Agg.fold({
        input: Schema.String,
        state: list,
        initial: [],
        add: (ids, id) => {
          ids.push(id)
          return ids
        }
      })
    }
  })
  const pushing = Projection.make({
    name: "pushing",
    version: 1,
    source: orders,
    writes: [folded],
    handle: ({ id, shop }, out) => out.add(folded, { shop, ids: id })
  })
  ProjectionTest.make(pushing)
    .when([order("oslo"), order("rome")])
    .when([order("paris")])
    .then({ folded: [{ ids: ["of oslo"] }, { ids: ["of rome"] }, { ids: ["of paris"] }] })
})
