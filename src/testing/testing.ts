// The test kit: given, when, then for projections and aggregates, with a clock that tests hold. No servers, and no test runner is imported.
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import type * as Layer from "effect/Layer"
import type { Aggregate, Rejection } from "../model/aggregate.ts"
import type { DeadLetterMessage } from "../model/dead-letter-topic.ts"
import { Driver } from "../runner/in-memory.ts"
import { millis, type One, type Simplify } from "../model/fields.ts"
import type { Writable } from "../model/handler.ts"
import type { Projection, Rows } from "../model/projection.ts"
import type { Table } from "../model/read-model.ts"
import type { Row } from "../model/recorder.ts"
import type { Compacted, Topic } from "../model/topic.ts"
import type { Window } from "../model/window.ts"

type ValuesOf<T> = T extends { readonly Row: infer R } ? R : T extends Topic<string, infer V> ? V : never
type PublishedTopic<W> = Extract<W, Topic.Any> | (W extends Window<string, object, never, infer P> ? P : never)
type PublishedValues<T> = {
  readonly [X in T as X extends Topic<infer N, any> ? N : never]?: ReadonlyArray<Partial<Topic.Value<X>>>
}
/** Rows by table, values by topic. Columns left out are not compared; tables and topics left out are not looked at. */
export type Expected<W> = { readonly [T in keyof Rows<W>]?: ReadonlyArray<Partial<One<Rows<W>[T]>>> } & {
  readonly published?: Simplify<PublishedValues<PublishedTopic<W>>>
  readonly late?: ReadonlyArray<{
    readonly window?: string
    readonly window_size?: string
    readonly window_start?: number
  }>
  /** Events that failed. Where this is asked for they are parked, as under the runner; else the first one's error is thrown. */
  readonly deadLetters?: ReadonlyArray<Partial<DeadLetterMessage>>
}
/** Given, when, then, for a projection; no test runner is imported. */
export interface ProjectionTest<in Ev, W, E, R> {
  /** Values of a compacted topic, or rows that are there before. */
  given<T extends Compacted<string, any> | Table.Any>(
    target: T,
    values: ReadonlyArray<ValuesOf<T>>
  ): ProjectionTest<Ev, W, E, R>
  /** Events, as one batch. */
  when(events: ReadonlyArray<Ev>): ProjectionTest<Ev, W, E, R>
  /** Sets the clock that effects see and that events without a time of their own get. */
  at(time: DateTime.DateTime.Input): ProjectionTest<Ev, W, E, R>
  /** No events for so long: stream time moves on and windows close. */
  idle(duration: Duration.Input): ProjectionTest<Ev, W, E, R>
  /** Runs it all and compares. Throws what differs, or the handler's error. */
  then(expected: Expected<W>): void
  /** The same for handlers that wait. */
  thenEffect(expected: Expected<W>): Effect.Effect<void, E>
}
export const ProjectionTest = {
  /** `services` is asked for if, and only if, the handler needs some. */
  make: <Ev, W extends Writable, E, R>(
    projection: Projection<string, Ev, W, E, R>,
    ...services: [R] extends [never] ? [] : [services: Layer.Layer<R>]
  ): ProjectionTest<Ev, W, E, R> => specification(projection, services[0] as Layer.Layer<any> | undefined, []) as never
}
const specification = (
  projection: Projection.Any,
  services: Layer.Layer<any> | undefined,
  steps: ReadonlyArray<(driver: Driver<any, any, any>) => unknown>
): object => {
  const and = (step: (driver: Driver<any, any, any>) => unknown) =>
    specification(projection, services, [...steps, step])
  const thenEffect = (expected: Row): Effect.Effect<void, any> =>
    Effect.gen(function* () {
      const driver = new Driver(projection, { parks: expected["deadLetters"] !== undefined })
      for (const step of steps) {
        const effect = step(driver)
        if (Effect.isEffect(effect))
          yield* Effect.provideService(effect as Effect.Effect<void, any>, Clock.Clock, clockOf(driver))
      }
      compare(driver, expected)
    }).pipe((effect) => (services === undefined ? effect : Effect.provide(effect, services)))
  return {
    given: (target: Topic.Any, values: ReadonlyArray<object>) => and((driver) => driver.seed(target, values)),
    when: (events: ReadonlyArray<unknown>) => and((driver) => driver.batch(events)),
    at: (time: DateTime.DateTime.Input) =>
      and((driver) => {
        driver.nowMs = DateTime.makeUnsafe(time).epochMilliseconds
      }),
    idle: (duration: Duration.Input) => and((driver) => driver.idle(millis(duration))),
    thenEffect,
    then: (expected: unknown) => {
      // `await spec` would call this with two functions
      if (typeof expected === "function") throw new Error("a specification was awaited; end it with .then({ … })")
      const exit = Effect.runSyncExit(thenEffect(expected as Row))
      if (Exit.isSuccess(exit)) return
      const failure = exit.cause.reasons.map((reason: any) => reason.error ?? reason.defect)[0]
      throw failure?._tag === "AsyncFiberError"
        ? new Error("a handler waits; run .thenEffect({ … }) instead of .then")
        : failure
    }
  }
}
const clockOf = (driver: Driver<any, any, any>): Clock.Clock => {
  const nanos = () => BigInt(driver.nowMs) * 1_000_000n
  return {
    currentTimeMillisUnsafe: () => driver.nowMs,
    currentTimeMillis: Effect.sync(() => driver.nowMs),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: nanos,
    monotonicTimeNanos: Effect.sync(nanos),
    sleep: () => Effect.void
  } as Clock.Clock
}
const matches = (actual: any, expected: any) =>
  Object.entries(expected).every(([column, value]) => Equal.equals(actual?.[column], value))
const compare = (driver: Driver<any, any, any>, { deadLetters, late, published, ...tables }: Row) => {
  const rows = driver.rows()
  for (const [name, expected] of Object.entries(tables)) same(name, rows[name] ?? [], expected, false)
  for (const [name, expected] of Object.entries(published ?? {})) {
    same(
      name,
      driver.published.filter(({ topic }) => topic === name).map(({ value }) => value),
      expected as Array<Row>,
      true
    )
  }
  if (late !== undefined) same("late", driver.late, late, true)
  if (deadLetters !== undefined) same("deadLetters", driver.dead, deadLetters, true)
}
const same = (name: string, actual: ReadonlyArray<Row>, expected: ReadonlyArray<Row>, ordered: boolean) => {
  const fits = ordered ? expected.every((row, i) => matches(actual[i], row)) : pairUp(actual, expected)
  if (fits && actual.length === expected.length) return
  const value = (_: string, inner: unknown) => (typeof inner === "bigint" ? `${inner}n` : inner)
  const text = (rows: ReadonlyArray<Row>) =>
    rows.map((row) => `\n    ${JSON.stringify(row, value)}`).join("") || "\n    nothing"
  // test runners draw a diff from `actual` and `expected`
  throw Object.assign(new Error(`${name}\n  expected${text(expected)}\n  was${text(actual)}`), { actual, expected })
}
/** Whether each expected row has an actual one to itself. One that took another's only choice gives way, if it has a second. */
const pairUp = (actual: ReadonlyArray<Row>, expected: ReadonlyArray<Row>): boolean => {
  const taken = new Map<number, Row>()
  const place = (row: Row, tried: Set<number>): boolean =>
    actual.some((candidate, i) => {
      if (tried.has(i) || !matches(candidate, row)) return false
      tried.add(i)
      const other = taken.get(i)
      if (other !== undefined && !place(other, tried)) return false
      taken.set(i, row)
      return true
    })
  return expected.every((row) => place(row, new Set()))
}

/** Given, when, then, for an aggregate. */
export interface AggregateTest<in Ev, in Command, out Rejected extends Rejection> {
  given(events: ReadonlyArray<Ev>): AggregateTest<Ev, Command, Rejected>
  when(command: Command): AggregateTest<Ev, Command, Rejected>
  then(events: ReadonlyArray<Ev>): void
  thenRejected<Tag extends Rejected["_tag"]>(
    tag: Tag,
    fields?: Partial<Extract<Rejected, { readonly _tag: Tag }>>
  ): void
}
const undecided = "no command was given; add .when({ … }) before .then"
export const AggregateTest = {
  make: <S, Ev, Command, Rejected extends Rejection>(
    aggregate: Aggregate<string, S, Ev, Command, Rejected>,
    history: ReadonlyArray<Ev> = [],
    decision?: ReadonlyArray<Ev> | Rejected
  ): AggregateTest<Ev, Command, Rejected> => ({
    given: (events) => AggregateTest.make(aggregate, [...history, ...events]),
    when: (command) => {
      const decided = aggregate.decide(history.reduce(aggregate.evolve, aggregate.initial), command)
      return AggregateTest.make(
        aggregate,
        decided instanceof Error ? history : [...history, ...(decided as ReadonlyArray<Ev>)],
        decided
      )
    },
    then: (events) => {
      if (decision === undefined) throw new Error(undecided)
      if (decision instanceof Error) throw new Error(`rejected: ${JSON.stringify(decision)}`, { cause: decision })
      same(aggregate.name, decision as ReadonlyArray<Row>, events as ReadonlyArray<Row>, true)
    },
    thenRejected: (tag, fields = {}) => {
      if (decision === undefined) throw new Error(undecided)
      const rejected =
        decision instanceof Error ? [{ ...decision, _tag: decision._tag }] : (decision as ReadonlyArray<Row>)
      same(aggregate.name, rejected, [{ ...fields, _tag: tag }], true)
    }
  })
}
