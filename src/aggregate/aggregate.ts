// `Aggregate` as users have it: the model's decider, and what runs commands on it and reads its streams.
import { randomUUID } from "node:crypto"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Model from "../model/aggregate.ts"
import type { Decision } from "../model/aggregate.ts"
import { type InvalidOption, invalidOption } from "../model/options.ts"
import * as Boundary from "./boundary.ts"
import type { DecideWithinOptions, DecisionWithin, RejectionOf } from "./boundary.ts"
import type { Executed } from "./chain.ts"
import { checkedCommand, type CommandContext, contextProblem, digestOf } from "./command.ts"
import {
  type AppendError,
  EventStore,
  type Expected,
  type ReadStreamOptions,
  type RecordedEvent
} from "./event-store.ts"
import type { EventStoreError, InvalidStream } from "./errors.ts"
import { executorOf } from "./executor.ts"
import { InvalidCommand, type StreamBusy, UnreadableEvent } from "./failures.ts"
import { decodeEvent, loadState, type LoadStateError } from "./state.ts"

/** A decider: its initial state, and two pure functions: `evolve` (events to state) and `decide` (a command to events or a rejection). */
export type Aggregate<Name extends string, State, Ev, Command, Rejected, Id extends string = string> = Model.Aggregate<
  Name,
  State,
  Ev,
  Command,
  Rejected,
  Id
>
export declare namespace Aggregate {
  /** Any aggregate. */
  type Any = Model.Aggregate.Any
  /** The union of an aggregate's commands. */
  type Command<A> = Model.Aggregate.Command<A>
  /** The union of an aggregate's events. */
  type Event<A> = Model.Aggregate.Event<A>
  /** The union of an aggregate's rejections. */
  type Rejected<A> = Model.Aggregate.Rejected<A>
  /** The type of an aggregate's state. */
  type State<A> = Model.Aggregate.State<A>
  /** A command as callers give it: the field that holds the stream's id may be left out. */
  type Input<Command, Id extends string> = Model.Aggregate.Input<Command, Id>
}

/** How a command is executed. */
export interface ExecuteOptions {
  /**
   * Identifies the command, 1 to 200 characters: the same id on the same stream gets the answer of the first time, and nothing is appended
   * again. For another command it fails with `CommandReused`. Default: a random id, for which answers without events are not remembered.
   */
  readonly commandId?: string | undefined
  /**
   * What the stream must be. A version, or `"noStream"`: another version fails with `VersionConflict`, which has the actual one, and the
   * command is not decided. Default `"any"`: the command is decided on whatever the newest state is.
   */
  readonly expected?: Expected | undefined
  /** What every event of the command carries: correlation, cause, actor, tenant and trace. Default: the command's id as correlation id. */
  readonly context?: CommandContext | undefined
  /** The timer that sends the command: it is deleted with the append of the command's events. */
  readonly timer?: string | undefined
}
/** Every error of `execute` besides the aggregate's rejections. */
export type ExecuteError = LoadStateError | AppendError | InvalidCommand | StreamBusy

/** The context with the trace of the current span, if it has no other. */
const withTrace = (context: CommandContext): Effect.Effect<CommandContext> =>
  context.traceparent !== undefined
    ? Effect.succeed(context)
    : Effect.currentParentSpan.pipe(
        Effect.map(({ sampled, spanId, traceId }) => {
          const traceparent = `00-${traceId}-${spanId}-${sampled ? "01" : "00"}`
          return contextProblem({ traceparent }) === undefined ? { ...context, traceparent } : context
        }),
        Effect.orElseSucceed(() => context)
      )
const assertExpected = (aggregate: string, command: string, expected: unknown) => {
  if (expected === "any" || expected === "exists" || expected === "noStream") return
  if (Number.isSafeInteger(expected) && (expected as number) >= 0) return
  const reason = `\`expected\` is ${String(expected)}; it must be a version from 0, "any", "exists" or "noStream"`
  throw new InvalidCommand({ aggregate, command, reason })
}

const execute = <S, Ev, Cmd, Rj, Id extends string>(
  aggregate: Aggregate<string, S, Ev, Cmd, Rj, Id>,
  id: string,
  command: NoInfer<Model.Aggregate.Input<Cmd, Id>>,
  { commandId, context = {}, expected = "any", timer }: ExecuteOptions = {}
): Effect.Effect<Executed<Ev>, Rj | ExecuteError, EventStore> =>
  Effect.gen(function* () {
    const store = yield* EventStore
    const checked = yield* Effect.try({
      try: () => {
        const found = checkedCommand(aggregate, id, command)
        assertExpected(aggregate.name, found.command.type, expected)
        const problem = contextProblem(context)
        if (problem === undefined) return found
        throw new InvalidCommand({ aggregate: aggregate.name, command: found.command.type, reason: problem })
      },
      catch: (error) => error as InvalidCommand
    })
    const answer = yield* Deferred.make<Executed<unknown>, unknown>()
    const executed = yield* executorOf(store).execute(aggregate, id, {
      command: checked.command,
      commandId: commandId ?? randomUUID(),
      digest: commandId === undefined ? undefined : digestOf(checked.json),
      expected,
      context: yield* withTrace(context),
      timer,
      answer,
      tries: 0,
      isCancelled: false
    })
    return executed as Executed<Ev>
  }) as Effect.Effect<Executed<Ev>, Rj | ExecuteError, EventStore>

const decideWithin = <State, Ev, Cmd, S, const D extends Decision<Ev>>(
  aggregate: Aggregate<string, State, Ev, Cmd, unknown>,
  decision: DecisionWithin<S, Ev, D>,
  { commandId, context = {} }: DecideWithinOptions = {}
): Effect.Effect<Executed<Ev>, RejectionOf<D> | ExecuteError, EventStore> =>
  Effect.gen(function* () {
    const store = yield* EventStore
    const traced = yield* withTrace(context)
    return yield* Boundary.decideWithin(store, aggregate, decision as never, { commandId, context: traced })
  }) as Effect.Effect<Executed<Ev>, RejectionOf<D> | ExecuteError, EventStore>

/** Which state `load` returns: that of a version, or that of a time. Default: the newest. */
export interface LoadStateAt {
  /** The last version to fold. A greater one than the stream has gives the newest state. */
  readonly version?: number | undefined
  /** The state after the events that were appended up to this time. */
  readonly at?: DateTime.DateTime.Input | undefined
}
const load = <S, Ev, Cmd>(
  aggregate: Aggregate<string, S, Ev, Cmd, unknown>,
  id: string,
  { at, version }: LoadStateAt = {}
): Effect.Effect<{ readonly version: number; readonly state: S }, LoadStateError | InvalidOption, EventStore> =>
  Effect.gen(function* () {
    if (version !== undefined && !(Number.isSafeInteger(version) && version >= 0))
      return yield* invalidOption("version", version, "it must be a whole number from 0")
    const time = at === undefined ? undefined : Option.getOrUndefined(DateTime.make(at))
    if (at !== undefined && time === undefined)
      return yield* invalidOption("at", at, "it must be a date; write one such as 2026-01-31T12:00:00Z")
    if (version === 0) return { version: 0, state: aggregate.initial }
    const store = yield* EventStore
    const loaded = yield* loadState<S>(store, aggregate, id, { upTo: version, appendedBy: time?.epochMilliseconds })
    return { version: loaded.version, state: loaded.state }
  })

/** An event of a stream, as `history` returns it: the newest version of its type, and what is recorded about it. */
export interface HistoryEvent<out Ev> extends Omit<RecordedEvent, "value"> {
  /** The event, as `evolve` receives it. */
  readonly event: Ev
}
const history = <S, Ev, Cmd>(
  aggregate: Aggregate<string, S, Ev, Cmd, unknown>,
  id: string,
  options: ReadStreamOptions = {}
): Stream.Stream<HistoryEvent<Ev>, InvalidStream | EventStoreError | UnreadableEvent, EventStore> =>
  Stream.unwrap(
    Effect.map(EventStore, (store) =>
      store.read(aggregate.name, id, options).pipe(
        Stream.mapEffect(({ value, ...recorded }) =>
          Effect.try({
            try: () => ({ ...recorded, event: decodeEvent<Ev>(aggregate, { value, ...recorded }) }),
            catch: (error) => error as UnreadableEvent
          })
        )
      )
    )
  )

/** What `archive` did. */
export interface Archived {
  /** The stream's version, which is its last. */
  readonly version: number
  /** Whether the stream took no more events before. */
  readonly repeated: boolean
}
const archive = (
  { name }: Model.Aggregate.Any,
  id: string
): Effect.Effect<Archived, InvalidStream | EventStoreError, EventStore> =>
  Effect.gen(function* () {
    const store = yield* EventStore
    const load = store
      .load(name, id, { limit: 1 })
      // those of a load that asks what a command was answered
      .pipe(Effect.catchTags({ CommandReused: Effect.die, InvalidCommandId: Effect.die }))
    const before = yield* load
    if (before.closed !== undefined) return { version: before.version, repeated: true }
    yield* store.archive(name, id)
    // a command may have been appended before the stream was closed
    return { version: (yield* load).version, repeated: false }
  })

/**
 * Declares aggregates (`make`), runs commands on them (`execute`), decides over tags (`decideWithin`), reads their streams (`load`, `history`) and
 * closes them (`archive`).
 */
export const Aggregate = {
  ...Model.Aggregate,
  /**
   * Executes a command: decides it on the newest state of its stream and appends the events that it decides. Fails with the aggregate's
   * rejections, and with an `ExecuteError`; then nothing was appended, except that nobody knows after an `EventStoreError`: then the same
   * command with the same `commandId` is safe.
   *
   * Commands of one stream that a process executes at the same time are decided one after another, without a load between them. When another
   * process appended to the stream, the command is decided again, 20 times at most; then it fails with `StreamBusy`. Functions of the
   * aggregate that throw fail with `AggregateFailed` and disturb no other command.
   *
   * ```ts
   * const { events, version } = yield* Aggregate.execute(Flight, "LX40", { type: "depart", at: 1_700_000_000_000 })
   * ```
   */
  execute,
  /**
   * Decides over the events that have some tags, of whatever streams, and appends what it decides only if no event with one of these tags was
   * appended in between: a dynamic consistency boundary. After that it reads again and decides again, 20 times at most; if only events of
   * types without a function in `evolve` came between, the decision stands. Fails with the rejections of `decide`, and with an `ExecuteError`.
   *
   * ```ts
   * // a course has so many seats, a student five courses; neither stream alone could guard both
   * const booked = yield* Aggregate.decideWithin(Courses, {
   *   stream: "c1",
   *   tags: { course: "c1", student: "s1" },
   *   initial: { seats: 0, courses: 0 },
   *   evolve: {
   *     "course.opened": (state, { seats }) => ({ ...state, seats: state.seats + seats }),
   *     "course.booked": (state, { course, student }) => ({
   *       seats: state.seats - (course === "c1" ? 1 : 0),
   *       courses: state.courses + (student === "s1" ? 1 : 0)
   *     })
   *   },
   *   decide: ({ courses, seats }) =>
   *     seats === 0 ? new CourseFull({ course: "c1" })
   *     : courses === 5 ? new TooManyCourses({ student: "s1" })
   *     : CourseBooked.make({ course: "c1", student: "s1" })
   * })
   * ```
   */
  decideWithin,
  /**
   * The state of a stream, and the version it has then: version 0 and the initial state if it has no events. Reads the store, not the states in
   * memory. Fails with `InvalidOption` if the version is no whole number from 0, or `at` is no time.
   *
   * ```ts
   * const { state, version } = yield* Aggregate.load(Flight, "LX40", { at: "2026-01-31T12:00:00Z" })
   * ```
   */
  load,
  /**
   * The events of a stream, forwards or backwards, read in pages: with their versions, times, ids and headers. Fails with `UnreadableEvent` at
   * an event that the declarations do not fit.
   */
  history,
  /**
   * Archives a stream: commands that would append to it fail with `StreamClosed` from then on, in all processes. Its events stay, are read as
   * before, and commands that were answered get their answers again. It cannot be undone, and may be called again. An id without events takes
   * none afterwards.
   *
   * ```ts
   * const { version } = yield* Aggregate.archive(Flight, "LX40")
   * ```
   */
  archive
}
