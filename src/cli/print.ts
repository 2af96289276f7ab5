// Writes results to standard output and warnings to standard error, with everything that a terminal would obey as an escape.
import * as Effect from "effect/Effect"
import { maskSecrets } from "../text/secrets.ts"
import { terminalText } from "./terminal-text.ts"

/** Prints a result; an empty text prints nothing. */
export const print = (text: string) =>
  Effect.sync(() => void process.stdout.write(text === "" ? "" : `${terminalText(text)}\n`))
/** Prints a warning in the form of the error lines, with passwords masked. */
export const warn = (text: string) =>
  Effect.sync(() => void process.stderr.write(`millrace: ${terminalText(maskSecrets(text))}\n`))
/**
 * Writes a part of a result to standard output. False if the reader has closed the pipe or the output cannot be written. `isData`: a file or a
 * program gets the text as it is; only a terminal gets escapes.
 */
export const writeOut = (text: string, isData: boolean): Promise<boolean> => {
  const shown = isData && !process.stdout.isTTY ? text : terminalText(text)
  return new Promise((resolve) => void process.stdout.write(shown, (error) => resolve(error == null)))
}
