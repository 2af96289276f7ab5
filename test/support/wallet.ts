// An aggregate for tests of commands: a wallet that takes deposits and withdrawals. Some commands throw.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Aggregate, Event, EventStore } from "../../src/index.ts"
import { MemoryEventStore } from "../../src/testing/testing.ts"

/** A rejection whose class the wallet lists. It has a field whose JSON is another value. */
export class TooLate extends Schema.TaggedError<TooLate>()("TooLate", { since: Schema.Date }) {}
/** A rejection whose class the wallet does not list. */
export class Poor extends Schema.TaggedError<Poor>()("Poor", { wallet: Schema.String, cents: Schema.Int }) {
  override get message() {
    return `${this.wallet} has ${this.cents} cents`
  }
}
const of = { wallet: Schema.String, at: Schema.Finite }
export const Deposited = Event.make("deposited", { ...of, cents: Schema.Int })
export const Withdrawn = Event.make("withdrawn", { ...of, amount: Schema.Int }).upcast(
  { ...of, cents: Schema.Int },
  ({ amount, ...v1 }) => ({ ...v1, cents: amount })
)
/** How often `decide` of `deposit` ran. */
export const decided = { deposits: 0 }

export const Wallet = Aggregate.make({
  name: "wallet",
  id: "wallet",
  eventTime: "at",
  events: [Deposited, Withdrawn],
  commands: {
    deposit: { ...of, cents: Schema.Int },
    withdraw: { ...of, cents: Schema.Int },
    empty: of,
    expire: of,
    throw: { ...of, where: Schema.Literals(["decide", "evolve", "event", "id"]) }
  },
  state: Schema.Struct({ cents: Schema.Int, events: Schema.Int }),
  initial: { cents: 0, events: 0 },
  rejections: [TooLate],
  snapshot: { every: 10 },
  subject: ({ wallet }) => `owner of ${wallet}`,
  evolve: {
    deposited: ({ cents, events }, event) => {
      if (event.cents === 666) throw new Error("evil")
      return { cents: cents + event.cents, events: events + 1 }
    },
    withdrawn: ({ cents, events }, event) => ({ cents: cents - event.cents, events: events + 1 })
  },
  decide: {
    deposit: (_, { type: _type, ...data }) => {
      decided.deposits++
      return Deposited.make(data)
    },
    withdraw: ({ cents }, { type: _, ...data }) =>
      cents < data.cents ? new Poor({ wallet: data.wallet, cents }) : Withdrawn.make(data),
    empty: ({ cents }, { at, wallet }) => (cents === 0 ? [] : [Withdrawn.make({ wallet, at, cents })]),
    expire: ({ cents }) => (cents === 0 ? new TooLate({ since: new Date(1000) }) : []),
    throw: (_, { at, wallet, where }) => {
      if (where === "decide") throw new Error("bad luck")
      if (where === "id") return Deposited.make({ wallet: "other", at, cents: 1 })
      return Deposited.make({ wallet, at, cents: where === "evolve" ? 666 : 0.5 })
    }
  }
})

type Store = EventStore["Service"]
/** A store in memory, some of whose functions may be replaced, and the calls that it got. */
export const memoryStore = (
  replace: (store: Store) => Partial<Store> = () => ({})
): Store & { readonly calls: Array<string> } => {
  const calls: Array<string> = []
  const inner = Effect.runSync(Effect.provide(EventStore, MemoryEventStore.layer))
  const store = { ...inner, ...replace(inner) }
  const counted = Object.fromEntries(
    Object.entries(store).map(([name, run]) => [
      name,
      (...args: ReadonlyArray<never>) => {
        calls.push(name)
        return (run as (...args: ReadonlyArray<never>) => unknown)(...args)
      }
    ])
  )
  return Object.assign(counted as unknown as Store, { calls })
}
/** Runs an effect with a store. */
export const withStore =
  (store: Store) =>
  <A, E>(effect: Effect.Effect<A, E, EventStore>): Promise<A> =>
    Effect.runPromise(Effect.provideService(effect, EventStore, store))
/** The same, for the error that an effect fails with. */
export const failsWith =
  (store: Store) =>
  <A, E>(effect: Effect.Effect<A, E, EventStore>): Promise<E> =>
    withStore(store)(Effect.flip(effect))

export const deposit = (cents: number, at = 1) => ({ type: "deposit", at, cents }) as const
export const withdraw = (cents: number, at = 2) => ({ type: "withdraw", at, cents }) as const
/** A command, without the id of its stream. */
export type Command = Aggregate.Input<Aggregate.Command<typeof Wallet>, "wallet">
export const execute = (command: Command, options?: object) => Aggregate.execute(Wallet, "w", command, options)
export const all = <A, E, R>(effects: ReadonlyArray<Effect.Effect<A, E, R>>) =>
  Effect.all(effects.map(Effect.result), { concurrency: "unbounded" })
export const eventsOf = async (store: Store, stream = "w") =>
  (await Effect.runPromise(store.load("wallet", stream, { limit: 100_000 }))).events
/** Another process that appends a deposit of 1 cent. */
export const other = (store: Store, stream = "w", cents = 1) =>
  store.append(
    {
      aggregate: "wallet",
      stream,
      expected: "any",
      events: [
        {
          type: "deposited",
          value: JSON.stringify(Deposited.make({ wallet: stream, at: 0, cents })),
          eventTime: 0,
          eventId: undefined,
          tenant: undefined,
          traceparent: undefined,
          schemaVersion: 1,
          headers: {}
        }
      ]
    },
    globalThis.crypto.randomUUID()
  )
