// The application of the aggregates' harness: ledgers whose events say what they were decided on, and an inline projection of them.
import { Schema } from "effect"
import { Agg, Aggregate, Application, Event, Projection, ReadModel, Window } from "../../../src/index.ts"
import { Bell, bells, Job } from "./bells.ts"
import { Desk } from "./desk.ts"
import { people, Person } from "./people.ts"

/** Names of a run, so that runs can share brokers. */
const run = process.env["FAULT_RUN"] ?? "fault"
const of = { ledger_id: Schema.String }

/** `total` and `count` are the state after the event, as `decide` computed it: an event that was decided on another state shows. */
export const Added = Event.make("ledger.added", {
  ...of,
  amount: Schema.Int,
  total: Schema.Int,
  count: Schema.Int
})
export class Overdrawn extends Schema.TaggedError<Overdrawn>()("Overdrawn", { ledger_id: Schema.String }) {}

export const Ledger = Aggregate.make({
  name: `${run}-ledger`,
  id: "ledger_id",
  partitions: 4,
  events: [Added],
  commands: {
    /** An event for each amount. */
    add: { ...of, amounts: Schema.Array(Schema.Int) },
    /** Rejected if the ledger has less. */
    take: { ...of, amount: Schema.Int }
  },
  state: Schema.Struct({ total: Schema.Int, count: Schema.Int }),
  initial: { total: 0, count: 0 },
  evolve: { "ledger.added": ({ count, total }, { amount }) => ({ total: total + amount, count: count + 1 }) },
  decide: {
    add: (state, { amounts, ledger_id }) => {
      let { count, total } = state
      return amounts.map((amount) => Added.make({ ledger_id, amount, total: (total += amount), count: ++count }))
    },
    take: ({ count, total }, { amount, ledger_id }) =>
      total < amount
        ? new Overdrawn({ ledger_id })
        : Added.make({ ledger_id, amount: -amount, total: total - amount, count: count + 1 })
  },
  snapshot: { every: 20 }
})

/** Whole rows, computed from stored ones. */
export const balances = ReadModel.table("balances", {
  columns: { ledger_id: Schema.String, balance: Schema.Int, count: Schema.Int },
  primaryKey: ["ledger_id"]
})
/** Deltas over all ledgers. */
export const sums = Window.global("sums", {
  key: { kind: Schema.String },
  aggregate: { events: Agg.count, moved: Agg.sum }
})

const inlineBalances = Projection.inline(
  Projection.make({
    name: "balances",
    version: 1,
    source: Ledger,
    writes: [balances, sums],
    handle: ({ amount, ledger_id }, out) => {
      out.modify(balances, { ledger_id }, (row) => ({
        ledger_id,
        balance: (row?.balance ?? 0) + amount,
        count: (row?.count ?? 0) + 1
      }))
      out.add(sums, { kind: "all", events: 1, moved: amount })
    }
  })
)

// without inline rows a statement may append some commands and refuse others
const inline = process.env["FAULT_INLINE"] === "no" ? [] : [inlineBalances]
// the topic of erasures has one name on a broker
const hasConcerns = process.env["FAULT_CONCERNS"] === "yes"

export default hasConcerns
  ? Application.make({
      name: run,
      aggregates: [Ledger, Desk, Job, Bell, Person],
      projections: [...inline, Projection.async(people)],
      policies: [bells]
    })
  : Application.make({ name: run, aggregates: [Ledger], projections: inline })
