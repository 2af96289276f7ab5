// Keeps a relay running: opens its target in a scope of its own, and opens it again after whatever ended it. So no relay ends another one,
// a projection or the process.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { describeError } from "../dead-letter/event-failure.ts"
import * as Relay from "./relay.ts"
import type { RelayError, RelayTarget } from "./target.ts"

/** A relay that opens its target by itself. */
export interface SupervisedRelay extends Pick<RelayTarget, "name" | "lag" | "signal"> {
  /** Publishes until it is interrupted. Never fails. */
  readonly run: Effect.Effect<never>
}
/** How a relay is kept running. Times are in milliseconds. */
export interface SupervisionOptions {
  /** Called when the relay ended: why, and when it is opened again at the latest. */
  readonly ended: (reason: string, againMs: number) => void
  /** The wait before the first further attempt; it doubles up to a minute. Default 1,000. */
  readonly firstMs?: number
}

const mostMs = 60_000

/**
 * Runs an effect that should not end, again after every failure and defect, with waits that double up to a minute. After it ran for a minute
 * they begin again with the first one. `what` is its name in the log.
 */
export const again = <E>(
  what: string,
  effect: Effect.Effect<never, E>,
  { ended, firstMs = 1_000 }: SupervisionOptions
): Effect.Effect<never> =>
  Effect.gen(function* () {
    let waitMs = firstMs
    while (true) {
      const began = performance.now()
      const cause = yield* Effect.flip(Effect.sandbox(effect))
      if (performance.now() - began > mostMs) waitMs = firstMs
      const reason = describeError(Cause.squash(cause)).message
      ended(reason, waitMs)
      yield* Effect.logError(`${what} ended: ${reason}; it is started again in ${waitMs} ms`)
      yield* Effect.sleep(waitMs)
      waitMs = Math.min(waitMs * 2, mostMs)
    }
  })

/** A relay that opens its target with `open` in a scope of its own, again after every failure. */
export const supervise = (
  name: string,
  open: Effect.Effect<RelayTarget, RelayError, Scope.Scope>,
  lag: RelayTarget["lag"],
  options: SupervisionOptions
): SupervisedRelay => {
  let current: RelayTarget | undefined
  const once = Effect.gen(function* () {
    const target = yield* open
    yield* Effect.acquireRelease(
      Effect.sync(() => (current = target)),
      () => Effect.sync(() => (current = undefined))
    )
    return yield* Relay.run(target)
  })
  return {
    name,
    lag,
    // a commit without a notification is found by polling
    signal: () => current?.signal(),
    run: again(`the relay to ${name}`, Effect.scoped(once), options)
  }
}
