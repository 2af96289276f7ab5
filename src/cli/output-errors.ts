// What happens when standard output or standard error cannot be written.
import * as Effect from "effect/Effect"
import { isBrokenPipe } from "./command-failure.ts"
import { warn } from "./print.ts"

/**
 * Listens to errors of both outputs for the rest of the process; without a listener they end it with a stack trace. A closed pipe is no error,
 * as when `head` has enough lines; any other one, such as a full disk, is printed once. Returns whether there was one. Code that must know
 * gets the error with its own write.
 */
export const watchOutput = (): (() => boolean) => {
  let lost = false
  process.stdout.on("error", (error) => {
    if (isBrokenPipe(error) || lost) return
    lost = true
    Effect.runSync(warn(`cannot write to standard output: ${error.message}`))
  })
  // there is nowhere left to report it
  process.stderr.on("error", () => undefined)
  return () => lost
}
