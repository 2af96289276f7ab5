// Reads the keys of `millrace rebuild --keys`: one a line, from a file or standard input.
import * as Effect from "effect/Effect"
import type { KeySelection } from "../system/rebuild-plan.ts"
import { selectionOf } from "../system/key-selection.ts"
import { CommandFailed, usageError } from "./command-failure.ts"
import { linesOf } from "./input-lines.ts"

/** More keys than this are better rebuilt with all others. */
const mostKeys = 1_000_000
const rebuildAll = "millrace rebuild NAME without --keys rebuilds all keys"

/** The keys of a file, `-` is standard input. Blank lines, white space around keys and repeated keys do not count. `onWaiting`: see `linesOf`. */
export const readKeyFile = (file: string, onWaiting: () => void): Effect.Effect<KeySelection, CommandFailed> =>
  Effect.tryPromise({
    try: async () => {
      const keys = new Set<string>()
      for await (const { number, text } of linesOf(file, onWaiting)) {
        if (text === undefined) throw usageError(`line ${number} of ${file} is not UTF-8`, "one key a line, as UTF-8")
        keys.add(text)
        if (keys.size > mostKeys) throw usageError(`${file} has more than ${mostKeys} keys`, rebuildAll)
      }
      if (keys.size === 0) throw usageError(`${file} has no keys`, `one key a line; ${rebuildAll}`)
      return selectionOf(keys)
    },
    catch: (error) =>
      error instanceof CommandFailed
        ? error
        : usageError(`--keys: ${(error as Error).message}`, "a file with one key a line, or - for standard input")
  })
