// What happens in the shop, and what it publishes about its parcels.
import { Schema } from "effect"
import { Event, Topic } from "millrace"

const happened = { event_id: Schema.String, order_id: Schema.String, at: Schema.String }
export const OrderPlaced = Event.make("order.placed", { ...happened, customer: Schema.String, city: Schema.String })
export const ParcelSent = Event.make("parcel.sent", {
  ...happened,
  parcel_id: Schema.String,
  carrier: Schema.String,
  grams: Schema.Int
})
export const ParcelDelivered = Event.make("parcel.delivered", { ...happened, parcel_id: Schema.String })

/** All that happens to one order has its id as the key, so it is in one partition and is processed in order. */
export const shop = Topic.events("shop.v1", {
  events: [OrderPlaced, ParcelSent, ParcelDelivered],
  id: "event_id",
  key: "order_id",
  eventTime: ({ at }) => Date.parse(at),
  partitions: 4
})

/** A derived topic: a projection publishes to it. Its key is the carrier, because the next projection counts by carrier. */
export const shipments = Topic.records("shipments.v1", {
  value: { parcel_id: Schema.String, order_id: Schema.String, carrier: Schema.String, grams: Schema.Int },
  id: "parcel_id",
  key: "carrier"
})
