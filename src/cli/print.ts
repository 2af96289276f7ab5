// Writes results to standard output and warnings to standard error.
import * as Effect from "effect/Effect"

/** Prints a result; an empty text prints nothing. */
export const print = (text: string) => Effect.sync(() => void process.stdout.write(text === "" ? "" : `${text}\n`))
/** Prints a warning in the form of the error lines. */
export const warn = (text: string) => Effect.sync(() => void process.stderr.write(`millrace: ${text}\n`))
