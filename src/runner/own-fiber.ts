// Keeps an interruption that code asks for of its own fiber from ending more than that code.
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"

/** Runs an Effect in a fiber of its own. If it interrupts its fiber, it fails with that interruption, and the fiber of the caller goes on. */
export const inOwnFiber = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(Effect.forkChild(effect, { startImmediately: true }), (fiber) =>
    Effect.onInterrupt(Effect.flatten(Fiber.await(fiber)), () => Fiber.interrupt(fiber))
  )
