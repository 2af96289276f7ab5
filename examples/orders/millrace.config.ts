// The application of the tutorial: orders, a read model of them, and a policy that cancels what is not paid.
import { Schema } from "effect"
import { Application, Policy, Projection, ReadModel } from "millrace"
import { Order } from "./order.ts"

// What SQL sees: written in the statement that appends the events
export const orders = ReadModel.table("orders", {
  columns: {
    order_id: Schema.String,
    customer: Schema.String,
    cents: Schema.Int,
    status: Schema.Literals(["placed", "paid", "cancelled"])
  },
  primaryKey: ["order_id"]
})
export const orderList = Projection.make({
  name: "order_list",
  version: 1,
  source: Order,
  writes: [orders],
  handle: {
    "order.placed": ({ cents, customer, order_id }, out) =>
      out.upsert(orders, { order_id, customer, cents, status: "placed" }),
    "order.paid": ({ order_id }, out) => out.update(orders, { order_id, status: "paid" }),
    "order.cancelled": ({ order_id }, out) => out.update(orders, { order_id, status: "cancelled" })
  }
})

/** How long an order may wait for its payment, in milliseconds. */
const patience = Number(process.env["ORDER_PATIENCE_MS"] ?? 15 * 60_000)
export const unpaid = Policy.make({
  name: "unpaid",
  version: 1,
  source: Order,
  writes: [Order],
  handle: {
    "order.placed": ({ order_id }, out, { meta }) =>
      out.timer("pay", {
        at: meta.eventTime + patience,
        send: [Order, order_id, { type: "cancel", reason: "not paid" }]
      }),
    "order.paid": (_, out) => out.cancel("pay")
  }
})

export default Application.make({
  name: "orders",
  aggregates: [Order],
  projections: [Projection.inline(orderList)],
  policies: [unpaid]
})
