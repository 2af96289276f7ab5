// An application for malformed requests: its read models count how often each event was processed, so that an event that counts twice is seen.
import { Schema } from "effect"
import { Agg, Aggregate, Application, Column, Event, Projection, ReadModel, Topic, Window } from "../../src/index.ts"

const Placed = Event.make("placed", {
  id: Schema.String,
  customer: Schema.String,
  tenant: Schema.String,
  cents: Schema.Int,
  at: Schema.Int,
  note: Schema.optional(Schema.String)
})
const Cancelled = Event.make("cancelled", {
  id: Schema.String,
  customer: Schema.String,
  tenant: Schema.String,
  at: Schema.Int,
  weight: Schema.optional(Schema.Finite)
})
export const orders = Topic.events("orders", {
  events: [Placed, Cancelled],
  id: "id",
  key: "customer",
  eventTime: "at",
  tenant: "tenant",
  partitions: 4
})
/** Values of a lookup: the gateway takes them only with the name of their topic. */
export const prices = Topic.compacted("prices.v1", {
  value: { article: Schema.String, cents: Schema.Int },
  key: "article",
  partitions: 1
})
export const receipts = Topic.records("receipts.v1", {
  value: { id: Schema.String, customer: Schema.String },
  key: "customer",
  partitions: 2
})

/** A row for each order event. `times` is more than 1 if an event counted twice. */
export const seenOrders = ReadModel.table("seen_orders", {
  columns: {
    customer: Schema.String,
    id: Schema.String,
    tenant: Schema.String,
    partition: Schema.Int,
    at: Column.timestamptz,
    cents: Schema.optional(Schema.Int),
    note: Schema.optional(Schema.String),
    times: Schema.Int
  },
  primaryKey: ["customer", "id", "tenant", "partition"]
})
export const revenue = Window.tumbling("revenue", {
  size: ["1 hour"],
  key: { customer: Schema.String },
  aggregate: { orders: Agg.count, cents: Agg.sum }
})
export const counting = Projection.make({
  name: "counting",
  version: 1,
  source: orders,
  dedupe: { within: "36500 days" },
  enrich: { price: prices },
  writes: [seenOrders, revenue, receipts],
  handle: (event, out, { meta: { partition } }) => {
    const { at, customer, id, tenant } = event
    const cents = event.type === "placed" ? event.cents : undefined
    const note = event.type === "placed" ? event.note : undefined
    out.modify(seenOrders, { customer, id, tenant, partition }, (row) => ({
      customer,
      id,
      tenant,
      partition,
      at,
      ...(cents !== undefined && { cents }),
      ...(note !== undefined && { note }),
      times: (row?.times ?? 0) + 1
    }))
    out.add(revenue, { customer, orders: event.type === "placed", cents: cents ?? 0 })
    out.publish(receipts, { id, customer })
  }
})

const Deposited = Event.make("deposited", { account: Schema.String, cents: Schema.Int, note: Schema.String })
export class AccountClosed extends Schema.TaggedError<AccountClosed>()("AccountClosed", { account: Schema.String }) {}
const Closed = Event.make("closed", { account: Schema.String })
export const account = Aggregate.make({
  name: "account",
  id: "account",
  partitions: 2,
  events: [Deposited, Closed],
  commands: {
    deposit: { account: Schema.String, cents: Schema.Int, note: Schema.String },
    close: { account: Schema.String }
  },
  state: Schema.Struct({ cents: Schema.Finite, isClosed: Schema.Boolean }),
  initial: { cents: 0, isClosed: false },
  evolve: {
    deposited: (state, { cents }) => ({ ...state, cents: state.cents + cents }),
    closed: (state) => ({ ...state, isClosed: true })
  },
  decide: {
    deposit: ({ isClosed }, { type: _, ...deposit }) =>
      isClosed ? new AccountClosed({ account: deposit.account }) : Deposited.make(deposit),
    close: ({ isClosed }, { account: id }) => (isClosed ? [] : Closed.make({ account: id }))
  }
})
/** A row for each event of an account. */
export const seenAccounts = ReadModel.table("seen_accounts", {
  columns: { account: Schema.String, partition: Schema.Int, position: Schema.Int, times: Schema.Int },
  primaryKey: ["account", "partition", "position"]
})
export const ledger = Projection.make({
  name: "ledger",
  version: 1,
  source: account,
  writes: [seenAccounts],
  handle: ({ account: id }, out, { meta: { partition, position } }) =>
    out.modify(seenAccounts, { account: id, partition, position }, (row) => ({
      account: id,
      partition,
      position,
      times: (row?.times ?? 0) + 1
    }))
})

export const dearOrders = ReadModel.view("dear_orders", {
  query: "select customer, id, tenant, cents from seen_orders where cents > 100"
})

export default Application.make({
  name: "fuzz",
  aggregates: [account],
  projections: [Projection.async(counting), Projection.async(ledger)],
  views: [dearOrders]
})
