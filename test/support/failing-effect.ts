// An Effect of a handler that fails some times before it succeeds.
import * as Effect from "effect/Effect"

/** An Effect that fails so often, or dies, and each time records something that its failure must undo. */
export const failing = ({ dies, times }: { readonly times: number; readonly dies: boolean }, record: () => void) => {
  let calls = 0
  return Effect.suspend(() => {
    record()
    if (calls++ >= times) return Effect.void
    const error = new TypeError(`call ${calls}`)
    return dies ? Effect.die(error) : Effect.fail(error)
  })
}
