// `Aggregate` as users have it: the model's decider, and `execute`, which runs a command against an event store.
import * as Effect from "effect/Effect"
import * as Model from "../model/aggregate.ts"
import { VersionConflict } from "./errors.ts"
import { type AppendError, EventStore, type LoadError, type NewEvent } from "./event-store.ts"

/** A decider: its initial state, and two pure functions: `evolve` (events to state) and `decide` (a command to events or a rejection). */
export type Aggregate<Name extends string, State, Ev, Command, Rejected> = Model.Aggregate<
  Name,
  State,
  Ev,
  Command,
  Rejected
>
export declare namespace Aggregate {
  /** Any aggregate. */
  type Any = Model.Aggregate.Any
  /** The union of an aggregate's commands. */
  type Command<A> = Model.Aggregate.Command<A>
  /** The type of an aggregate's state. */
  type State<A> = Model.Aggregate.State<A>
}

/** How often a command is decided again after a conflict. */
const conflictRetries = 3

/**
 * Loads the aggregate's stream, decides the command and appends the new events, which it returns. After a conflict it loads and decides
 * again, up to 3 times; then it fails with `VersionConflict`. Fails with the aggregate's own rejections.
 *
 * ```ts
 * const events = yield* Aggregate.execute(Flight, "LX40", { type: "depart", at: 1_700_000_000_000 })
 * ```
 */
const execute = <S, Ev extends { readonly type: string }, Cmd, Rj>(
  aggregate: Aggregate<string, S, Ev, Cmd, Rj>,
  id: string,
  command: NoInfer<Cmd>
): Effect.Effect<ReadonlyArray<Ev>, Rj | LoadError | AppendError, EventStore> =>
  Effect.gen(function* () {
    const store = yield* EventStore
    let state = aggregate.initial
    let version = 0
    for (let page = yield* store.load(aggregate.name, id); page.events.length > 0;) {
      for (const { value } of page.events) state = aggregate.evolve(state, JSON.parse(value) as Ev)
      version = page.events.at(-1)!.version
      if (version >= page.version) break
      page = yield* store.load(aggregate.name, id, { from: version + 1 })
    }
    const decision = aggregate.decide(state, command)
    if (!Array.isArray(decision)) return yield* Effect.fail(decision as Rj)
    const events = decision as ReadonlyArray<Ev>
    if (events.length > 0)
      yield* store.append(
        { aggregate: aggregate.name, stream: id, expected: version, events: events.map(newEvent) },
        crypto.randomUUID()
      )
    return events
  }).pipe(Effect.retry({ times: conflictRetries, while: (error) => error instanceof VersionConflict }))

const newEvent = (event: { readonly type: string }): NewEvent => ({
  type: event.type,
  value: JSON.stringify(event),
  eventTime: undefined,
  eventId: undefined,
  tenant: undefined,
  traceparent: undefined,
  schemaVersion: undefined,
  headers: {}
})

/** Declares aggregates (`make`) and runs commands on them (`execute`). */
export const Aggregate = { ...Model.Aggregate, execute }
