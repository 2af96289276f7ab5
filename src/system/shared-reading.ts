// Something that is read for many callers: once at a time, not more often than it costs, and never waited for without end.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"

/** What is known. */
export interface Reading<A> {
  /** What the last reading that succeeded returned; undefined if none has. */
  readonly value: A | undefined
  /** How old `value` is, in milliseconds. */
  readonly ageMs: number
  /** Why the last reading failed, or that it has not answered; undefined if it succeeded. */
  readonly failure: string | undefined
}
/** How often to read, and how long to wait. Milliseconds. */
export interface ReadingOptions {
  /** A value of this age is read again. After a reading that took long it is ten times that, so that reading takes a tenth of the time at most. */
  readonly freshMs: number
  /** How much earlier than that it may be read again, altogether, in milliseconds: what a pause saves up, so that the first readings after it follow one another at once. Default 0. */
  readonly aheadMs?: number
  /** How long a caller waits for a reading that is under way; then it gets what was known before. */
  readonly patienceMs: number
  /** A steady clock in milliseconds. Default `performance.now`. */
  readonly now?: () => number
}

/** A reading that callers share. A reading under way ends with the scope. */
export const makeSharedReading = Effect.fnUntraced(function* <A, E>(
  read: Effect.Effect<A, E>,
  { aheadMs = 0, freshMs, now: clock = () => performance.now(), patienceMs }: ReadingOptions
): Effect.fn.Return<Effect.Effect<Reading<A>>, never, Scope.Scope> {
  const scope = yield* Effect.scope
  let value: A | undefined
  let readAt = -Infinity
  let failure: string | undefined
  let running: Fiber.Fiber<void> | undefined
  let startedAt = 0
  let nextAt = -Infinity
  /** When as much time has passed as the readings so far call for. */
  let paidAt = -Infinity
  const once = Effect.gen(function* () {
    const exit = yield* Effect.exit(read)
    const now = clock()
    if (Exit.isSuccess(exit)) {
      value = exit.value
      readAt = now
      failure = undefined
    } else {
      const error = Cause.squash(exit.cause)
      failure = error instanceof Error && error.message !== "" ? error.message : String(error)
    }
    paidAt = Math.max(paidAt, now) + 10 * (now - startedAt)
    nextAt = Math.max(now + freshMs, paidAt - aheadMs)
    running = undefined
  })
  return Effect.gen(function* () {
    if (running === undefined && clock() >= nextAt) {
      startedAt = clock()
      running = yield* Effect.forkIn(once, scope)
    }
    if (running !== undefined) yield* Effect.timeoutOption(Fiber.await(running), patienceMs)
    const now = clock()
    const isSlow = running !== undefined && now - startedAt >= patienceMs
    return {
      value,
      ageMs: now - readAt,
      failure: isSlow ? `no answer for ${Math.round((now - startedAt) / 1000)} s` : failure
    }
  })
})
