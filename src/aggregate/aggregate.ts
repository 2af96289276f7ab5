// `Aggregate` as users have it: the model's decider, and `execute`, which runs a command against an event store.
import * as Effect from "effect/Effect"
import * as Model from "../model/aggregate.ts"
import { ConflictError, EventStore } from "./event-store.ts"

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
 * again, up to 3 times; then it fails with `ConflictError`. Fails with the aggregate's own rejections.
 *
 * ```ts
 * const events = yield* Aggregate.execute(Flight, "LX40", { type: "depart", at: 1_700_000_000_000 })
 * ```
 */
const execute = <S, Ev, Cmd, Rj>(
  aggregate: Aggregate<string, S, Ev, Cmd, Rj>,
  id: string,
  command: NoInfer<Cmd>
): Effect.Effect<ReadonlyArray<Ev>, Rj | ConflictError, EventStore> =>
  Effect.gen(function* () {
    const store = yield* EventStore
    const stream = `${aggregate.name}-${id}`
    const history = (yield* store.load(stream)) as ReadonlyArray<Ev>
    const decision = aggregate.decide(history.reduce(aggregate.evolve, aggregate.initial), command)
    if (!Array.isArray(decision)) return yield* Effect.fail(decision as Rj)
    yield* store.append(stream, history.length, decision)
    return decision as ReadonlyArray<Ev>
  }).pipe(Effect.retry({ times: conflictRetries, while: (error) => error instanceof ConflictError }))

/** Declares aggregates (`make`) and runs commands on them (`execute`). */
export const Aggregate = { ...Model.Aggregate, execute }
