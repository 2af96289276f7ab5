// Waiting in tests for what is to come about; a test's own limit ends it.
import * as Effect from "effect/Effect"

/** Waits for a condition. */
export const until = (done: () => boolean) =>
  Effect.gen(function* () {
    while (!done()) yield* Effect.sleep(10)
  })
