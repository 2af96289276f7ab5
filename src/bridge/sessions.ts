// Keeps a bridge stream going: runs session after session, each from the committed position, with pauses after failures.
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type { Availability } from "./availability.ts"
import type { BridgeError } from "./errors.ts"
import type { StreamState } from "./status.ts"
import type { ReadError } from "../log/log.ts"

/** Everything that a session can fail with. */
export type StreamError = BridgeError | ReadError

const pauseMs = (failures: number) => Math.min(100 * 2 ** failures, 10_000)
/** After a session of this length the next failure counts as the first one again. */
const soundMs = 30_000
const measureLagMs = 1_000
/** A stream that runs once fails after so long without success. */
const giveUpMs = 30_000

/** How a stream treats failures. */
export interface SessionPolicy {
  /** Fail if waiting does not help, or did not help for half a minute. Otherwise the stream tries forever. */
  readonly once: boolean
  /** Whether the failed session found out what the next one must do differently, so that there is no need for a pause. Asked once a failure. */
  readonly hasLearned?: () => boolean
  /** The present lag, which can be measured whether or not a session is running; undefined if it is unknown or reported by the session. */
  readonly lag: Effect.Effect<number | undefined>
}
/**
 * Runs sessions until one succeeds. After a failure a new session starts from the committed position, after a pause that grows to 10 s and ends
 * early if a side is available again. Updates the stream's lag meanwhile.
 */
export const runSessions = <E extends StreamError>(
  availability: Availability,
  state: StreamState,
  session: Effect.Effect<void, E, Scope.Scope>,
  policy: SessionPolicy
): Effect.Effect<void, E> => {
  const measuring = policy.lag.pipe(
    Effect.flatMap((lag) => (lag === undefined ? Effect.void : state.setLag(lag))),
    Effect.andThen(Effect.sync(() => state.recoverIfIdle())),
    Effect.andThen(Effect.sleep(measureLagMs)),
    Effect.forever
  )
  return Effect.raceFirst(repeat(availability, state, session, policy), measuring).pipe(
    Effect.onInterrupt(() => state.release())
  )
}
const repeat = Effect.fnUntraced(function* <E extends StreamError>(
  availability: Availability,
  state: StreamState,
  session: Effect.Effect<void, E, Scope.Scope>,
  { hasLearned = () => false, once }: SessionPolicy
): Effect.fn.Return<void, E> {
  let failingSince = 0
  for (let failures = 0; ;) {
    const started = yield* Clock.currentTimeMillis
    const exit = yield* Effect.exit(Effect.scoped(session))
    state.idleSince = undefined
    if (Exit.isSuccess(exit)) return
    const error = Cause.findErrorOption(exit.cause)
    // interrupted, or a defect
    if (error._tag === "None") return yield* exit
    if (hasLearned()) continue
    const { message } = error.value
    const retryable = "retryable" in error.value && error.value.retryable === true
    const now = yield* Clock.currentTimeMillis
    if (state.failing === undefined) failingSince = now
    if (once && (!retryable || now - failingSince > giveUpMs)) return yield* exit
    yield* state.countFailure()
    if (now - started > soundMs) failures = 0
    const isNew = state.markFailed(message, retryable)
    if (isNew && !retryable) yield* Effect.logError(`bridge: ${state.name} halted: ${message}`)
    // an unavailable side has been logged once, for all streams
    else if (isNew && availability.unavailable.length === 0)
      yield* Effect.logWarning(`bridge: ${state.name}: ${message}; trying again`)
    yield* availability.sleep(pauseMs(failures++))
  }
})
