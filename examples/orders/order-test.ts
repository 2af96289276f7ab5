// The tests of the tutorial: given events, when a command, then events or a rejection. They need no server, and no test runner.
import { AggregateTest, ProjectionTest } from "millrace/testing"
import { unpaid } from "./millrace.config.ts"
import { Order, OrderPaid, OrderPlaced } from "./order.ts"

const placed = OrderPlaced.make({ order_id: "o-1", customer: "ann", cents: 1200 })
AggregateTest.make(Order)
  .given([placed])
  .when({ type: "pay", order_id: "o-1", method: "card" })
  .then([OrderPaid.make({ order_id: "o-1", method: "card" })])
AggregateTest.make(Order)
  .given([placed, OrderPaid.make({ order_id: "o-1", method: "card" })])
  .when({ type: "cancel", order_id: "o-1", reason: "changed my mind" })
  .thenRejected("OrderClosed", { was: "paid" })

const cancel = { aggregate: "order", id: "o-1", command: { type: "cancel" } }
ProjectionTest.make(unpaid)
  .when([placed])
  .idle("15 minutes")
  .then({ sent: [cancel] })
ProjectionTest.make(unpaid)
  .when([placed, OrderPaid.make({ order_id: "o-1", method: "card" })])
  .idle("1 hour")
  .then({ sent: [] })
