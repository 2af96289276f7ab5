// An aggregate as users declare it: a decider, with the types of its events, commands, state and rejections, and the codecs of all of
// them. Pure.
import * as Schema from "effect/Schema"
import { isStorable, shown } from "../text/text.ts"
import { assertAggregate, assertAggregateFields } from "./aggregate-checks.ts"
import { refuse } from "./declaration.ts"
import type { EventType } from "./event.ts"
import {
  remember,
  select,
  type Fields,
  type Member,
  type Named,
  type Select,
  type Simplify,
  type TypeOf
} from "./fields.ts"
import { codec, type Codec } from "./json-codec.ts"
import { assertPersonal } from "./personal.ts"
import { eventCodec, instant, type StoredSource } from "./topic.ts"
import { checkedFunction } from "./user-code.ts"

/** Why a command was rejected: any `Schema.TaggedError`. */
export type Rejection = Error & {
  /** The name of the error, which `AggregateTest.thenRejected` and HTTP answers name. */
  readonly _tag: string
}
/** The class of a rejection, a `Schema.TaggedError`: by it a rejection that the store remembers becomes an instance again. */
export type RejectionClass = Schema.Codec<Rejection, unknown>
type CommandFields = { readonly [name: string]: Fields }
type CommandOf<C extends CommandFields, K extends keyof C> = Simplify<{ readonly type: K } & TypeOf<C[K]>>
/** The union of commands. Of an aggregate without commands it is a type without values, which, unlike `never`, lets it be any aggregate. */
type Commands<C extends CommandFields> = [keyof C] extends [never]
  ? { readonly type: never }
  : { [K in keyof C]: CommandOf<C, K> }[keyof C]
/** What a command decides: one event, several, none, or a rejection. */
export type Decision<Ev> = Ev | ReadonlyArray<Ev> | Rejection
/** What a tag or a subject is made from: one text, several, or undefined for none. */
type Texts = string | ReadonlyArray<string> | undefined
/** What `subject` may read beside the event. */
export interface SubjectContext {
  /** The tenant of the event; undefined: none. */
  readonly tenant: string | undefined
}
const noTenant: SubjectContext = { tenant: undefined }

/**
 * A decider: the initial state, `evolve` (state and event to state) and `decide` (state and command to new events or a rejection). All of it
 * is pure. `Id` is the name of the field that holds the stream's id.
 */
export interface Aggregate<
  out Name extends string,
  in out State,
  in out Ev,
  in out Command,
  out Rejected,
  out Id extends string = string
> extends StoredSource<Name, Ev, "aggregate"> {
  /** The name of the aggregate, and of the topic that has its events. */
  readonly name: Name
  /** Of `evolve` and the state: a snapshot that another version stored is not read. */
  readonly version: number
  /** The event types, as declared. */
  readonly events: ReadonlyArray<EventType.Any>
  /** The names of the event types. */
  readonly types: ReadonlyArray<string>
  /** The event types by name. */
  readonly eventTypes: ReadonlyMap<string, EventType.Any>
  /** How many partitions its topic has. */
  readonly partitions: number
  /** Events of aggregates are kept forever. */
  readonly retentionMs: undefined
  /** The field of every event and command that holds the stream's id; undefined if none is declared. */
  readonly id: Id | undefined
  /** The fields of each command, by the command's name. */
  readonly commands: Readonly<Record<string, Fields>>
  /** The schema of the state. */
  readonly state: Schema.Constraint
  /** The classes of rejections, as declared: a repeated command that was rejected gets an instance of one of them. */
  readonly rejections: ReadonlyArray<RejectionClass>
  /** The names of the tags by which boundaries can be read. */
  readonly tagNames: ReadonlyArray<string>
  /** After how many events that a load read a snapshot of the state is stored; undefined: never. */
  readonly snapshotEvery: number | undefined
  /** The state of a stream without events. */
  readonly initial: State
  /** Throws what the user's function throws, and if it returns undefined. */
  readonly evolve: (state: State, event: Ev) => State
  /** Throws what the user's function throws, and if it returns neither events nor a rejection. */
  readonly decide: (state: State, command: Command) => ReadonlyArray<Ev> | Rejected
  /** Decodes a command's JSON, with `type`. Throws `UnknownCommand`, or a `Schema.SchemaError` that names the field that does not fit. */
  readonly decodeCommand: (json: unknown) => Command
  /** The JSON object of a command: `type` and the declared fields. Throws as `decodeCommand` does. */
  readonly encodeCommand: (command: Command) => unknown
  /** Decodes a state's JSON, as a snapshot has it. Throws a `Schema.SchemaError` if it does not fit. */
  readonly decodeState: (json: unknown) => State
  /** The JSON of a state. Throws a `Schema.SchemaError` if the state does not fit its schema. */
  readonly encodeState: (state: State) => unknown
  /** The tags of an event, as `course:c1`, in order and without duplicates. Throws an error that names the tag if one is no text. */
  readonly tagsOf: (event: Ev) => ReadonlyArray<string>
  /** The subjects that an event of a tenant is about; `about` left out: of no tenant. Throws an error if one is no text. */
  readonly subjectsOf: (event: Ev, about?: SubjectContext) => ReadonlyArray<string>
}
export declare namespace Aggregate {
  /** Any aggregate. */
  type Any = Aggregate<string, any, any, any, unknown>
  /** The union of an aggregate's commands. */
  type Command<A> = A extends Aggregate<string, any, any, infer C, any> ? C : never
  /** The union of an aggregate's events. */
  type Event<A> = A extends Aggregate<string, any, infer E, any, any> ? E : never
  /** The union of an aggregate's rejections. */
  type Rejected<A> = A extends Aggregate<string, any, any, any, infer R> ? R : never
  /** The type of an aggregate's state. */
  type State<A> = A extends Aggregate<string, infer S, any, any, any> ? S : never
  /** A command as callers give it: the field that holds the stream's id may be left out, because the caller names the stream. */
  type Input<Command, Id extends string> = [Id] extends [never]
    ? Command
    : Command extends unknown
      ? Simplify<Omit<Command, Id> & { readonly [K in Id]?: string }>
      : never
}

/** The `type` of a command is none of its aggregate's commands. */
export class UnknownCommand extends Schema.TaggedError<UnknownCommand>()("UnknownCommand", {
  aggregate: Schema.String,
  command: Schema.Unknown,
  known: Schema.Array(Schema.String)
}) {
  override get message() {
    return `aggregate ${this.aggregate} has no command ${shown(this.command)}; it has ${this.known.join(", ") || "none"}`
  }
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
const isRejection = (value: unknown): value is Rejection =>
  value instanceof Error && typeof (value as Partial<Rejection>)._tag === "string"
const what = (name: string) => `aggregate ${name}`

/** A decision as an array of events, or a rejection. Throws an error if it is neither events nor a rejection. `source` begins the message. */
export const decisionOf = (source: string, decision: unknown): ReadonlyArray<unknown> | Rejection => {
  if (Array.isArray(decision) || isRejection(decision)) return decision
  if (typeof decision === "object" && decision !== null && !(decision instanceof Error)) return [decision]
  throw new Error(
    `${source} returned ${decision instanceof Error ? "an error without a _tag" : shown(decision)}; ` +
      "it must return an event, an array of events, or a rejection (a Schema.TaggedError)"
  )
}
const decider = (name: string, functions: object) => {
  const decide = checkedFunctions(`${what(name)}: \`decide\``, functions)
  return (state: never, command: Named) => {
    if (!Object.hasOwn(decide, command.type))
      throw new UnknownCommand({ aggregate: name, command: command.type, known: Object.keys(decide) })
    const decision = decide[command.type]!(state, command as never)
    return decisionOf(`${what(name)}: \`decide\` of ${command.type}`, decision)
  }
}
const evolver = (name: string, eventTypes: ReadonlyMap<string, unknown>, functions: object) => {
  const evolve = checkedFunctions(`${what(name)}: \`evolve\``, functions)
  return (state: never, event: Named) => {
    if (!eventTypes.has(event.type)) throw new Error(`${what(name)} has no event type ${shown(event.type)}`)
    const next = evolve[event.type]!(state, event as never)
    if (next === undefined)
      throw new Error(`${what(name)}: \`evolve\` of ${event.type} returned undefined; it must return the new state`)
    return next
  }
}
const commandCodec = (name: string, commands: CommandFields) => {
  const codecs = new Map<string, Codec>(Object.entries(commands).map(([type, fields]) => [type, codec(fields, type)]))
  const find = (command: unknown): Codec => {
    const type = (command as Partial<Named> | null | undefined)?.type
    const found = codecs.get(type as string)
    if (found === undefined) throw new UnknownCommand({ aggregate: name, command: type, known: [...codecs.keys()] })
    return found
  }
  return {
    decodeCommand: (json: unknown) => find(json).decode(json),
    encodeCommand: (command: unknown) => find(command).encode(command)
  }
}
const stateCodec = (name: string, state: Schema.Constraint, initial: unknown) => {
  const json = Schema.toCodecJson(state as Schema.Codec<unknown>)
  const encodeState = Schema.encodeUnknownSync(json)
  try {
    encodeState(initial)
  } catch (error) {
    refuse(`${what(name)}: \`initial\``, `it does not fit the schema of the state: ${(error as Error).message}`)
  }
  return { encodeState, decodeState: Schema.decodeUnknownSync(json) }
}

const mostTextCharacters = 1_000
/** A tag or subject that a function of a declaration made of an event cannot be stored: the command that led to the event is at fault. */
export class UnusableText extends Error {
  readonly text: string
  /** The field of the event that has the text; undefined if none has it. */
  readonly field: string | undefined
  constructor(message: string, text: string, field?: string) {
    super(message)
    this.text = text
    this.field = field
  }
}
/** The texts that a function of a declaration returned. Throws an error that names it if one is no text, empty or too long. */
const textsOf = (source: string, type: string, given: unknown): ReadonlyArray<string> => {
  if (given === undefined) return []
  const texts: ReadonlyArray<unknown> = Array.isArray(given) ? given : [given]
  for (const text of texts) {
    const isText = typeof text === "string"
    if (isText && text !== "" && text.length <= mostTextCharacters && isStorable(text)) continue
    const problem =
      `${source} returned ${shown(text)} for an event of type ${type}; ` +
      `it must return a text of 1 to ${mostTextCharacters} characters, an array of texts, or undefined for none`
    if (!isText) throw new Error(problem)
    throw new UnusableText(
      `${problem}. Let the schema of the command refuse other texts, as with Schema.String.check(Schema.isMinLength(1))`,
      text
    )
  }
  return texts as ReadonlyArray<string>
}
const textsFunction = (source: string, given: unknown) => {
  const run = checkedFunction(
    source,
    given as (event: never, about: SubjectContext) => unknown,
    "write a synchronous function, which returns a text"
  )
  return (event: Named, { tenant }: SubjectContext = noTenant) =>
    textsOf(source, event.type, run(event as never, { tenant } as never))
}
const tagger = (name: string, tags: Readonly<Record<string, unknown>>) => {
  const functions = Object.entries(tags).map(
    ([tag, given]) => [tag, textsFunction(`${what(name)}: the tag \`${tag}\``, given)] as const
  )
  return (event: Named): ReadonlyArray<string> => [
    ...new Set(functions.flatMap(([tag, texts]) => texts(event).map((text) => `${tag}:${text}`)))
  ]
}

/** Declares aggregates. */
export const Aggregate = {
  /**
   * Declares an aggregate. `evolve` needs one function for each event type, `decide` one for each command; a missing or unknown name does
   * not compile. Throws `InvalidDeclaration` or `InvalidOption` if the declaration is not consistent.
   *
   * ```ts
   * const Flight = Aggregate.make({
   *   name: "flight",
   *   id: "flight",
   *   events: [Departed],
   *   commands: { depart: { flight: Schema.String, at: Schema.Int } },
   *   state: Schema.Struct({ hasDeparted: Schema.Boolean }),
   *   initial: { hasDeparted: false },
   *   evolve: { "flight.departed": () => ({ hasDeparted: true }) },
   *   decide: {
   *     depart: ({ hasDeparted }, { at, flight }) =>
   *       hasDeparted ? new AlreadyDeparted({ flight }) : Departed.make({ flight, at })
   *   }
   * })
   * ```
   */
  make: <
    const Name extends string,
    const E extends ReadonlyArray<EventType.Any>,
    const C extends CommandFields,
    const S extends Schema.Constraint, // const: else `() => ({ status: "open" })` widens to string
    const D extends {
      readonly [K in keyof C]: (state: S["Type"], command: CommandOf<C, K>) => Decision<E[number]["Event"]>
    },
    const Id extends string = never
  >(options: {
    /** The name of the aggregate, and of the topic that has its events: at most 249 letters, digits, dots, _ and -. */
    readonly name: Name
    /** The event types that commands may lead to. */
    readonly events: E
    /** The commands: each name with the fields that its callers give, as `{ pay: { order_id: Schema.String } }`. */
    readonly commands: C
    /** The schema of the state, by which snapshots are stored. */
    readonly state: S
    /** The state of a stream without events. */
    readonly initial: NoInfer<S["Type"]>
    /** For each event type a pure function from the state before an event to the state after it. */
    readonly evolve: {
      readonly [T in E[number]["type"]]: (state: S["Type"], event: Member<E[number]["Event"], T>) => NoInfer<S["Type"]>
    }
    /** Each returns one new event, an array of them (which may be empty), or a rejection. */
    readonly decide: D & { readonly [K in Exclude<keyof D, keyof C>]: "not a command of this aggregate" }
    /**
     * The classes of the rejections. A command that is sent again with its `commandId` and was rejected then gets an instance of its class;
     * of a class that is not listed it gets an error with the same `_tag`, fields (as JSON) and message.
     */
    readonly rejections?: ReadonlyArray<RejectionClass>
    /**
     * The field of every event and command that holds the stream's id. Callers may leave it out of commands; events that have another id
     * are refused. Without it, only the stream has the id.
     */
    readonly id?: Id & FieldOfAll<E[number]["Event"] | { [K in keyof C]: CommandOf<C, K> }[keyof C]>
    /** The version of `evolve` and the state, from 1. Increase it when `evolve` changes: snapshots of another version are ignored. */
    readonly version?: number
    /** The event time of an event: epoch milliseconds, rounded down. Default: the time of its append. */
    readonly eventTime?: Select<E[number]["Event"], number>
    /**
     * Tags, by which decisions can be made over the events of several streams: the texts that an event has for each, or undefined. An
     * event's tags are fixed when it is appended.
     */
    readonly tags?: { readonly [tag: string]: (event: E[number]["Event"]) => Texts }
    /**
     * The person, or the persons, whom an event is about. Undefined: nobody. Events of all aggregates and tenants that name the same subject
     * share its key: put `about.tenant` into the name if tenants have persons of their own.
     */
    readonly subject?: (event: E[number]["Event"], about: SubjectContext) => Texts
    /** The partitions of the topic. Default 16; they are fixed when the aggregate is first used. */
    readonly partitions?: number
    /** A snapshot of the state is stored after a load that read more than `every` events. Default 200; `false`: never. */
    readonly snapshot?: { readonly every: number } | false
  }): Aggregate<Name, S["Type"], E[number]["Event"], Commands<C>, Extract<ReturnType<D[keyof C]>, Rejection>, Id> => {
    assertAggregate(options)
    const { commands, events, eventTime, id, initial, name, state, subject, tags = {} } = options
    const eventsCodec = eventCodec(what(name), name, events)
    assertAggregateFields(options, eventsCodec.shapes)
    assertPersonal(what(name), events, options)
    return {
      ...eventsCodec,
      ...commandCodec(name, commands),
      ...stateCodec(name, state, initial),
      kind: "aggregate",
      name,
      version: options.version ?? 1,
      events,
      commands,
      state,
      initial,
      id,
      keyField: id,
      keyOf: id === undefined ? () => "" : select(`${what(name)}: \`id\``, id),
      timeOf: eventTime === undefined ? undefined : instant(`${what(name)}: \`eventTime\``, eventTime),
      idOf: undefined,
      tenantOf: undefined,
      partitions: options.partitions ?? 16,
      retentionMs: undefined,
      snapshotEvery: options.snapshot === false ? undefined : (options.snapshot?.every ?? 200),
      rejections: options.rejections ?? [],
      tagNames: Object.keys(tags),
      tagsOf: remember(tagger(name, tags), tags),
      subjectsOf: subject === undefined ? () => [] : textsFunction(`${what(name)}: \`subject\``, subject),
      evolve: evolver(name, eventsCodec.eventTypes, options.evolve),
      decide: decider(name, options.decide)
    } as never
  }
}
/** The names of fields that every member of `A` has with texts as values. */
type FieldOfAll<A> = { [K in keyof A]: A[K] extends string ? K : never }[keyof A] & string
