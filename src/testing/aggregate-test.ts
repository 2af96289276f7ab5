// The kit for aggregates: given events, when a command, then events or a rejection; and properties that hold for any commands.
import * as Arbitrary from "effect/Arbitrary"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Schema from "effect/Schema"
import { checkedCommand, decideOn, newEvent } from "../aggregate/command.ts"
import { appendProblem, streamProblem } from "../aggregate/event-rules.ts"
import { InvalidCommand, reasonOf } from "../aggregate/failures.ts"
import { evolved } from "../aggregate/state.ts"
import { type Aggregate, type Rejection, UnusableText } from "../model/aggregate.ts"
import type { Named } from "../model/fields.ts"
import type { Row } from "../model/recorder.ts"
import { isStorable, shown } from "../text/text.ts"
import { same } from "./compare.ts"

/** Given, when, then, for an aggregate. */
export interface AggregateTest<in out Ev, in Command, out Rejected extends Rejection, out State = unknown> {
  /** Events that the stream has before. Throws an error that names an event which does not fit its schema, or belongs to another stream. */
  given(events: ReadonlyArray<Ev>): AggregateTest<Ev, Command, Rejected, State>
  /**
   * A command. The field that holds the stream's id may be left out, if an event of the specification has it. Throws as `Aggregate.execute`
   * fails: `InvalidCommand`, `AggregateFailed`.
   */
  when(command: Command): AggregateTest<Ev, Command, Rejected, State>
  /** The events that the last command decided, in order. Throws what differs, or the rejection. */
  then(events: ReadonlyArray<Ev>): void
  /** The last command was rejected by the error with this tag. Fields that are left out are not compared. */
  thenRejected<Tag extends Rejected["_tag"]>(
    tag: Tag,
    fields?: Partial<Extract<Rejected, { readonly _tag: Tag }>>
  ): void
  /** The state after all events so far. Fields that are left out are not compared. */
  thenState(state: State extends object ? Partial<State> : State): void
}
/** How properties of an aggregate are checked. */
export interface AggregateCheckOptions<Ev> {
  /** How many sequences of commands. Default 100. */
  readonly runs?: number
  /** How many commands a sequence has at most, about. Default 20. */
  readonly commands?: number
  /** Repeats a failed check. Default: another one in each run. */
  readonly seed?: string | number
  /** The events before the first command. Default: none. */
  readonly given?: ReadonlyArray<Ev>
}
/** The stream of an aggregate without a field that holds the id. */
const unnamedStream = "the stream"
/** The id of the stream that events belong to, as the first of them names it; undefined if none does. */
const streamOf = (aggregate: Aggregate.Any, events: ReadonlyArray<Named>): string | undefined => {
  if (aggregate.id === undefined) return unnamedStream
  const named = (events[0] as Readonly<Record<string, unknown>> | null | undefined)?.[aggregate.id]
  return typeof named === "string" ? named : undefined
}
/** The id of the stream that the first command is for. Throws `InvalidCommand` if the command has none. */
const streamOfCommand = ({ id, name }: Aggregate.Any, command: unknown): string => {
  if (id === undefined) return unnamedStream
  const { type, [id]: stream } = (command ?? {}) as Readonly<Record<string, unknown>>
  if (typeof stream === "string") return stream
  const reason = `its \`${id}\` is ${shown(stream)}, and nothing before it names the stream; give the id of the stream`
  throw new InvalidCommand({ aggregate: name, command: shownType(type), reason, field: id })
}
const shownType = (type: unknown): string => (typeof type === "string" ? type : shown(type))
const stateOf = (aggregate: Aggregate.Any, stream: string, history: ReadonlyArray<Named>): unknown =>
  history.reduce<unknown>(
    (state, event, i) => evolved(aggregate, { stream, type: event.type, version: i + 1 }, state, event as never),
    aggregate.initial
  )
/** Throws an error that names the first of the given events that the aggregate's stream cannot have. */
const assertGiven = (
  aggregate: Aggregate.Any,
  stream: string | undefined,
  version: number,
  events: ReadonlyArray<Named>
) => {
  for (const [i, event] of events.entries()) {
    try {
      // an event that fits its schema has an id
      aggregate.encode(event)
      const problem = streamProblem(aggregate.name, stream!)
      if (problem !== undefined) throw problem
      newEvent(aggregate, stream!, event, {}, {})
    } catch (cause) {
      const number = version + i + 1
      throw new Error(`event ${number} of aggregate ${aggregate.name} cannot be given: ${reasonOf(cause)}`, { cause })
    }
  }
}
/** What a command decides after events. Throws what `Aggregate.execute` fails with besides rejections. */
const decide = (
  aggregate: Aggregate.Any,
  stream: string,
  history: ReadonlyArray<Named>,
  given: unknown
): ReadonlyArray<Named> | Rejection => {
  const { command } = checkedCommand(aggregate, stream, given)
  const invalid = streamProblem(aggregate.name, stream)
  if (invalid !== undefined) throw invalid
  const decider = {
    aggregate,
    stream,
    command: command.type,
    commandId: "test",
    context: {},
    decide: (state: unknown) => aggregate.decide(state, command) as unknown,
    evolve: aggregate.evolve
  }
  const outcome = decideOn<unknown, Named>(decider, stateOf(aggregate, stream, history))
  if (outcome.kind === "failed") throw outcome.error
  if (outcome.kind === "nothing") return outcome.rejection ?? []
  // encryption of personal fields is up to the store
  const events = outcome.recorded.map(({ personal: _, ...event }) => event)
  const refused = appendProblem({ aggregate: aggregate.name, stream, expected: history.length, events })
  if (refused !== undefined) throw refused
  return outcome.events
}
const undecided = "no command was given; add .when({ … }) before .then"
/** What a specification has so far: the events, the stream's id if something named it, and what the last command decided. */
interface SoFar {
  readonly history: ReadonlyArray<Named>
  readonly stream?: string | undefined
  readonly decision?: ReadonlyArray<Named> | Rejection
}
const specification = (aggregate: Aggregate.Any, { decision, history, stream }: SoFar): object => ({
  given: (events: ReadonlyArray<Named>) => {
    const found = stream ?? streamOf(aggregate, events)
    assertGiven(aggregate, found, history.length, events)
    return specification(aggregate, { history: [...history, ...events], stream: found })
  },
  when: (command: unknown) => {
    const found = stream ?? streamOfCommand(aggregate, command)
    const decided = decide(aggregate, found, history, command)
    const after = decided instanceof Error ? history : [...history, ...decided]
    return specification(aggregate, { history: after, stream: found, decision: decided })
  },
  // oxlint-disable-next-line unicorn/no-thenable -- a specification reads so
  then: (events: unknown) => {
    // `await specification` would call this with two functions
    if (typeof events === "function") throw new Error("a specification was awaited; end it with .then([ … ])")
    if (decision === undefined) throw new Error(undecided)
    if (decision instanceof Error) throw new Error(`rejected: ${JSON.stringify(decision)}`, { cause: decision })
    same(aggregate.name, decision, events as ReadonlyArray<Row>, true)
  },
  thenRejected: (tag: string, fields: object = {}) => {
    if (decision === undefined) throw new Error(undecided)
    const rejected = decision instanceof Error ? [{ ...decision, _tag: decision._tag }] : decision
    same(aggregate.name, rejected, [{ ...fields, _tag: tag }], true)
  },
  thenState: (state: unknown) => {
    const actual = stateOf(aggregate, stream ?? "", history)
    const isObject = typeof state === "object" && state !== null
    if (isObject) same(`the state of ${aggregate.name}`, [actual as Row], [state as Row], true)
    else if (!Equal.equals(actual, state))
      throw new Error(`the state of ${aggregate.name}\n  expected ${String(state)}\n  was ${String(actual)}`)
  }
})

/**
 * Whether an event has a tag or a subject with NUL or an unpaired surrogate. The command is then refused with `InvalidCommand`, and no schema has
 * to rule these characters out.
 */
const isRefusedByStore = (aggregate: Aggregate.Any, event: Named): boolean => {
  try {
    aggregate.tagsOf(event)
    aggregate.subjectsOf(event)
    return false
  } catch (error) {
    return error instanceof UnusableText && !isStorable(error.text)
  }
}
/** Throws an error that says which property does not hold for a sequence of commands, and some events of any kind after it. */
const assertProperties = (
  aggregate: Aggregate.Any,
  history: ReadonlyArray<Named>,
  commands: ReadonlyArray<Named>,
  anyEvents: ReadonlyArray<Named>
) => {
  const failed = (what: string, error: unknown) => new Error(`${what}: ${reasonOf(error)}`, { cause: error })
  const attempt = <A>(what: string, run: () => A): A => {
    try {
      return run()
    } catch (error) {
      throw failed(what, error)
    }
  }
  const evolvedBy = (state: unknown, event: Named) =>
    attempt(`\`evolve\` threw for ${JSON.stringify(event)}`, () => aggregate.evolve(state, event))
  const assertState = (state: unknown) => {
    const read = attempt("a snapshot of the state cannot be read", () =>
      aggregate.decodeState(JSON.parse(JSON.stringify(aggregate.encodeState(state))))
    )
    if (!Equal.equals(read, state))
      throw new Error(
        `a snapshot of the state gives another one: ${JSON.stringify(state)} became ${JSON.stringify(read)}`
      )
  }
  const { id } = aggregate
  const stream = streamOf(aggregate, history) ?? "c1"
  const inStream = <A extends Named>(value: A): A => (id === undefined ? value : { ...value, [id]: stream })
  let state = history.reduce(evolvedBy, aggregate.initial as unknown)
  for (const command of commands.map(inStream)) {
    const decision = attempt(`\`decide\` threw for ${JSON.stringify(command)}`, () => aggregate.decide(state, command))
    if (decision instanceof Error) continue
    const events = decision as ReadonlyArray<Named>
    if (events.some((event) => isRefusedByStore(aggregate, event))) continue
    for (const event of events) {
      const read = attempt("a decided event cannot be stored and read", () =>
        aggregate.decode(JSON.parse(aggregate.stringify(event)!), aggregate.versionOf(event))
      )
      if (!Equal.equals(read, event))
        throw new Error(
          `a decided event is another one after it was stored: ${JSON.stringify(event)} became ${JSON.stringify(read)}`
        )
      if (id !== undefined && aggregate.keyOf(event) !== stream)
        throw new Error(`a decided event has the \`${id}\` ${JSON.stringify(aggregate.keyOf(event))} of another stream`)
      attempt("the tags or subjects of an event", () => [aggregate.tagsOf(event), aggregate.subjectsOf(event)])
      state = evolvedBy(state, event)
    }
    assertState(state)
  }
  for (const event of anyEvents.map(inStream)) state = evolvedBy(state, event)
  assertState(state)
}
const variants = (aggregate: Aggregate.Any) => {
  const commands = Object.entries(aggregate.commands).map(([type, fields]) =>
    Schema.Struct({ type: Schema.Literal(type), ...fields })
  )
  const events = aggregate.events.map(({ type, versions }) =>
    Schema.Struct({ type: Schema.Literal(type), ...versions.at(-1)!.fields })
  )
  return { commands, events }
}
const arbitraryOf = (schemas: ReadonlyArray<Schema.Constraint>, maxLength: number): Arbitrary.Arbitrary<Array<Named>> =>
  schemas.length === 0
    ? Arbitrary.Constant<Array<Named>>([])
    : (Arbitrary.array(Arbitrary.schema(Schema.Union(schemas)), { maxLength }) as Arbitrary.Arbitrary<Array<Named>>)

/** Specifications of aggregates (`make`), and properties that hold for any commands (`check`). */
export const AggregateTest = {
  /**
   * A specification of an aggregate: it checks, decides and evolves as `Aggregate.execute` does, without a store. `when` throws what that fails
   * with besides rejections: `InvalidCommand` for a command that does not fit its schema or is for another stream, `AggregateFailed` for functions
   * that throw and for decided events that do not fit their schema or belong to another stream.
   *
   * ```ts
   * const depart = { type: "depart", flight: "LX40", at: 1_700_000_000_000 } as const
   * AggregateTest.make(Flight)
   *   .when(depart)
   *   .then([Departed.make({ flight: "LX40", at: 1_700_000_000_000 })])
   * AggregateTest.make(Flight)
   *   .given([Departed.make({ flight: "LX40", at: 1_600_000_000_000 })])
   *   .when(depart)
   *   .thenRejected("AlreadyDeparted", { flight: "LX40" })
   * ```
   */
  make: <S, Ev, Command, Rejected extends Rejection, Id extends string>(
    aggregate: Aggregate<string, S, Ev, Command, Rejected, Id>
  ): AggregateTest<Ev, Aggregate.Input<Command, Id>, Rejected, S> => specification(aggregate, { history: [] }) as never,
  /**
   * Checks what must hold whatever commands come, with commands and events that are generated from their schemas: `decide` and `evolve` never
   * throw, decided events can be stored and read, a snapshot of each state gives the same state, and tags are texts. Throws an error with
   * the shortest sequence that was found for which it does not hold, and the seed that repeats it.
   *
   * ```ts
   * test("any commands", () => AggregateTest.check(AlertCase))
   * ```
   */
  check: <S, Ev, Command>(
    aggregate: Aggregate<string, S, Ev, Command, unknown>,
    { commands = 20, given = [], runs = 100, seed }: AggregateCheckOptions<Ev> = {}
  ): void => {
    assertGiven(aggregate, streamOf(aggregate, given as ReadonlyArray<never>), 0, given as ReadonlyArray<never>)
    const schemas = variants(aggregate)
    const sequences = Arbitrary.all({
      commands: arbitraryOf(schemas.commands, commands),
      events: arbitraryOf(schemas.events, 5)
    })
    const holds = (sequence: { readonly commands: ReadonlyArray<Named>; readonly events: ReadonlyArray<Named> }) => {
      try {
        assertProperties(aggregate, given as ReadonlyArray<never>, sequence.commands, sequence.events)
      } catch (error) {
        return error
      }
      return undefined
    }
    const options = { runs, ...(seed === undefined ? {} : { seed }) }
    const result = Effect.runSync(
      Arbitrary.checkEffect(sequences, (sequence) => holds(sequence) === undefined, options)
    )
    const failure = Arbitrary.formatCheckFailure(result)
    if (failure === undefined) return
    const error = result._tag === "Falsified" ? holds(result.shrunkInput) : undefined
    throw new Error(`aggregate ${aggregate.name}: ${reasonOf(error)}\n${failure}`, { cause: error })
  }
}
