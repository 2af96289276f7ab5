// The tests of the tutorial: given events, when a command, then events or a rejection. They need no server.
import { test } from "node:test"
import { AggregateTest, ProjectionTest } from "millrace/testing"
import { unpaid } from "./millrace.config.ts"
import { Order, OrderPaid, OrderPlaced } from "./order.ts"

const placed = OrderPlaced.make({ order_id: "o-1", customer: "ann", cents: 1200 })
const paid = OrderPaid.make({ order_id: "o-1", method: "card" })

test("an order that is placed can be paid", () => {
  AggregateTest.make(Order)
    .given([placed])
    .when({ type: "pay", order_id: "o-1", method: "card" })
    .then([OrderPaid.make({ order_id: "o-1", method: "card" })])
})
test("an order that is paid cannot be cancelled", () => {
  AggregateTest.make(Order)
    .given([placed, paid])
    .when({ type: "cancel", order_id: "o-1", reason: "changed my mind" })
    .thenRejected("OrderClosed", { was: "paid" })
})
// decide and evolve never throw, and what is decided can be stored and read, whatever commands come
test("any commands", () => AggregateTest.check(Order))

const cancel = { aggregate: "order", id: "o-1", command: { type: "cancel" } }
test("an order that is not paid within 15 minutes is cancelled", () => {
  ProjectionTest.make(unpaid)
    .when([placed])
    .idle("15 minutes")
    .then({ sent: [cancel] })
})
test("an order that is paid is not cancelled", () => {
  ProjectionTest.make(unpaid).when([placed, paid]).idle("1 hour").then({ sent: [] })
})
