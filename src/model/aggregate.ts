// An aggregate is a decider: three pure functions over events and commands, and the port that loads and appends its streams.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type { EventType } from "./event.ts"
import type { Fields, Member, Named, Simplify, TypeOf } from "./fields.ts"
import type { Source } from "./topic.ts"

/** A refusal with a type: any `Schema.TaggedError`. */
export type Rejection = Error & { readonly _tag: string }
type CommandFields = { readonly [name: string]: Fields }
type CommandOf<C extends CommandFields, K extends keyof C> = Simplify<{ readonly type: K } & TypeOf<C[K]>>
type Decision<Ev> = Ev | ReadonlyArray<Ev> | Rejection

/** A decider: three pure functions over events and commands. */
export interface Aggregate<
  out Name extends string,
  in out State,
  in out Ev,
  in out Command,
  out Rejected
> extends Source<Ev, "aggregate"> {
  readonly name: Name
  readonly initial: State
  readonly evolve: (state: State, event: Ev) => State
  readonly decide: (state: State, command: Command) => ReadonlyArray<Ev> | Rejected
}
export declare namespace Aggregate {
  type Any = Aggregate<string, any, any, any, unknown>
  type Command<A> = A extends Aggregate<string, any, any, infer C, any> ? C : never
  type State<A> = A extends Aggregate<string, infer S, any, any, any> ? S : never
}
/** The stream moved on between load and append, and kept doing so for every retry. */
export class ConflictError extends Schema.TaggedError<ConflictError>()("ConflictError", {
  stream: Schema.String,
  expected: Schema.Int,
  actual: Schema.Int
}) {}
/** The port that `execute` needs. */
export class EventStore extends Context.Service<
  EventStore,
  {
    load(stream: string): Effect.Effect<ReadonlyArray<unknown>>
    append(stream: string, expected: number, events: ReadonlyArray<unknown>): Effect.Effect<void, ConflictError>
  }
>()("millrace/EventStore") {
  static readonly layerMemory = Layer.sync(EventStore, () => {
    const streams = new Map<string, Array<unknown>>()
    return EventStore.of({
      load: (stream) => Effect.sync(() => [...(streams.get(stream) ?? [])]),
      append: (stream, expected, events) =>
        Effect.suspend(() => {
          const stored = streams.get(stream) ?? []
          if (stored.length !== expected)
            return Effect.fail(new ConflictError({ stream, expected, actual: stored.length }))
          streams.set(stream, [...stored, ...events])
          return Effect.void
        })
    })
  })
}
export const Aggregate = {
  /** `evolve` and `decide` have one function for every event and command; a missing or unknown one does not compile. */
  make: <
    const Name extends string,
    const E extends ReadonlyArray<EventType.Any>,
    const C extends CommandFields,
    const S extends Schema.Constraint, // const: else `() => ({ status: "open" })` widens to string
    const D extends {
      readonly [K in keyof C]: (state: S["Type"], command: CommandOf<C, K>) => Decision<E[number]["Event"]>
    }
  >(options: {
    readonly name: Name
    readonly events: E
    readonly commands: C
    /** A schema, so that snapshots can be kept. */
    readonly state: S
    readonly initial: NoInfer<S["Type"]>
    readonly evolve: {
      readonly [T in E[number]["type"]]: (state: S["Type"], event: Member<E[number]["Event"], T>) => NoInfer<S["Type"]>
    }
    /** New events (one, several, none), or a rejection. */
    readonly decide: D & { readonly [K in Exclude<keyof D, keyof C>]: "not a command of this aggregate" }
  }): Aggregate<
    Name,
    S["Type"],
    E[number]["Event"],
    { [K in keyof C]: CommandOf<C, K> }[keyof C],
    Extract<ReturnType<D[keyof C]>, Rejection>
  > =>
    ({
      ...options,
      kind: "aggregate",
      types: options.events.map((event) => event.type),
      evolve: (state: never, event: Named) => (options.evolve as any)[event.type](state, event), // keyed by a run-time name
      decide: (state: never, command: Named) => {
        const decision = (options.decide as any)[command.type](state, command)
        return decision instanceof Error || Array.isArray(decision) ? decision : [decision]
      }
    }) as never,
  /** Loads, decides, appends; a conflict is retried by deciding again. Fails with the aggregate's own rejections. */
  execute: <S, Ev, Cmd, Rj>(
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
    }).pipe(Effect.retry({ times: 3, while: (error) => error instanceof ConflictError }))
}
