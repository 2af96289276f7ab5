// Repeats what failed because PostgreSQL, or a connection to it, was away for a moment.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"

/** Whether the same call may succeed later by itself, or its reply was lost. `inDoubt` failures may only be repeated where the call may be made twice. */
export const mayPass = (error: unknown): boolean => {
  const { _tag, inDoubt, retryable } = (error ?? {}) as Partial<Record<string, unknown>>
  // a state directory that another process uses does not come back by itself
  return _tag !== "EmbeddedError" && (retryable === true || inDoubt === true)
}

/** Whether the same call may succeed later by itself, and has changed nothing: PostgreSQL rolled it back, or was not reached. */
export const wasUndone = (error: unknown): boolean =>
  mayPass(error) && (error as { inDoubt?: unknown }).inDoubt !== true

const waits = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("5 seconds")]).pipe(Schedule.jittered)

/** How long, and what happens meanwhile. */
export interface RetryingOptions<E> {
  /** After so long without success the last failure is returned, in milliseconds. */
  readonly forMs: number
  /** Called after each failure that is followed by another try. */
  readonly onRetry?: (error: E) => Effect.Effect<void>
  /** Which failures are followed by another try. Default: those that may pass, also where the call may have been made. */
  readonly while?: (error: unknown) => boolean
}
/** Repeats something while it fails with a failure that may pass, with growing waits of at most 5 seconds. It may be done twice, unless `while` says otherwise. */
export const retrying = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  { forMs, onRetry = () => Effect.void, while: isRetried = mayPass }: RetryingOptions<E>
): Effect.Effect<A, E, R> =>
  // nearly always the first try succeeds, and needs no schedule
  effect.pipe(
    Effect.catch((first) => {
      let tries = 0
      return Effect.suspend(() => (tries++ === 0 ? Effect.fail(first) : effect)).pipe(
        Effect.tapError((error) => (isRetried(error) ? onRetry(error) : Effect.void)),
        Effect.retry({ schedule: waits.pipe(Schedule.upTo({ duration: forMs })), while: isRetried })
      )
    })
  )
