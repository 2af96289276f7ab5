// The relay: the loop that publishes the outbox to a target, each message once and in order. It depends on ports only.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type { StreamHalt, RelayError, RelayTarget } from "./target.ts"

/** How a relay runs. */
export interface RelayOptions {
  /** The longest pause between two rounds, in milliseconds, if no commit is signalled. Default 500. */
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
const labelOf = (halt: StreamHalt) => `${halt.projection} ${halt.source}/${halt.partition}`

/**
 * Publishes until it is interrupted. Tries again after a `retryable` failure, with pauses of up to 1 s, and fails with any other. Logs once
 * when a stream halts or has to wait, and once when it continues.
 */
export const run = Effect.fnUntraced(function* (
  target: RelayTarget,
  options: RelayOptions = {}
): Effect.fn.Return<never, RelayError> {
  const pause = Effect.sleep(options.pollMs ?? 500)
  let before = new Map<string, string>()
  while (true) {
    const { halted, more, waiting = [] } = yield* persist(target.publish)
    const now = new Map<string, string>()
    for (const halt of waiting) now.set(labelOf(halt), `waits and is tried again: ${halt.reason}`)
    const isWaiting = new Set(now.keys())
    for (const halt of halted) now.set(labelOf(halt), `halted: ${halt.reason}`)
    for (const [stream, text] of now) {
      if (before.get(stream) === text) continue
      const line = `relay to ${target.name}: stream ${stream} ${text}`
      yield* isWaiting.has(stream) ? Effect.logWarning(line) : Effect.logError(line)
    }
    for (const stream of before.keys()) {
      if (!now.has(stream)) yield* Effect.logInfo(`relay to ${target.name}: stream ${stream} continues`)
    }
    before = now
    if (!more) yield* Effect.raceFirst(target.wait, pause)
  }
})

/**
 * Runs `collect` until it is interrupted. `collect` deletes a limited number of published segments and returns how many; after 0 there is a
 * pause of `everyMs`, by default a minute. Fails with the first failure that is not `retryable`.
 */
export const collect = Effect.fnUntraced(function* (
  collect: Effect.Effect<number, RelayError>,
  options: { readonly everyMs?: number } = {}
): Effect.fn.Return<never, RelayError> {
  while (true) {
    const deleted = yield* persist(collect)
    if (deleted === 0) yield* Effect.sleep(options.everyMs ?? 60_000)
  }
})
