// What handlers leave behind and nothing waits for: rejected promises, and timers that throw. They are logged with their event, and do not end
// the process, which would meet them again after each start. All other errors that nothing catches end it, as Node does.
import process from "node:process"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { describeError } from "../dead-letter/event-failure.ts"
import { runningCode } from "../runner/running-code.ts"

/** Logs such errors for as long as the scope is open. */
export const logStrayErrors: Effect.Effect<void, never, Scope.Scope> = Effect.gen(function* () {
  const context = yield* Effect.context<never>()
  const log = (what: string, code: string, failure: unknown) => {
    const { error, message } = describeError(failure)
    const text = `${code}: ${what}: ${error}: ${message}; what the code did before counts. Wait for its work in the Effect that the handler returns`
    Effect.runForkWith(context)(Effect.logError(text))
  }
  const onException = (error: unknown) => {
    const code = runningCode()
    if (code !== undefined) return log("a timer or a callback threw", code, error)
    process.off("uncaughtException", onException)
    process.nextTick(() => {
      throw error
    })
  }
  const onRejection = (reason: unknown) => {
    const code = runningCode()
    if (code !== undefined) return log("a promise that nothing waits for was rejected", code, reason)
    process.off("uncaughtException", onException)
    throw reason
  }
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      process.on("uncaughtException", onException)
      process.on("unhandledRejection", onRejection)
    }),
    () =>
      Effect.sync(() => {
        process.off("uncaughtException", onException)
        process.off("unhandledRejection", onRejection)
      })
  )
})
