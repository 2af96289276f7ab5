// An order: placed, paid, or cancelled. The events, the commands, and the two functions that decide and evolve.
import { Schema } from "effect"
import { Aggregate, Event, Personal } from "millrace"

// What happened
export const OrderPlaced = Event.make("order.placed", {
  order_id: Schema.String,
  customer: Schema.NonEmptyString,
  email: Schema.optionalKey(Personal(Schema.String)),
  cents: Schema.Int
})
export const OrderPaid = Event.make("order.paid", {
  order_id: Schema.String,
  method: Schema.Literals(["card", "cash"])
})
export const OrderCancelled = Event.make("order.cancelled", { order_id: Schema.String, reason: Schema.String })

// Why not
export class OrderExists extends Schema.TaggedError<OrderExists>()("OrderExists", { order_id: Schema.String }) {}
export class OrderUnknown extends Schema.TaggedError<OrderUnknown>()("OrderUnknown", { order_id: Schema.String }) {}
export class OrderClosed extends Schema.TaggedError<OrderClosed>()("OrderClosed", {
  order_id: Schema.String,
  was: Schema.Literals(["paid", "cancelled"])
}) {}

export const Order = Aggregate.make({
  name: "order",
  id: "order_id",
  subject: (event) => (event.type === "order.placed" ? event.customer : undefined),
  events: [OrderPlaced, OrderPaid, OrderCancelled],
  commands: {
    place: {
      order_id: Schema.String,
      customer: Schema.NonEmptyString,
      email: Schema.optionalKey(Schema.String),
      cents: Schema.Int.check(Schema.isGreaterThan(0))
    },
    pay: { order_id: Schema.String, method: Schema.Literals(["card", "cash"]) },
    cancel: { order_id: Schema.String, reason: Schema.String }
  },
  state: Schema.Struct({ status: Schema.Literals(["none", "placed", "paid", "cancelled"]), cents: Schema.Int }),
  initial: { status: "none", cents: 0 },
  evolve: {
    "order.placed": (_, { cents }) => ({ status: "placed", cents }),
    "order.paid": (state) => ({ ...state, status: "paid" }),
    "order.cancelled": (state) => ({ ...state, status: "cancelled" })
  },
  decide: {
    place: ({ status }, { type: _, ...order }) =>
      status === "none" ? OrderPlaced.make(order) : new OrderExists(order),
    pay: ({ status }, { method, order_id }) => {
      if (status === "none") return new OrderUnknown({ order_id })
      return status === "placed" ? OrderPaid.make({ order_id, method }) : new OrderClosed({ order_id, was: status })
    },
    cancel: ({ status }, { order_id, reason }) => {
      if (status === "none") return new OrderUnknown({ order_id })
      if (status === "cancelled") return [] // nothing to do
      return status === "placed"
        ? OrderCancelled.make({ order_id, reason })
        : new OrderClosed({ order_id, was: status })
    }
  }
})
