// Prepares a server that listens for its first requests.
import * as Effect from "effect/Effect"

/** When a server begins to prepare for first requests, and the pause between preparations. Milliseconds. */
const preparing = { afterMs: 2_000, pauseMs: 100 }
/** Does what the first requests would wait for, each in a turn of its own of the event loop: together they hold it up for 100 ms and more. */
export const prepare = Effect.fnUntraced(function* (preparations: ReadonlyArray<() => unknown>) {
  yield* Effect.sleep(preparing.afterMs)
  for (const preparation of preparations) {
    yield* Effect.ignore(Effect.tryPromise(async () => preparation()))
    yield* Effect.sleep(preparing.pauseMs)
  }
})
