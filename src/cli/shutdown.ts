// An orderly shutdown within bounded time: work under way is finished or dropped, and what hangs is left to the exit of the process.
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"

/** How long loops may take to finish or drop a commit or a transaction that is under way, in milliseconds. */
const loopsMs = 4_000
/** How long servers and connections may then take to close, in milliseconds. */
const closeMs = 6_000

/** Waits until an effect has ended in any way, but at most this long. The effect is not interrupted then: it continues in the background. */
const waitAtMost = Effect.fnUntraced(function* (millis: number, effect: Effect.Effect<unknown, unknown>) {
  const over = yield* Deferred.make<void>()
  const done = Effect.asVoid(Deferred.succeed(over, undefined))
  yield* Effect.forkDetach(Effect.ensuring(effect, done))
  const timer = yield* Effect.forkDetach(Effect.interruptible(Effect.andThen(Effect.sleep(millis), done)))
  yield* Deferred.await(over)
  yield* Fiber.interrupt(timer)
}, Effect.uninterruptible)

/**
 * Runs an effect with a scope of its own. When the effect ends or is interrupted, first its fibers and then its scope get some seconds to end.
 * That may be too short if a broker or a database hangs, but nothing is lost: the next process finds the state that a crash would have left,
 * and a crash is safe at any point.
 */
export const drained = <A, E, R>(
  run: Effect.Effect<A, E, R | Scope.Scope>
): Effect.Effect<A, E, Exclude<R, Scope.Scope>> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const fiber = yield* Effect.forkDetach(Effect.interruptible(Scope.provide(run, scope)))
      const exit = yield* Effect.exit(restore(Fiber.join(fiber)))
      yield* waitAtMost(loopsMs, Fiber.interrupt(fiber))
      yield* waitAtMost(closeMs, Scope.close(scope, Exit.void))
      return yield* exit
    })
  ) as Effect.Effect<A, E, Exclude<R, Scope.Scope>>
