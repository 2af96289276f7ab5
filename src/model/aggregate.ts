// An aggregate as users declare it: a decider, with the types of its events, commands, state and rejections. Pure.
import type * as Schema from "effect/Schema"
import { assertOptions } from "./declaration.ts"
import type { EventType } from "./event.ts"
import type { Fields, Member, Named, Simplify, TypeOf } from "./fields.ts"
import type { Source } from "./topic.ts"
import { checkedFunction } from "./user-code.ts"

/** Why a command was rejected: any `Schema.TaggedError`. */
export type Rejection = Error & { readonly _tag: string }
type CommandFields = { readonly [name: string]: Fields }
type CommandOf<C extends CommandFields, K extends keyof C> = Simplify<{ readonly type: K } & TypeOf<C[K]>>
type Decision<Ev> = Ev | ReadonlyArray<Ev> | Rejection

/**
 * A decider: the initial state, `evolve` (state and event to state) and `decide` (state and command to new events or a rejection). All of it
 * is pure.
 */
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
  /** Any aggregate. */
  type Any = Aggregate<string, any, any, any, unknown>
  /** The union of an aggregate's commands. */
  type Command<A> = A extends Aggregate<string, any, any, infer C, any> ? C : never
  /** The type of an aggregate's state. */
  type State<A> = A extends Aggregate<string, infer S, any, any, any> ? S : never
}
type StateFunction = (state: never, argument: never) => unknown
const synchronous = "write a synchronous function; what a command needs from elsewhere belongs into the command"
const checkedFunctions = (what: string, functions: object): Readonly<Record<string, StateFunction>> =>
  Object.fromEntries(
    Object.entries(functions as Readonly<Record<string, StateFunction>>).map(([name, run]) => [
      name,
      checkedFunction(`${what} of ${name}`, run, synchronous)
    ])
  )
/** Declares aggregates. */
export const Aggregate = {
  /**
   * Declares an aggregate. `evolve` needs one function for each event type, `decide` one for each command; a missing or unknown name does
   * not compile.
   */
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
    /** The schema of the state, by which snapshots can be stored. */
    readonly state: S
    readonly initial: NoInfer<S["Type"]>
    readonly evolve: {
      readonly [T in E[number]["type"]]: (state: S["Type"], event: Member<E[number]["Event"], T>) => NoInfer<S["Type"]>
    }
    /** Each returns one new event, an array of them (which may be empty), or a rejection. */
    readonly decide: D & { readonly [K in Exclude<keyof D, keyof C>]: "not a command of this aggregate" }
  }): Aggregate<
    Name,
    S["Type"],
    E[number]["Event"],
    { [K in keyof C]: CommandOf<C, K> }[keyof C],
    Extract<ReturnType<D[keyof C]>, Rejection>
  > => {
    const all = ["name", "events", "commands", "state", "initial", "evolve", "decide"]
    assertOptions(`aggregate ${String((options as { readonly name?: string } | undefined)?.name)}`, options, all, [
      "name",
      "events",
      "evolve",
      "decide"
    ])
    const evolve = checkedFunctions(`aggregate ${options.name}: \`evolve\``, options.evolve)
    const decide = checkedFunctions(`aggregate ${options.name}: \`decide\``, options.decide)
    return {
      ...options,
      kind: "aggregate",
      types: options.events.map((event) => event.type),
      evolve: (state: never, event: Named) => evolve[event.type]!(state, event as never),
      decide: (state: never, command: Named) => {
        const decision = decide[command.type]!(state, command as never)
        return decision instanceof Error || Array.isArray(decision) ? decision : [decision]
      }
    } as never
  }
}
