// Whether the two systems are there: asks both over and over, says when one goes and when it is back, and wakes what waits for that. It mends nothing.
import * as Effect from "effect/Effect"
import type { BridgeError } from "./errors.ts"
import { type Side, sideNames } from "./topic-pattern.ts"

/** How often each is asked. */
const askMs = 1_000
/** Who answers nothing for so long is away. */
const silentMs = 10_000

/** A system that does not answer. */
export interface UnavailableSide {
  readonly side: Side
  readonly reason: string
  /** Epoch milliseconds. */
  readonly since: number
}

/** What is known of both systems. Until `watch` runs, and where it does not, both count as there. */
export class Availability {
  private readonly gone = new Map<Side, UnavailableSide>()
  private readonly resting = new Set<() => void>()

  /** Those that are away. */
  get away(): ReadonlyArray<UnavailableSide> {
    return [...this.gone.values()]
  }
  /** Waits so long, but no longer than until a system is back that was away. */
  readonly rest = (ms: number): Effect.Effect<void> =>
    Effect.raceFirst(
      Effect.sleep(ms),
      Effect.callback<void>((resume) => {
        const wake = () => resume(Effect.void)
        this.resting.add(wake)
        return Effect.sync(() => this.resting.delete(wake))
      })
    )
  /** Asks one of them for ever. */
  readonly watch = Effect.fnUntraced(function* (
    this: Availability,
    side: Side,
    answers: Effect.Effect<void, BridgeError>
  ): Effect.fn.Return<never> {
    const ask = answers.pipe(
      Effect.as(undefined),
      Effect.catch(({ reason }) => Effect.succeed(reason)),
      Effect.timeoutOrElse({
        duration: silentMs,
        orElse: () => Effect.succeed(`it answers nothing for ${silentMs / 1_000} s`)
      })
    )
    while (true) {
      const reason = yield* ask
      yield* reason === undefined ? this.found(side) : this.missed(side, reason)
      yield* Effect.sleep(askMs)
    }
  })

  private readonly missed = (side: Side, reason: string): Effect.Effect<void> => {
    const before = this.gone.get(side)
    this.gone.set(side, { side, reason, since: before?.since ?? Date.now() })
    return before?.reason === reason
      ? Effect.void
      : Effect.logWarning(`bridge: ${sideNames[side]} is away: ${reason}; waiting until it is back`)
  }
  private readonly found = (side: Side): Effect.Effect<void> => {
    const before = this.gone.get(side)
    if (before === undefined) return Effect.void
    this.gone.delete(side)
    for (const wake of this.resting) wake()
    const seconds = Math.round((Date.now() - before.since) / 1_000)
    return Effect.logInfo(`bridge: ${sideNames[side]} is back after ${seconds} s; going on`)
  }
}
