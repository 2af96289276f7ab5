// An aggregate for tests of lifecycles: accounts that are opened and moved, with a projection of each kind of change.
import { Schema } from "effect"
import { Agg, Aggregate, Event, Projection, ReadModel, Window } from "../../src/index.ts"

const of = { account_id: Schema.String, at: Schema.Int }
export const Opened = Event.make("account.opened", { ...of, owner: Schema.String })
export const Moved = Event.make("account.moved", { ...of, amount: Schema.Int })
export class NotOpen extends Schema.TaggedError<NotOpen>()("NotOpen", { account_id: Schema.String }) {}

export const Account = Aggregate.make({
  name: "account",
  id: "account_id",
  eventTime: "at",
  partitions: 4,
  events: [Opened, Moved],
  commands: { open: { ...of, owner: Schema.String }, move: { ...of, amount: Schema.Int } },
  state: Schema.Struct({ balance: Schema.Int, open: Schema.Boolean }),
  initial: { balance: 0, open: false },
  tags: { owner: (event) => (event.type === "account.opened" ? event.owner : undefined) },
  evolve: {
    "account.opened": (state) => ({ ...state, open: true }),
    "account.moved": (state, { amount }) => ({ ...state, balance: state.balance + amount })
  },
  decide: {
    open: (_, { account_id, at, owner }) => Opened.make({ account_id, at, owner }),
    move: (state, { account_id, amount, at }) =>
      state.open ? Moved.make({ account_id, at, amount }) : new NotOpen({ account_id })
  }
})

/** Whole rows, which `modify` changes. */
export const balances = ReadModel.table("balances", {
  columns: { account_id: Schema.String, owner: Schema.NullOr(Schema.String), balance: Schema.Int, moves: Schema.Int },
  primaryKey: ["account_id"]
})
/** One row for each event: a doubled event would not show in it, a lost one does. */
export const turnover = Window.global("turnover", {
  key: { account_id: Schema.String },
  aggregate: { events: Agg.count, moved: Agg.sum }
})
/** A total over all accounts, of which deltas are added. */
export const total = Window.global("account_total", {
  key: { kind: Schema.String },
  aggregate: { events: Agg.count, moved: Agg.sum }
})
export const accounts = Projection.make({
  name: "accounts",
  version: 1,
  source: Account,
  writes: [balances, turnover, total],
  handle: (event, out) => {
    const moved = event.type === "account.moved" ? event.amount : 0
    const { account_id } = event
    out.modify(balances, { account_id }, (row) => ({
      account_id,
      owner: event.type === "account.opened" ? event.owner : (row?.owner ?? null),
      balance: (row?.balance ?? 0) + moved,
      moves: (row?.moves ?? 0) + 1
    }))
    out.add(turnover, { account_id, events: 1, moved })
    out.add(total, { kind: "all", events: 1, moved })
  }
})
