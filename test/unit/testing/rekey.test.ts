// Re-keyed events: what `Projection.rekey` publishes, the projections that read it, and declarations that are refused.
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import { Event, InvalidDeclaration, Personal, Projection, Topic } from "../../../src/index.ts"
import { definitionOf, functionTextsOf } from "../../../src/model/definition.ts"
import { ProjectionTest } from "../../../src/testing/testing.ts"
import { byOrder, delivery, event, Order, parcels, Payment } from "../../support/deliveries.ts"

const placed = event.placed({ order_id: "o1", cents: 900 })
const received = event.received({ payment: "p1", cents: 400, invoice: { order: "o1" } })
const scanned = event.scanned({ parcel: "x", order: "o1", at: 5_000 })

test("the events of all sources are published under their new keys, but those without a key and of other types", () => {
  ProjectionTest.make(byOrder.projection)
    .when([
      placed,
      received,
      event.received({ payment: "p2", cents: 1, invoice: { order: null } }),
      event.noted({ payment: "p1" }),
      scanned
    ])
    .then({ published: { by_order: [placed, received, scanned] } })
  expect([placed, received, scanned].map((one) => byOrder.topic.keyOf(one as never))).toEqual(["o1", "o1", "o1"])
  expect(byOrder.topic.types).toEqual(["order.placed", "payment.received", "parcel.scanned"])
})
test("a projection of them changes rows with `modify` and folds, in any order of the events", () => {
  const expected = {
    deliveries: [{ order_id: "o1", open_cents: 500, scans: 1 }],
    trails: [{ order_id: "o1", steps: ["order.placed", "parcel.scanned", "payment.received"] }]
  }
  for (const events of [
    [placed, received, scanned],
    [scanned, received, placed]
  ])
    ProjectionTest.make(delivery).when(events).then(expected)
})
test("one key for all events may be a field that all have, or a function", () => {
  const Left = Event.make("left", { id: Schema.String, seat: Schema.String })
  const seats = Topic.events("seats", { events: [Left], key: "id" })
  const base = { version: 1, source: seats } as const
  const field = Projection.rekey({ ...base, name: "by_field", key: "seat" })
  const computed = Projection.rekey({
    ...base,
    name: "by_function",
    key: ({ seat }) => (seat === "" ? undefined : seat)
  })
  const left = Left.make({ id: "a", seat: "s" })
  ProjectionTest.make(field.projection)
    .when([left])
    .then({ published: { by_field: [left] } })
  ProjectionTest.make(computed.projection)
    .when([left, Left.make({ id: "a", seat: "" })])
    .then({ published: { by_function: [left] } })
  expect([field, computed].map(({ topic }) => topic.keyOf(left))).toEqual(["s", "s"])
})
test("an event whose key is no text, or whose function throws, becomes a dead letter", () => {
  const Left = Event.make("left", { id: Schema.String, seat: Schema.String })
  const { projection } = Projection.rekey({
    name: "by_seat",
    version: 1,
    source: Topic.events("seats", { events: [Left], key: "id" }),
    key: ({ seat }) => {
      if (seat === "?") throw new Error("no such seat")
      return 7 as never
    }
  })
  ProjectionTest.make(projection)
    .when([Left.make({ id: "a", seat: "s" }), Left.make({ id: "a", seat: "?" })])
    .then({
      deadLetters: [
        { message: "the key of by_seat: it must be text without NUL and half surrogate pairs" },
        { message: "no such seat" }
      ]
    })
})
test("a definition has the fields of the keys, and the texts of its functions", () => {
  expect(definitionOf(byOrder.projection)["published topic by_order"]).toMatchObject({
    partitions: 4,
    key: ["order.placed: order_id", "parcel.scanned: order", "payment.received: (a function)"]
  })
  expect(functionTextsOf(byOrder.projection)).toMatchObject({
    "handler of payment.received": expect.stringContaining("invoice.order")
  })
})

describe("refused are", () => {
  const base = { name: "by", version: 1, source: [Order, Payment, parcels] } as const
  const Seen = Event.make("seen", { id: Schema.String, who: Personal(Schema.String) })
  const refused = (declare: () => unknown) => {
    try {
      declare()
    } catch (error) {
      expect(error).toBeInstanceOf(InvalidDeclaration)
      return (error as Error).message
    }
    return undefined
  }
  test.each<[string, () => unknown, string]>([
    [
      "event types that no source has",
      () => Projection.rekey({ ...base, key: { "order.gone": "order_id" } as never }),
      "projection by: `key`: `order.gone` is no event type of its sources; they have order.placed, payment.received, payment.noted, parcel.scanned"
    ],
    [
      "fields that an event does not have",
      () => Projection.rekey({ ...base, key: { "order.placed": "order" } as never }),
      "projection by: `key` of order.placed: event type order.placed has no field `order`; it has order_id, cents. Name one of them, or give a function"
    ],
    [
      "fields that not all events have",
      () => Projection.rekey({ ...base, key: "order" as never }),
      "projection by: `key`: event type order.placed has no field `order`; it has order_id, cents. Name one of them, or give a function"
    ],
    [
      "fields that are no texts",
      () => Projection.rekey({ ...base, key: { "order.placed": "cents" as never } }),
      "projection by: `key` of order.placed: the field `cents` of event type order.placed is never a text; name another one, or give a function"
    ],
    [
      "no keys",
      () => Projection.rekey({ ...base, key: {} }),
      "projection by: `key`: it names no event type, so nothing would be published; name at least one"
    ],
    [
      "what is no key",
      () => Projection.rekey({ ...base, key: 7 as never }),
      "projection by: `key`: it is 7; give the name of a field, a function, or one of them for each event type"
    ],
    [
      "sources whose values are no events",
      () =>
        Projection.rekey({
          ...base,
          source: Topic.records("plain", { value: { id: Schema.String }, key: "id" }) as never,
          key: "id" as never
        }),
      "projection by: the values of source plain are no events with types; use what `Topic.events` or `Aggregate.make` declares"
    ],
    [
      "two event types of one name",
      () => {
        const other = Topic.events("o", {
          events: [Event.make("order.placed", { order_id: Schema.String })],
          key: "order_id"
        })
        return Projection.rekey({
          ...base,
          source: [Order, other] as never,
          key: { "order.placed": "order_id" } as never
        })
      },
      "projection by: two sources have different event types order.placed; declare it once, or rename one of the two"
    ],
    [
      "event types with personal fields, which would be stored readable",
      () => Projection.rekey({ ...base, source: Topic.events("s", { events: [Seen], key: "id" }), key: "id" }),
      "projection by: `key`: event type seen has personal fields, which would be readable in topic by and stay after an erasure; " +
        "publish what you need without them, by a projection with `out.publish`"
    ],
    [
      "unknown options",
      () => Projection.rekey({ ...base, key: { "order.placed": "order_id" }, writes: [] } as never),
      "projection by: it has no option `writes`; known are name, version, source, key, partitions, dedupe, failure, maxAhead"
    ]
  ])("%s", (_, declare, message) => {
    expect(refused(declare)).toBe(message)
  })
})

// mistakes that must not compile: the compiler reports a directive above a line without one
const mistakes = () => {
  const base = { name: "by", version: 1, source: [Order, Payment] } as const
  // @ts-expect-error an event type that no source has
  Projection.rekey({ ...base, key: { "order.placed": "order_id", "parcel.scanned": "order" } })
  // @ts-expect-error a field that the event does not have
  Projection.rekey({ ...base, key: { "order.placed": "order" } })
  // @ts-expect-error a field that is no text
  Projection.rekey({ ...base, key: { "order.placed": "cents" } })
  // @ts-expect-error a field that not all events have
  Projection.rekey({ ...base, key: "order_id" })
  // @ts-expect-error a function whose result is no text
  Projection.rekey({ ...base, key: () => 7 })
  const reading = { name: "p", version: 1, source: byOrder.topic, writes: [] } as const
  // @ts-expect-error an event type that was left out is not in the topic
  Projection.make({ ...reading, handle: { "payment.noted": () => undefined } })
}
void mistakes
