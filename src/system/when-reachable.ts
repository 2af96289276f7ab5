// Opens something that needs other services, and waits while they are away.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"

/** How often a service that cannot be reached is tried, in milliseconds. */
const retryMs = 1_000

const reasonOf = (error: unknown): string | undefined => {
  const { _tag, message, reason, retryable } = (error ?? {}) as Partial<Record<string, unknown>>
  // a state directory that another process uses is not away
  return retryable === true && _tag !== "EmbeddedError" ? String(reason ?? message) : undefined
}

/**
 * Opens what `open` opens, in the scope of the caller. While it fails with an error that says `retryable: true`, it is tried again every second,
 * without end; any other failure is returned. `onWaiting` is run with the reason, once for each reason that follows another one.
 */
export const whenReachable = Effect.fnUntraced(function* <A, E, R>(
  open: Effect.Effect<A, E, R>,
  onWaiting: (reason: string) => Effect.Effect<void>
): Effect.fn.Return<A, E, Exclude<R, Scope.Scope> | Scope.Scope> {
  const outer = yield* Effect.scope
  let reported: string | undefined
  while (true) {
    // a scope of its own, so that a failed try leaves no connection open
    const scope = yield* Scope.fork(outer)
    const exit = yield* Effect.exit(Scope.provide(open, scope))
    if (Exit.isSuccess(exit)) return exit.value
    yield* Scope.close(scope, exit)
    const reason = Option.match(Cause.findErrorOption(exit.cause), { onNone: () => undefined, onSome: reasonOf })
    if (reason === undefined) return yield* exit
    if (reason !== reported) yield* onWaiting((reported = reason))
    yield* Effect.sleep(retryMs)
  }
})
