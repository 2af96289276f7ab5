// Given, when, then: both projections, without a server.
import { test } from "node:test"
import { ProjectionTest } from "millrace/testing"
import { carriers, orderStatus } from "./millrace.config.ts"
import { OrderPlaced, ParcelDelivered, ParcelSent } from "./shop.ts"

const at = "2026-03-02T12:00:00Z"
const order_id = "o-1"
const placed = OrderPlaced.make({ event_id: "a", order_id, customer: "Astrid", city: "Bergen", at })
const sent = ParcelSent.make({ event_id: "b", order_id, parcel_id: "p-1", carrier: "fjordpost", grams: 1800, at })
const delivered = ParcelDelivered.make({ event_id: "c", order_id, parcel_id: "p-1", at })

test("a parcel that is sent counts for its order, and is published", () => {
  ProjectionTest.make(orderStatus)
    .when([placed, sent])
    .then({
      orders: [{ order_id, sent: 1, delivered: 0 }],
      published: { "shipments.v1": [{ parcel_id: "p-1", order_id, carrier: "fjordpost", grams: 1800 }] }
    })
})
test("an event that the shop sends twice counts once", () => {
  ProjectionTest.make(orderStatus)
    .when([placed, sent, sent, delivered])
    .then({ orders: [{ order_id, sent: 1, delivered: 1 }], published: { "shipments.v1": [{ parcel_id: "p-1" }] } })
})
test("a day of a carrier adds up its parcels", () => {
  ProjectionTest.make(carriers)
    .when([
      { parcel_id: "p-1", order_id, carrier: "fjordpost", grams: 1800 },
      { parcel_id: "p-2", order_id, carrier: "fjordpost", grams: 400 }
    ])
    .then({ carrier_days: [{ carrier: "fjordpost", parcels: 2, grams: 2200, heaviest: 1800 }] })
})
