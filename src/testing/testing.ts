// The test kit: given, when, then for projections and aggregates, with a clock that tests set. No servers; it imports no test runner.
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { DeadLetterMessage } from "../model/dead-letter-topic.ts"
import type { One, Simplify } from "../model/fields.ts"
import type { Writable } from "../model/handler.ts"
import { checkedDuration, invalidOption } from "../model/options.ts"
import type { Projection, Rows } from "../model/projection.ts"
import type { Table } from "../model/read-model.ts"
import type { Row } from "../model/recorder.ts"
import type { Compacted, Topic } from "../model/topic.ts"
import type { Window } from "../model/window.ts"
import { DatedAhead } from "../runner/event-decoder.ts"
import type { SentCommand as SentByTimer } from "../runner/memory-timers.ts"
import { MemoryEngine } from "../runner/in-memory.ts"
import { MemoryStore } from "../runner/memory-store.ts"
import { runNow } from "../runner/run-now.ts"
import { matches, same } from "./compare.ts"

/** An event store in memory, for trials of `Aggregate.execute`: `Effect.provide(MemoryEventStore.layer)`. */
export * as MemoryEventStore from "../memory/event-store.ts"
export { AggregateTest, type AggregateCheckOptions } from "./aggregate-test.ts"
export { EventHistory, type SampleOptions } from "./event-history.ts"
export type { EventSample } from "../aggregate/event-history.ts"

type ValuesOf<T> = T extends { readonly Row: infer R } ? R : T extends Topic<string, infer V> ? V : never
type PublishedTopic<W> = Extract<W, Topic.Any> | (W extends Window<string, object, never, infer P> ? P : never)
type PublishedValues<T> = {
  readonly [X in T as X extends Topic<infer N, any> ? N : never]?: ReadonlyArray<Partial<Topic.Value<X>>>
}
/** A command that was sent: to which aggregate, to which of its streams, and the command's JSON, of which fields may be left out. */
export interface SentCommand {
  /** The name of the aggregate. */
  readonly aggregate: string
  /** The id of the stream. */
  readonly id: string
  /** The command's JSON: `type` and the fields. */
  readonly command: {
    /** The name of the command. */
    readonly type: string
    readonly [field: string]: unknown
  }
}
/** A timer that waits: its name, the key of the events that can cancel it, when it is due (epoch milliseconds), and its command. */
export interface WaitingTimer extends SentCommand {
  /** The name that `out.timer` gave it. */
  readonly name: string
  /** The key of the events that can cancel it. */
  readonly key: string
  /** When it is due, in epoch milliseconds. */
  readonly at: number
}
/** Rows by table, values by topic. Columns that are left out are not compared, and tables and topics neither. */
export type Expected<W> = { readonly [T in keyof Rows<W>]?: ReadonlyArray<Partial<One<Rows<W>[T]>>> } & {
  /** The values that were published, by topic, in their order. Fields that are left out are not compared. */
  readonly published?: Simplify<PublishedValues<PublishedTopic<W>>>
  /** The commands that were sent, in their order: by `out.send`, and by timers that were due. */
  readonly sent?: ReadonlyArray<Partial<SentCommand>>
  /** The timers that wait, the next one first. */
  readonly timers?: ReadonlyArray<Partial<WaitingTimer>>
  /** The late events, with the window that they were too late for. */
  readonly late?: ReadonlyArray<{
    readonly window?: string
    readonly window_size?: string
    readonly window_start?: number
  }>
  /**
   * Dead letters: the events that failed, and were parked or skipped as the failure policy says. If this is left out, the first
   * failed event's own error is thrown.
   */
  readonly deadLetters?: ReadonlyArray<Partial<DeadLetterMessage>>
}
/** Given, when, then, for a projection; no test runner is imported. */
export interface ProjectionTest<in Ev, W, E, R> {
  /** Values of a lookup topic, or rows that a table has before the events. */
  given<T extends Compacted<string, any> | Table.Any>(
    target: T,
    values: ReadonlyArray<ValuesOf<T>>
  ): ProjectionTest<Ev, W, E, R>
  /** Events, as one batch. They pass through their topic's schemas, as events of the log do. */
  when(events: ReadonlyArray<Ev>): ProjectionTest<Ev, W, E, R>
  /**
   * Events whose subjects were erased before they are processed, as one batch: their personal fields have the redacted values, and handlers find
   * `meta.erased`. The rest of an event is as given.
   */
  whenErased(events: ReadonlyArray<Ev>): ProjectionTest<Ev, W, E, R>
  /**
   * Sets the clock: what effects see, when events arrive (see `maxAhead`), and the time of events that have none of their own. It
   * moves on with the events' times, after each has arrived. An event that is dated ahead of it moves stream time to it and no further. Unless it is set, effects see the greatest event time so far, and events arrive now.
   */
  at(time: DateTime.DateTime.Input): ProjectionTest<Ev, W, E, R>
  /** No events for so long: the clock moves on, and timers that are due then fire. Stream time does not move, so no event becomes late by it. */
  idle(duration: Duration.Input): ProjectionTest<Ev, W, E, R>
  /**
   * Runs everything and compares. Throws what differs, or the error of the first event that failed. If the handler reads `replaying`, it
   * runs everything a second time as a rebuild does, and throws if that gives other rows.
   */
  then(expected: Expected<W>): void
  /** The same for handlers whose effects are asynchronous. */
  thenEffect(expected: Expected<W>): Effect.Effect<void, E>
}
/** Specifications of projections: given, when, then. */
export const ProjectionTest = {
  /**
   * A specification of a projection. It runs the runner's own code over a store in memory, so events fail here as they do in production.
   * `services` must be given if, and only if, the handler needs some. Using it throws if nothing can run the projection yet.
   *
   * ```ts
   * ProjectionTest.make(departures)
   *   .when([Departed.make({ flight: "LX40", at: 1_700_000_000_000 })])
   *   .then({ departures: [{ flight: "LX40", at: 1_700_000_000_000 }] })
   * ```
   */
  make: <Ev, W extends Writable, E, R>(
    projection: Projection<string, Ev, W, E, R>,
    ...services: [R] extends [never] ? [] : [services: Layer.Layer<R>]
  ): ProjectionTest<Ev, W, E, R> => specification(projection, services[0] as Layer.Layer<any> | undefined, []) as never
}
type Engine = MemoryEngine<unknown, any, any>
/** One step of a specification. */
type Step = (engine: Engine, parks: boolean) => Effect.Effect<void, any, any> | void
const specification = (
  projection: Projection.Any,
  services: Layer.Layer<any> | undefined,
  steps: ReadonlyArray<Step>
): object => {
  const and = (step: Step) => specification(projection, services, [...steps, step])
  const runSteps = Effect.fnUntraced(function* (engine: Engine, expected: Row): Effect.fn.Return<void, any> {
    const clock = clockOf(engine)
    for (const step of steps) {
      const effect = step(engine, expected["deadLetters"] !== undefined)
      if (Effect.isEffect(effect)) yield* Effect.provideService(effect as Effect.Effect<void, any>, Clock.Clock, clock)
      engine.store.timers.fire(engine.nowMs)
    }
  })
  const thenEffect = (expected: Row): Effect.Effect<void, any> =>
    Effect.gen(function* () {
      const engine: Engine = new MemoryEngine(projection)
      yield* runSteps(engine, expected)
      compare(engine, expected)
      if (!engine.hasReadReplaying) return
      const follower: Engine = new MemoryEngine(projection, 1, new MemoryStore(projection, "follower"))
      yield* runSteps(follower, expected)
      sameReplayed(engine, follower)
    }).pipe((effect) => (services === undefined ? effect : Effect.provide(effect, services)))
  const process = (events: ReadonlyArray<unknown>, areErased = false) =>
    and((engine, parks) =>
      parks ? engine.process(events, areErased) : Effect.catchCause(engine.processOrFail(events, areErased), withAdvice)
    )
  return {
    given: (target: Topic.Any, values: ReadonlyArray<object>) => and((engine) => engine.seed(target, values)),
    when: (events: ReadonlyArray<unknown>) => process(events),
    whenErased: (events: ReadonlyArray<unknown>) => process(events, true),
    at: (time: DateTime.DateTime.Input) => {
      const at = Option.getOrUndefined(DateTime.make(time))
      if (at === undefined) throw invalidOption("at", time, "it must be a date; write one such as 2026-01-31T12:00:00Z")
      return and((engine) => {
        engine.nowMs = at.epochMilliseconds
        engine.isClockSet = true
      })
    },
    idle: (duration: Duration.Input) =>
      and((engine) => {
        engine.nowMs += checkedDuration("idle", duration)
      }),
    thenEffect,
    then: (expected: unknown) => {
      // `await spec` would call this with two functions
      if (typeof expected === "function") throw new Error("a specification was awaited; end it with .then({ … })")
      const exit = runNow(thenEffect(expected as Row))
      if (exit === undefined) throw new Error("a handler is asynchronous; run .thenEffect({ … }) instead of .then")
      if (Exit.isFailure(exit)) throw exit.cause.reasons.map((reason: any) => reason.error ?? reason.defect)[0]
    }
  }
}
/** An event that is dated ahead of the clock may only need another clock. */
const withAdvice = (cause: Cause.Cause<unknown>): Effect.Effect<never, unknown> => {
  const error = Cause.squash(cause)
  if (!(error instanceof DatedAhead)) return Effect.failCause(cause)
  return Effect.die(
    new Error(`${error.message}. In a test, set the time at which events arrive with .at(…)`, { cause: error })
  )
}
/** How long a sleep beside other work lasts at most, in the world's time. Work that takes longer loses against any timeout. */
const longestSleepMs = 1_000
/** So often a sleeper lets all others run before it wakes. */
const turnsOfOthers = 32
const { clearTimeout, setTimeout } = globalThis
/**
 * The clock of handlers. Sleeping takes no time, on this clock as well. Only beside other work, which it may be the timeout of, a sleep waits:
 * so long at most that the work can win. Sleepers wake by how long they sleep, so of a timeout and a longer sleep the timeout wins.
 */
const clockOf = (engine: Engine) => {
  const nanos = () => BigInt(Math.floor(engine.nowMs)) * 1_000_000n
  let sleptMs = 0
  const sleepers = new Set<{ readonly untilMs: number }>()
  const wait = (ms: number) =>
    Effect.callback<void>((resume) => {
      const timer = setTimeout(() => resume(Effect.void), Math.min(ms, longestSleepMs))
      return Effect.sync(() => clearTimeout(timer))
    })
  const sleep = Effect.fnUntraced(function* (duration: Duration.Duration) {
    const ms = Duration.toMillis(duration)
    if (ms === Infinity) return yield* Effect.never
    const sleeper = { untilMs: sleptMs + ms }
    sleepers.add(sleeper)
    yield* Effect.gen(function* () {
      // a handler that sleeps in its own fiber waits for nothing else
      if ((yield* Effect.withFiber(Effect.succeed)) !== engine.handlerFiber) yield* wait(ms)
      do {
        for (let turn = 0; turn < turnsOfOthers; turn++) yield* Effect.yieldNowWith(1_000)
      } while ([...sleepers].some(({ untilMs }) => untilMs < sleeper.untilMs))
      sleptMs = Math.max(sleptMs, sleeper.untilMs)
    }).pipe(Effect.ensuring(Effect.sync(() => sleepers.delete(sleeper))))
  })
  return {
    currentTimeMillisUnsafe: () => engine.nowMs,
    currentTimeMillis: Effect.sync(() => engine.nowMs),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: nanos,
    monotonicTimeNanos: Effect.sync(nanos),
    sleep
  } as Clock.Clock
}
const commandOf = ({ aggregate, command, key, stream: id, timer }: SentByTimer): Row => ({
  ...timer,
  key,
  aggregate,
  id,
  command: JSON.parse(command) as Row
})
/** An expected command may leave out fields of its own: they are taken over from the actual one. */
const sameCommands = (what: string, actual: ReadonlyArray<Row>, expected: ReadonlyArray<Row>) =>
  same(
    what,
    actual,
    expected.map((one, i) =>
      one["command"] === undefined ? one : { ...one, command: { ...actual[i]?.["command"], ...one["command"] } }
    ),
    true
  )
const compare = (engine: Engine, { deadLetters, late, published, sent, timers, ...tables }: Row) => {
  // first of all, for an event that was parked explains what else is missing
  if (deadLetters !== undefined) sameDeadLetters(engine, deadLetters)
  const rows = engine.rows()
  for (const [name, expected] of Object.entries(tables)) same(name, rows[name] ?? [], expected, false)
  const messages = Object.keys(published ?? {}).length === 0 ? [] : engine.published()
  for (const [name, expected] of Object.entries(published ?? {})) {
    const values = messages.filter(({ topic }) => topic === name).map(({ value }) => value)
    same(name, values, expected as Array<Row>, true)
  }
  if (sent !== undefined) sameCommands("sent", engine.store.timers.sent.map(commandOf), sent)
  if (timers !== undefined) sameCommands("timers", engine.store.timers.waiting.map(commandOf), timers)
  if (late !== undefined) same("late", engine.late(), late, true)
}
/** Throws if a replay gives other rows, late events or dead letters than live processing. */
const sameReplayed = (live: Engine, follower: Engine) => {
  const changed = "with `replaying`; a handler must not let it change rows"
  const replayed = follower.rows()
  for (const [name, rows] of Object.entries(live.rows())) same(`${name}, ${changed}`, replayed[name]!, rows, false)
  same(`late, ${changed}`, follower.late(), live.late(), true)
  same(`deadLetters, ${changed}`, follower.deadLetters(), live.deadLetters() as ReadonlyArray<Row>, true)
}
/** Compares dead letters. What differs has the first unexpected event's own error as its cause. */
const sameDeadLetters = (engine: Engine, expected: ReadonlyArray<Row>) => {
  const actual = engine.deadLetters()
  const other = actual.findIndex((deadLetter, i) => !(i < expected.length && matches(deadLetter, expected[i])))
  const cause = engine.store.deadLetters[other]?.cause
  same("deadLetters", actual, expected, true, cause && { cause: Cause.squash(cause) })
}
