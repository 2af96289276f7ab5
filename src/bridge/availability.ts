// Whether Kafka and Pulsar answer: asks both every second, logs when one becomes unavailable and when it is back, and then wakes what waits.
import * as Effect from "effect/Effect"
import type { BridgeError } from "./errors.ts"
import { type Side, sideNames } from "./topic-pattern.ts"

const pingEveryMs = 1_000
/** A side that has not answered for so long is unavailable. */
const pingTimeoutMs = 10_000

/** A side that does not answer. */
export interface UnavailableSide {
  readonly side: Side
  readonly reason: string
  /** Epoch milliseconds. */
  readonly since: number
}

/** Which sides answer. Both count as available until `watch` has found otherwise. */
export class Availability {
  private readonly missing = new Map<Side, UnavailableSide>()
  private readonly sleepers = new Set<() => void>()

  /** The sides that do not answer now. */
  get unavailable(): ReadonlyArray<UnavailableSide> {
    return [...this.missing.values()]
  }
  /** Sleeps, but only until a side is back that was unavailable. */
  readonly sleep = (ms: number): Effect.Effect<void> =>
    Effect.raceFirst(
      Effect.sleep(ms),
      Effect.callback<void>((resume) => {
        const wake = () => resume(Effect.void)
        this.sleepers.add(wake)
        return Effect.sync(() => this.sleepers.delete(wake))
      })
    )
  /** Asks one side forever. */
  readonly watch = Effect.fnUntraced(function* (
    this: Availability,
    side: Side,
    ping: Effect.Effect<void, BridgeError>
  ): Effect.fn.Return<never> {
    const problem = ping.pipe(
      Effect.as(undefined),
      Effect.catch(({ reason }) => Effect.succeed(reason)),
      Effect.timeoutOrElse({
        duration: pingTimeoutMs,
        orElse: () => Effect.succeed(`it has not answered for ${pingTimeoutMs / 1_000} s`)
      })
    )
    while (true) {
      const reason = yield* problem
      yield* reason === undefined ? this.found(side) : this.missed(side, reason)
      yield* Effect.sleep(pingEveryMs)
    }
  })

  private readonly missed = (side: Side, reason: string): Effect.Effect<void> => {
    const before = this.missing.get(side)
    this.missing.set(side, { side, reason, since: before?.since ?? Date.now() })
    return before?.reason === reason
      ? Effect.void
      : Effect.logWarning(`bridge: ${sideNames[side]} is unavailable: ${reason}; waiting until it answers`)
  }
  private readonly found = (side: Side): Effect.Effect<void> => {
    const before = this.missing.get(side)
    if (before === undefined) return Effect.void
    this.missing.delete(side)
    for (const wake of this.sleepers) wake()
    const seconds = Math.round((Date.now() - before.since) / 1_000)
    return Effect.logInfo(`bridge: ${sideNames[side]} answers again after ${seconds} s; continuing`)
  }
}
