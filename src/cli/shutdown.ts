// An orderly end within bounded time: what is under way is finished or dropped, and what hangs is left to the end of the process.
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"

/** How long loops may take to finish or drop what is under way, in milliseconds: a commit, or a transaction that was begun. */
const loopsMs = 4_000
/** How long servers and connections may take to close after that, in milliseconds. */
const closeMs = 6_000

/** Waits for an end, whatever it is, for so long and no longer. Nothing interrupts the waiting; what does not end goes on behind. */
const upTo = Effect.fnUntraced(function* (millis: number, end: Effect.Effect<unknown, unknown>) {
  const over = yield* Deferred.make<void>()
  const done = Effect.asVoid(Deferred.succeed(over, undefined))
  yield* Effect.forkDetach(Effect.ensuring(end, done))
  const timer = yield* Effect.forkDetach(Effect.interruptible(Effect.andThen(Effect.sleep(millis), done)))
  yield* Deferred.await(over)
  yield* Fiber.interrupt(timer)
}, Effect.uninterruptible)

/**
 * Runs with a scope of its own. When it ends, or is interrupted, its work and then its scope are given some seconds to end. A crash at any
 * point is safe, so nothing is lost where a broker or a database that hangs makes that too short: whoever goes on finds it as after a crash.
 */
export const drained = <A, E, R>(
  run: Effect.Effect<A, E, R | Scope.Scope>
): Effect.Effect<A, E, Exclude<R, Scope.Scope>> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const fiber = yield* Effect.forkDetach(Effect.interruptible(Scope.provide(run, scope)))
      const exit = yield* Effect.exit(restore(Fiber.join(fiber)))
      yield* upTo(loopsMs, Fiber.interrupt(fiber))
      yield* upTo(closeMs, Scope.close(scope, Exit.void))
      return yield* exit
    })
  ) as Effect.Effect<A, E, Exclude<R, Scope.Scope>>
