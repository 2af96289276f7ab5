// Waits for a batch for a limited time, without giving up the wait itself.
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"

/**
 * A function that takes from a reader, and returns undefined if nothing came within so many milliseconds (undefined: without a limit). The
 * next call then goes on with the same take: interrupting it could lose a batch that was just read.
 */
export const takerOf = <A, E, R>(take: Effect.Effect<A, E, R>) => {
  let taking: Fiber.Fiber<A, E> | undefined
  return Effect.fnUntraced(function* (withinMs: number | undefined): Effect.fn.Return<A | undefined, E, R> {
    if (taking === undefined && withinMs === undefined) return yield* take
    taking ??= yield* Effect.forkChild(take)
    const exit = yield* withinMs === undefined
      ? Fiber.await(taking)
      : Effect.raceFirst(Fiber.await(taking), Effect.as(Effect.sleep(withinMs), undefined))
    if (exit === undefined) return undefined
    taking = undefined
    return yield* exit
  })
}
