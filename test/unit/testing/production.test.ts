// The test kit runs the runner's own code: events that production parks, skips or stops at fail in the kit as well, and leave nothing behind.
// oxlint-disable unicorn/no-thenable -- `then` is a word of failure policies
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import {
  Agg,
  Aggregate,
  Column,
  Event,
  type FailurePolicy,
  Projection,
  ReadModel,
  Topic,
  Window
} from "../../../src/index.ts"
import { ProjectionTest } from "../../../src/testing/testing.ts"

const Placed = Event.make("order.placed", {
  id: Schema.String,
  shop: Schema.String,
  cents: Schema.Finite,
  at: Schema.Int
})
const Closed = Event.make("shop.closed", { shop: Schema.String, at: Schema.Int })
const orders = Topic.events("orders.v1", { events: [Placed], id: "id", key: "shop", eventTime: "at", partitions: 2 })
const shops = Topic.events("shops.v1", { events: [Closed], key: "shop", eventTime: "at" })
const newest = ReadModel.table("newest", {
  columns: { shop: Schema.String, id: Schema.String },
  primaryKey: ["shop"]
})
const counts = ReadModel.table("counts", { columns: { shop: Schema.String, n: Schema.Int }, primaryKey: ["shop"] })
const sales = Window.tumbling("sales", {
  size: "1 hour",
  grace: "10 minutes",
  key: { shop: Schema.String },
  aggregate: { cents: Agg.sum }
})
const noon = Date.UTC(2026, 0, 1, 12)
let ids = 0
const order = (shop: string, more: Partial<(typeof Placed)["Event"]> = {}) =>
  Placed.make({ id: `o${ids++}`, shop, cents: 5, at: noon, ...more })

/** A projection whose handler does what it is told, then counts the order in all read models. */
const projectionOf = (does: (event: (typeof Placed)["Event"]) => void, failure: FailurePolicy = {}) =>
  Projection.make({
    name: "sold",
    version: 1,
    source: orders,
    failure,
    writes: [newest, counts, sales],
    handle: (event, out) => {
      const { cents, id, shop } = event
      out.upsert(newest, { shop, id })
      out.add(sales, { shop, cents })
      out.modify(counts, { shop }, (row) => {
        does(event)
        return { shop, n: (row?.n ?? 0) + 1 }
      })
    }
  })
const throwing = (failure?: FailurePolicy) =>
  projectionOf(({ cents }) => {
    if (cents < 0) throw new RangeError(`${cents} cents`)
  }, failure)
const errorOf = (run: () => unknown): Error => {
  try {
    run()
  } catch (error) {
    return error as Error
  }
  throw new Error("it did not fail")
}

describe("an event that fails", () => {
  test("leaves nothing behind, and the others of its batch count", () => {
    ProjectionTest.make(throwing())
      .when([order("oslo"), order("oslo", { cents: -1 }), order("rome")])
      .then({
        newest: [{ shop: "oslo" }, { shop: "rome" }],
        counts: [{ n: 1 }, { n: 1 }],
        sales: [{ cents: 5 }, { cents: 5 }],
        deadLetters: [{ error: "RangeError", message: "-1 cents", position: 1, key: "oslo", attempts: 1 }]
      })
  })
  test("is shown with its error and position where no dead letter was expected; its own error is the cause", () => {
    const error = errorOf(() =>
      ProjectionTest.make(throwing())
        .when([order("oslo"), order("oslo", { cents: -1 })])
        .then({ newest: [], deadLetters: [] })
    )
    expect(error.message).toMatch(
      /^deadLetters\n {2}expected\n {4}nothing\n {2}was\n {4}\{"error":"RangeError","message":"-1 cents".*"position":1,/
    )
    expect(error.cause).toBeInstanceOf(RangeError)
  })
  test("under any policy throws its own error where dead letters are not asked for", () => {
    for (const then of ["park", "skip", "stop"] as const) {
      const run = () =>
        ProjectionTest.make(throwing({ then }))
          .when([order("oslo", { cents: -1 })])
          .then({})
      expect(errorOf(run)).toEqual(new RangeError("-1 cents"))
    }
  })
  test("is skipped where the policy says so, and stops where it says so", () => {
    const events = [order("oslo"), order("oslo", { cents: -1 }), order("oslo")]
    ProjectionTest.make(throwing({ then: "skip" }))
      .when(events)
      .then({ counts: [{ n: 2 }], deadLetters: [{ message: "-1 cents" }] })
    const stop = () =>
      ProjectionTest.make(throwing({ then: "stop" }))
        .when(events)
        .then({ deadLetters: [] })
    expect(errorOf(stop)).toEqual(new RangeError("-1 cents"))
  })
  test("parks later events of its key where keys keep their order, in later batches as well", () => {
    ProjectionTest.make(throwing({ order: "key" }))
      .when([order("oslo", { cents: -1 }), order("oslo"), order("rome")])
      .when([order("oslo"), order("rome")])
      .then({
        counts: [{ shop: "rome", n: 2 }],
        deadLetters: [
          { error: "RangeError", position: 0 },
          { error: "EarlierParked", position: 1, attempts: 0 },
          { error: "EarlierParked", position: 3, attempts: 0 }
        ]
      })
  })
})

describe("a handler's Effect", () => {
  const spec = (fails: number, retry: Schedule.Schedule<unknown, unknown>) => {
    let calls = 0
    const waiting = Projection.make({
      name: "waiting",
      version: 1,
      source: orders,
      failure: { retry },
      writes: [counts],
      handle: ({ shop }, out) =>
        Effect.gen(function* () {
          out.upsert(counts, { shop, n: ++calls })
          if (calls <= fails) return yield* Effect.fail(new Error(`call ${calls} at ${yield* Clock.currentTimeMillis}`))
        })
    })
    return ProjectionTest.make(waiting).when([order("oslo")])
  }
  test("is retried as the schedule says, in no time", () => {
    spec(3, Schedule.spaced("1 day").pipe(Schedule.upTo({ times: 3 }))).then({ counts: [{ n: 4 }] })
    spec(9, Schedule.recurs(3)).then({ counts: [], deadLetters: [{ attempts: 4, message: `call 4 at ${noon}` }] })
  })
  test("is retried by a schedule that depends on its error", () => {
    const unlessSecond = Schedule.recurs(9).pipe(
      Schedule.while(({ input }) => !(input instanceof Error && input.message.startsWith("call 2")))
    )
    spec(1, unlessSecond).then({ counts: [{ n: 2 }] })
    spec(9, unlessSecond).then({ counts: [], deadLetters: [{ attempts: 2, message: `call 2 at ${noon}` }] })
  })
  test("is retried under a schedule that ends after a time, which retries take and the handler's clock does not", () => {
    const minute = Schedule.spaced("10 seconds").pipe(Schedule.upTo({ duration: "1 minute" }))
    spec(99, minute).then({ deadLetters: [{ attempts: 8, message: `call 8 at ${noon}` }] })
  })
})

describe("an event is parked that", () => {
  const parks = (title: string, projection: Projection.Any, message: RegExp, event: object = order("oslo")) =>
    test(title, () => {
      const spec = ProjectionTest.make(projection as Projection<string, object, never>).when([event, order("rome")])
      const error = errorOf(() => spec.then({ deadLetters: [] } as never))
      expect(error.message).toMatch(message)
      expect((error as unknown as { actual: ReadonlyArray<object> }).actual).toMatchObject([
        { position: 0, key: "oslo" }
      ])
    })
  const writing = (does: (shop: string, out: { put: (row: object) => void; add: (row: object) => void }) => void) =>
    Projection.make({
      name: "odd",
      version: 1,
      source: orders,
      writes: [odd, odder],
      handle: ({ shop }, out) => {
        if (shop === "oslo")
          does(shop, { put: (row) => out.upsert(odd, row as never), add: (row) => out.add(odder, row as never) })
      }
    })
  const odd = ReadModel.table("odd", {
    columns: {
      shop: Schema.String,
      whole: Schema.optionalKey(Schema.Int),
      real: Schema.optionalKey(Schema.Finite),
      flag: Schema.optionalKey(Schema.Boolean),
      at: Schema.optionalKey(Column.timestamptz),
      json: Schema.optionalKey(Schema.Struct({ list: Schema.Array(Schema.String) })),
      must: Schema.Int
    },
    primaryKey: ["shop"]
  })
  const odder = Window.global("odder", {
    key: { shop: Schema.String },
    aggregate: { n: Agg.count, cents: Agg.sum }
  })
  const put = (row: object) => writing((shop, out) => out.put({ shop, must: 1, ...row }))
  const add = (row: object) => writing((shop, out) => out.add({ shop, n: 1, cents: 1, ...row }))

  parks("has no value for a column that needs one", put({ must: undefined }), /null value in column must.*23502/)
  parks("has null in its row's key", put({ shop: null }), /null value in column shop.*23502/)
  parks("has a fraction for a whole number", put({ whole: 1.5 }), /whole: 1.5 is not a whole number up to 2\^53/)
  parks("has a whole number beyond 2^53", put({ whole: 2 ** 60 }), /is not a whole number up to 2\^53/)
  parks("has NaN for a number", put({ real: NaN }), /real: NaN is not a finite number/)
  parks("has a text for a number", put({ real: "one" }), /invalid input for column real.*one/)
  parks("has a text for a boolean", put({ flag: "perhaps" }), /invalid input for column flag/)
  parks("has a time that PostgreSQL cannot store", put({ at: 9.3e15 }), /timestamp out of range/)
  parks("has JSON that does not fit its schema", put({ json: { list: 5 } }), /column json: Expected array/)
  parks("has NUL in JSON", put({ json: { list: ["\u0000"] } }), /22P05/)
  parks("has half a surrogate pair in JSON", put({ json: { list: ["\ude00"] } }), /22P02/)
  parks("has NUL in a text", put({ shop: "oslo\u0000" }), /odd\.shop: the text has a NUL character/)
  parks(
    "has half a surrogate pair in a text",
    put({ shop: "oslo \ud83d" }),
    /odd\.shop: the text has a NUL character or half/
  )
  parks(
    "has an object for a text",
    put({ shop: new Date(0) }),
    /column shop: a value of the type object cannot be stored/
  )
  parks("adds NaN to a sum", add({ cents: NaN }), /odder: cents is NaN; windows add up finite numbers only/)
  parks("counts a fraction", add({ n: 0.5 }), /n: 0.5 is not a whole number/)
  parks(
    "is dated too far ahead",
    throwing(),
    /more than 3600000 ms after it arrived/,
    order("oslo", { at: noon + 3.15e12 })
  )
  parks(
    "changes a row that another source may write",
    Projection.make({
      name: "two",
      version: 1,
      source: [orders, shops],
      writes: [counts],
      handle: ({ shop }, out) => {
        if (shop === "oslo") out.modify(counts, { shop }, (row) => row)
      }
    }),
    /counts: other projections or sources may write the row too/
  )
  test("makes a sum overflow, and the others of its batch count", () => {
    ProjectionTest.make(throwing())
      .when([order("oslo", { cents: 1.5e308 }), order("rome"), order("oslo", { cents: 1.5e308 }), order("oslo")])
      .then({
        sales: [
          { shop: "oslo", cents: 1.5e308 },
          { shop: "rome", cents: 5 }
        ],
        counts: [{ n: 2 }, { n: 1 }],
        deadLetters: [{ error: "Unstorable", position: 2 }]
      })
  })
})

describe("the clock", () => {
  const ahead = [
    order("oslo", { at: noon }),
    order("oslo", { at: noon + 30 * 60_000 }),
    order("oslo", { at: noon + 80 * 60_000 })
  ]
  test("decides what is dated too far ahead once it is set, and moves on with the events", () => {
    ProjectionTest.make(throwing())
      .at(noon)
      .when(ahead)
      .then({ counts: [{ n: 3 }] })
    ProjectionTest.make(throwing())
      .at(noon)
      .when([ahead[0]!, ahead[2]!])
      .then({ counts: [{ n: 1 }], deadLetters: [{ position: 1 }] })
    ProjectionTest.make(throwing())
      .at(noon)
      .idle("30 minutes")
      .when([ahead[2]!])
      .then({ counts: [{ n: 1 }] })
  })
  test("is the world's for arrivals if it is not set, and the error says how to set it", () => {
    const far = order("oslo", { at: Date.now() + 10 * 365 * 86_400_000 })
    const run = () => ProjectionTest.make(throwing()).when([far]).then({})
    expect(errorOf(run).message).toMatch(
      /raise the projection's maxAhead\. In a test, set the time at which events arrive with \.at/
    )
    ProjectionTest.make(throwing())
      .at(far.at)
      .when([far])
      .then({ counts: [{ n: 1 }] })
  })
})

describe("stream time in the kit", () => {
  const minutes = Window.tumbling("minutes", {
    size: "1 minute",
    grace: "5 minutes",
    key: { shop: Schema.String },
    aggregate: { n: Agg.count }
  })
  const counted = Projection.make({
    name: "counted",
    version: 1,
    source: orders,
    writes: [minutes],
    handle: ({ shop }, out) => out.add(minutes, { shop, n: true })
  })
  const at = (minute: number) => order("oslo", { at: noon + minute * 60_000 })
  test("moves at most to the time of arrival, once that is set", () => {
    const fast = ProjectionTest.make(counted)
      .at(noon)
      .when([at(59), at(0)])
    fast.then({ late: [], minutes: [{ window_start: noon + 59 * 60_000 }, { window_start: noon }] })
    fast
      .at(noon + 60_000)
      .when([at(1), at(59)])
      .at(noon + 120_000)
      .when([at(2)])
      .then({ late: [] })
  })
  test("moves to event times where events arrive now, as in history", () => {
    ProjectionTest.make(counted)
      .when([at(59), at(0)])
      .then({ late: [{ window: "minutes", window_start: noon }] })
    expect(Projection.live(counted, [at(59), at(0)]).minutes).toMatchObject([{ window_start: noon + 59 * 60_000 }])
  })
})

describe("values pass through their topics' schemas", () => {
  test("an event that does not fit its topic is refused, as an append would", () => {
    const run = () =>
      ProjectionTest.make(throwing())
        .when([{ ...order("oslo"), cents: "five" as never }])
        .then({ deadLetters: [] })
    expect(errorOf(run).message).toMatch(/cents/)
  })
  test("a handler sees declared fields only, and rows have the columns that the table declares", () => {
    let seen: object = {}
    const spec = ProjectionTest.make(projectionOf((event) => (seen = event)))
    const event = order("oslo")
    spec.when([{ ...event, secret: 1 } as never]).then({ counts: [{ n: 1 }] })
    expect(seen).toEqual(event)
  })
  test("a lookup's value that does not fit is a dead letter, or thrown", () => {
    const names = Topic.compacted("names", { value: { shop: Schema.String, name: Schema.String }, key: "shop" })
    const named = Projection.make({
      name: "named",
      version: 1,
      source: orders,
      enrich: { names },
      writes: [newest],
      handle: ({ shop }, out, { names }) => out.upsert(newest, { shop, id: names?.name ?? "?" })
    })
    const spec = ProjectionTest.make(named)
    spec
      .given(names, [{ shop: "oslo", name: "Oslo" }])
      .when([order("oslo")])
      .then({ newest: [{ id: "Oslo" }] })
    expect(() =>
      spec
        .given(names, [{ shop: "oslo", name: 5 as never }])
        .when([order("oslo")])
        .then({})
    ).toThrow(/name/)
  })
})

describe("several sources", () => {
  const both = Projection.make({
    name: "both",
    version: 1,
    source: [orders, shops],
    writes: [newest],
    handle: {
      "order.placed": ({ id, shop }, out) => out.upsert(newest, { shop, id }),
      "shop.closed": ({ shop }, out) => out.delete(newest, { shop })
    }
  })
  test("are processed in the order of the events, each with positions and a stream time of its own", () => {
    const closed = (shop: string) => Closed.make({ shop, at: noon })
    ProjectionTest.make(both)
      .when([order("oslo", { id: "a" }), closed("oslo"), order("oslo", { id: "b" }), order("rome"), closed("rome")])
      .then({ newest: [{ shop: "oslo", id: "b" }], deadLetters: [] })
  })
  test("an aggregate's events have no keys, and a projection of them owns its rows", () => {
    const shop = Aggregate.make({
      name: "shop",
      events: [Closed],
      commands: {},
      state: Schema.Null,
      initial: null,
      evolve: { "shop.closed": () => null },
      decide: {}
    })
    const closings = Projection.make({
      name: "closings",
      version: 1,
      source: shop,
      writes: [counts],
      handle: ({ shop }, out) => out.modify(counts, { shop }, (row) => ({ shop, n: (row?.n ?? 0) + 1 }))
    })
    const closed = Closed.make({ shop: "oslo", at: noon })
    expect(Projection.live(closings, [closed, closed]).counts).toEqual([{ shop: "oslo", n: 2 }])
    expect(() => Projection.live(closings, [{ ...closed, at: 0.5 }])).toThrow(/at/)
  })
})
