// An application for clients of processes that are killed: a row counts how often an event was processed, and each event is published once.
import { Schema } from "effect"
import { Application, Event, Projection, ReadModel, Topic } from "../../src/index.ts"

/** Begins the names of its topics, so that tests which share a cluster do not meet. */
const name = process.env["TEST_NAME"] ?? "serving"

const Placed = Event.make("placed", { id: Schema.String, customer: Schema.String, at: Schema.Int })
const orders = Topic.events(`${name}.orders`, {
  events: [Placed],
  id: "id",
  key: "customer",
  eventTime: "at",
  partitions: 4
})
const receipts = Topic.records(`${name}.receipts`, {
  value: { id: Schema.String, customer: Schema.String },
  key: "customer",
  partitions: 4
})
const seen = ReadModel.table("seen_orders", {
  columns: { customer: Schema.String, id: Schema.String, times: Schema.Int },
  primaryKey: ["customer", "id"]
})
const counting = Projection.make({
  name: "counting",
  version: 1,
  source: orders,
  // what a client sends again, because it got no answer, counts once
  dedupe: { within: "1 day" },
  writes: [seen, receipts],
  handle: ({ customer, id }, out) => {
    out.modify(seen, { customer, id }, (row) => ({ customer, id, times: (row?.times ?? 0) + 1 }))
    out.publish(receipts, { id, customer })
  }
})

export default Application.make({ name, projections: [Projection.async(counting)] })
