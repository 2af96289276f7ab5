// Two projections in a chain: the first reads the shop's events and publishes shipments, the second reads the shipments.
import { Schema } from "effect"
import { Agg, Application, Projection, ReadModel, Window } from "millrace"
import { shipments, shop } from "./shop.ts"

export const orders = ReadModel.table("orders", {
  columns: {
    order_id: Schema.String,
    customer: Schema.String,
    city: Schema.String,
    sent: Schema.Int,
    delivered: Schema.Int
  },
  primaryKey: ["order_id"]
})
export const orderStatus = Projection.make({
  name: "order_status",
  version: 1,
  source: shop,
  dedupe: { within: "7 days" }, // the shop may send an event twice: by its id the second one is ignored
  writes: [orders, shipments],
  handle: {
    "order.placed": ({ city, customer, order_id }, out) =>
      out.upsert(orders, { order_id, customer, city, sent: 0, delivered: 0 }),
    "parcel.sent": ({ carrier, grams, order_id, parcel_id }, out) => {
      out.modify(orders, { order_id }, (row) => row && { ...row, sent: row.sent + 1 })
      out.publish(shipments, { parcel_id, order_id, carrier, grams })
    },
    "parcel.delivered": ({ order_id }, out) =>
      out.modify(orders, { order_id }, (row) => row && { ...row, delivered: row.delivered + 1 })
  }
})

export const carrierDays = Window.calendar("carrier_days", {
  unit: "day",
  timeZone: "Europe/Oslo",
  grace: "1 day",
  key: { carrier: Schema.String },
  aggregate: { parcels: Agg.count, grams: Agg.sum, heaviest: Agg.max }
})
export const carriers = Projection.make({
  name: "carriers",
  version: 1,
  source: shipments,
  writes: [carrierDays],
  handle: ({ carrier, grams }, out) => out.add(carrierDays, { carrier, parcels: 1, grams, heaviest: grams })
})

export default Application.make({
  name: "shipments",
  projections: [Projection.async(orderStatus), Projection.async(carriers)]
})
