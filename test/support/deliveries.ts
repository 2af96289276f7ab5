// Two aggregates and a topic whose events have an order in common, re-keyed by it, and a projection that needs all events of an order in one partition.
import * as Schema from "effect/Schema"
import { Agg, Aggregate, Event, Projection, ReadModel, Topic, Window } from "../../src/index.ts"

const Placed = Event.make("order.placed", { order_id: Schema.String, cents: Schema.Int })
export const Order = Aggregate.make({
  name: "order",
  id: "order_id",
  partitions: 3,
  events: [Placed],
  commands: { place: { order_id: Schema.String, cents: Schema.Int } },
  state: Schema.Null,
  initial: null,
  evolve: { "order.placed": () => null },
  decide: { place: (_, { cents, order_id }) => Placed.make({ order_id, cents }) }
})
const Received = Event.make("payment.received", {
  payment: Schema.String,
  cents: Schema.Int,
  invoice: Schema.Struct({ order: Schema.NullOr(Schema.String) })
})
const Noted = Event.make("payment.noted", { payment: Schema.String })
/** Its streams are payments; some name an order. */
export const Payment = Aggregate.make({
  name: "payment",
  id: "payment",
  partitions: 2,
  events: [Received, Noted],
  commands: {
    receive: { payment: Schema.String, order: Schema.NullOr(Schema.String), cents: Schema.Int },
    note: { payment: Schema.String }
  },
  state: Schema.Null,
  initial: null,
  evolve: { "payment.received": () => null, "payment.noted": () => null },
  decide: {
    receive: (_, { cents, order, payment }) => Received.make({ payment, cents, invoice: { order } }),
    note: (_, { payment }) => Noted.make({ payment })
  }
})
const Scanned = Event.make("parcel.scanned", { parcel: Schema.String, order: Schema.String, at: Schema.Int })
export const parcels = Topic.events("parcels", { events: [Scanned], key: "parcel", eventTime: "at", partitions: 2 })
export const event = { placed: Placed.make, received: Received.make, noted: Noted.make, scanned: Scanned.make }

export const byOrder = Projection.rekey({
  name: "by_order",
  version: 1,
  source: [Order, Payment, parcels],
  key: {
    "order.placed": "order_id",
    "payment.received": ({ invoice }) => invoice.order ?? undefined,
    "parcel.scanned": "order"
  },
  partitions: 4
})
export const deliveries = ReadModel.table("deliveries", {
  columns: { order_id: Schema.String, open_cents: Schema.Int, scans: Schema.Int },
  primaryKey: ["order_id"]
})
/** Needs a key that one partition owns: it has a fold, and its rows are published. */
export const trails = Window.global("trails", {
  key: { order_id: Schema.String },
  aggregate: {
    steps: Agg.fold({
      input: Schema.String,
      state: Schema.Array(Schema.String),
      initial: [],
      add: (steps, step) => [...steps, step].toSorted()
    })
  },
  publish: "trails"
})
export const delivery = Projection.make({
  name: "delivery",
  version: 1,
  source: byOrder.topic,
  writes: [deliveries, trails],
  handle: (given, out, { meta }) => {
    const [cents, scans] =
      given.type === "parcel.scanned" ? [0, 1] : given.type === "order.placed" ? [given.cents, 0] : [-given.cents, 0]
    const order_id = meta.key
    out.modify(deliveries, { order_id }, (row) => ({
      order_id,
      open_cents: (row?.open_cents ?? 0) + cents,
      scans: (row?.scans ?? 0) + scans
    }))
    out.add(trails, { order_id, steps: given.type })
  }
})
