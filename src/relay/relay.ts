// The relay: the loop that takes what commits published from the outbox to a target, in order, once. It knows ports only.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type { StreamHalt, RelayError, RelayTarget } from "./target.ts"

/** How a relay runs. */
export interface RelayOptions {
  /** How long it waits for a sign before it looks by itself, in milliseconds. Default 500. */
  readonly pollMs?: number
}

const backoff = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")]).pipe(
  Schedule.jittered,
  Schedule.setInputType<RelayError>(),
  Schedule.while(({ input }) => input.retryable)
)
const persist = <A>(effect: Effect.Effect<A, RelayError>): Effect.Effect<A, RelayError> =>
  effect.pipe(
    Effect.tapError((error) => (error.retryable ? Effect.logWarning(`${error.message}; trying again`) : Effect.void)),
    Effect.retry(backoff)
  )
const placeOf = (halt: StreamHalt) => `${halt.projection} ${halt.source}/${halt.partition}`

/**
 * Ships until it is interrupted. Waits and tries again after a failure that is retryable, up to 1 s between two tries, and ends
 * with any other. What halts or goes on again is logged once.
 */
export const run = Effect.fnUntraced(function* (
  target: RelayTarget,
  options: RelayOptions = {}
): Effect.fn.Return<never, RelayError> {
  const pause = Effect.sleep(options.pollMs ?? 500)
  let standing = new Map<string, string>()
  while (true) {
    const { halted, more } = yield* persist(target.publish)
    const now = new Map(halted.map((halt) => [placeOf(halt), halt.reason]))
    for (const [place, reason] of now) {
      if (standing.get(place) !== reason) yield* Effect.logError(`relay to ${target.name}: ${place} halted: ${reason}`)
    }
    for (const place of standing.keys()) {
      if (!now.has(place)) yield* Effect.logInfo(`relay to ${target.name}: ${place} goes on`)
    }
    standing = now
    if (!more) yield* Effect.raceFirst(target.wait, pause)
  }
})

/** Runs `collect`, which deletes a bounded chunk of shipped segments and returns how many, over and over until it is interrupted. */
export const collect = Effect.fnUntraced(function* (
  collect: Effect.Effect<number, RelayError>,
  options: { readonly everyMs?: number } = {}
): Effect.fn.Return<never, RelayError> {
  while (true) {
    const deleted = yield* persist(collect)
    if (deleted === 0) yield* Effect.sleep(options.everyMs ?? 60_000)
  }
})
