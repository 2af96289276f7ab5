// Waits in tests for a condition; the timeout of the test limits it.
import * as Effect from "effect/Effect"

/** Waits until the condition holds. */
export const until = (done: () => boolean) =>
  Effect.gen(function* () {
    while (!done()) yield* Effect.sleep(10)
  })
