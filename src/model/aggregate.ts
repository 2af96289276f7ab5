// An aggregate as users declare it: a decider, with the types of its events, commands, state and rejections. Pure.
import type * as Schema from "effect/Schema"
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
    }) as never
}
