// An application whose policy sends two notices for each order, one at once and one by a timer. Each notice that is executed is counted.
import { Schema } from "effect"
import { Aggregate, Application, Event, Policy, Projection, ReadModel } from "../../src/index.ts"
import { Order } from "../../examples/orders/order.ts"

const Noticed = Event.make("noticed", { order_id: Schema.String })
const Notice = Aggregate.make({
  name: "notice",
  id: "order_id",
  events: [Noticed],
  commands: { notify: { order_id: Schema.String } },
  state: Schema.Null,
  initial: null,
  evolve: { noticed: () => null },
  decide: { notify: (_, { order_id }) => Noticed.make({ order_id }) }
})
const notices = ReadModel.table("notices", {
  columns: { order_id: Schema.String, number: Schema.Int },
  primaryKey: ["order_id"]
})
const counted = Projection.make({
  name: "counted",
  version: 1,
  source: Notice,
  writes: [notices],
  handle: ({ order_id }, out) =>
    out.modify(notices, { order_id }, (row) => ({ order_id, number: (row?.number ?? 0) + 1 }))
})
const notified = ReadModel.table("notified", { columns: { order_id: Schema.String }, primaryKey: ["order_id"] })
const notifying = Policy.make({
  name: "notifying",
  version: 1,
  source: Order,
  writes: [notified, Notice],
  handle: {
    "order.placed": ({ order_id }, out) => {
      out.upsert(notified, { order_id })
      out.send(Notice, order_id, { type: "notify" })
      out.timer("again", { after: "1 second", send: [Notice, order_id, { type: "notify" }] })
    }
  }
})
export default Application.make({
  name: "notices",
  aggregates: [Order, Notice],
  projections: [Projection.inline(counted)],
  policies: [notifying]
})
