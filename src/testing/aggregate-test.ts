// The kit for aggregates: given events, when a command, then events or a rejection; and properties that hold for any commands.
import * as Arbitrary from "effect/Arbitrary"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Schema from "effect/Schema"
import { reasonOf } from "../aggregate/failures.ts"
import { type Aggregate, type Rejection, UnusableText } from "../model/aggregate.ts"
import type { Named } from "../model/fields.ts"
import type { Row } from "../model/recorder.ts"
import { isStorable } from "../text/text.ts"
import { same } from "./compare.ts"

/** Given, when, then, for an aggregate. */
export interface AggregateTest<in out Ev, in Command, out Rejected extends Rejection, out State = unknown> {
  /** Events that the stream has before. */
  given(events: ReadonlyArray<Ev>): AggregateTest<Ev, Command, Rejected, State>
  /** A command. The field that holds the stream's id may be left out, if an event of the specification has it. */
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
const undecided = "no command was given; add .when({ … }) before .then"
const specification = (
  aggregate: Aggregate.Any,
  history: ReadonlyArray<Named>,
  decision?: ReadonlyArray<Named> | Rejection
): object => ({
  given: (events: ReadonlyArray<Named>) => specification(aggregate, [...history, ...events]),
  when: (command: object) => {
    const { id } = aggregate
    const stream = id === undefined || history[0] === undefined ? {} : { [id]: aggregate.keyOf(history[0]) }
    const decided = aggregate.decide(history.reduce(aggregate.evolve, aggregate.initial), { ...stream, ...command }) as
      | ReadonlyArray<Named>
      | Rejection
    return specification(aggregate, decided instanceof Error ? history : [...history, ...decided], decided)
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
    const actual: unknown = history.reduce(aggregate.evolve, aggregate.initial)
    const isObject = typeof state === "object" && state !== null
    if (isObject) same(`the state of ${aggregate.name}`, [actual as Row], [state as Row], true)
    else if (!Equal.equals(actual, state))
      throw new Error(`the state of ${aggregate.name}\n  expected ${String(state)}\n  was ${String(actual)}`)
  }
})

const checkStream = "c1"
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
  const evolved = (state: unknown, event: Named) =>
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
  const inStream = <A extends Named>(value: A): A => (id === undefined ? value : { ...value, [id]: checkStream })
  let state: unknown = history.reduce(evolved, aggregate.initial)
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
      if (id !== undefined && aggregate.keyOf(event) !== checkStream)
        throw new Error(`a decided event has the \`${id}\` ${JSON.stringify(aggregate.keyOf(event))} of another stream`)
      attempt("the tags or subjects of an event", () => [aggregate.tagsOf(event), aggregate.subjectsOf(event)])
      state = evolved(state, event)
    }
    assertState(state)
  }
  for (const event of anyEvents.map(inStream)) state = evolved(state, event)
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
   * A specification of an aggregate: it decides and evolves as `Aggregate.execute` does, without a store.
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
  ): AggregateTest<Ev, Aggregate.Input<Command, Id>, Rejected, S> => specification(aggregate, []) as never,
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
