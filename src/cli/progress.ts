// Shows on standard error how far a long piece of work is: a bar in a terminal, a line now and then elsewhere.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { maskSecrets } from "../text/secrets.ts"
import { terminalText } from "./terminal-text.ts"

/** How far a piece of work is. */
export interface Progress {
  /** What is done of the total, from 0 to 1; undefined if the total is not known. */
  readonly fraction: number | undefined
  /** What is done, how fast, and how long it still takes, for people. */
  readonly text: string
}

/** How often a line is printed where there is no terminal, in milliseconds. */
const lineMs = 10_000

/**
 * Returns what shows a state of the work that `name` names, until the scope closes. In a terminal it is one line that changes. Elsewhere each `everyMs`
 * (default: 10 seconds) a line is printed, so that short work prints nothing.
 */
export const openProgress = (
  name: string,
  everyMs = lineMs
): Effect.Effect<(progress: Progress) => void, never, Scope.Scope> =>
  process.stderr.isTTY ? inTerminal(name) : Effect.sync(() => asLines(name, everyMs))

const asLines = (name: string, everyMs: number) => {
  let last = performance.now()
  return ({ text }: Progress): void => {
    if (performance.now() - last < everyMs) return
    last = performance.now()
    process.stderr.write(`millrace: ${terminalText(maskSecrets(`${name}: ${text}`))}\n`)
  }
}

/** What a line of a terminal is made of. */
interface Shown {
  readonly isKnown: boolean
  readonly name: string
  readonly text: string
}

const inTerminal = Effect.fnUntraced(function* (name: string) {
  const { default: cliProgress } = yield* Effect.promise(() => import("cli-progress"))
  const bar = new cliProgress.SingleBar({
    format: (options, { progress }, { isKnown, name, text }: Shown) => {
      const bar = cliProgress.Format.BarFormat(progress, options)
      return `${name}: ${isKnown ? `${bar} ${Math.floor(progress * 100)} %, ` : ""}${text}`
    },
    barsize: 20,
    clearOnComplete: true,
    etaBuffer: 1,
    fps: 5,
    gracefulExit: false,
    hideCursor: false,
    linewrap: false,
    stream: process.stderr
  })
  let isStarted = false
  yield* Effect.addFinalizer(() => Effect.sync(() => bar.stop()))
  const total = 1_000
  const safe = (text: string) => terminalText(maskSecrets(text)).replaceAll("\n", " ")
  return ({ fraction, text }: Progress): void => {
    const payload: Shown = { isKnown: fraction !== undefined, name: safe(name), text: safe(text) }
    if (!isStarted) bar.start(total, 0, payload)
    isStarted = true
    bar.update(Math.min(total, Math.floor((fraction ?? 0) * total)), payload)
  }
})
