// What a person can type while `millrace dev` runs in a terminal: a letter and Enter runs the command that it stands for.
import { type ChildProcess, spawn } from "node:child_process"
import { createInterface } from "node:readline"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { ownCommand } from "./own-command.ts"

/** What a key stands for. */
export interface HotKey {
  /** What it does, for people. */
  readonly does: string
  /** Does it. */
  readonly run: () => void
}
type HotKeys = Readonly<Record<string, HotKey>>

/** What the program needs to know of the running system. */
export interface HotKeyParts {
  /** The flags that say which system a command is for. */
  readonly flags: ReadonlyArray<string>
  readonly url: string
  readonly show: (line: string) => void
}

/** The programs that open an address in a browser, by platform. */
const openers: Readonly<Record<string, readonly [string, ...ReadonlyArray<string>]>> = {
  darwin: ["open"],
  win32: ["cmd", "/c", "start", ""]
}

/** What each key does. `run` runs a command of this program. Pure but for what the keys do. */
export const hotKeysOf = (
  { show, url }: HotKeyParts,
  run: (...args: ReadonlyArray<string>) => void,
  open: (url: string) => void
): HotKeys => {
  const keys: HotKeys = {
    s: { does: `status        ${ownCommand} status`, run: () => run("status") },
    d: { does: `dead letters  ${ownCommand} dlq list`, run: () => run("dlq", "list") },
    t: { does: `topics        ${ownCommand} topics list`, run: () => run("topics", "list") },
    o: { does: `open          the console, ${url}, in a browser`, run: () => open(url) },
    q: { does: "quit", run: () => void process.kill(process.pid, "SIGINT") },
    h: { does: "help", run: () => show(helpText(keys)) }
  }
  return keys
}
/** The keys, one a line. */
export const helpText = (keys: HotKeys): string =>
  Object.entries(keys)
    .map(([key, { does }]) => `  ${key} + Enter    ${does}`)
    .join("\n")

/** Does what a line stands for. What is no key gets a hint; an empty line nothing. */
export const onLine = (keys: HotKeys, line: string, show: (line: string) => void): void => {
  const text = line.trim()
  const key = Object.hasOwn(keys, text.toLowerCase()) ? keys[text.toLowerCase()] : undefined
  if (key !== undefined) key.run()
  else if (text !== "") show("h + Enter lists what can be typed here")
}

/**
 * Reads keys until the scope closes, if a person can type them: standard input and output are a terminal. One command runs at a time, and is ended
 * with the scope. Lines instead of single keys, as Vite reads them: the terminal keeps its mode, so that Ctrl-C and Ctrl-Z work, whatever happens.
 */
export const readHotKeys = (parts: HotKeyParts): Effect.Effect<void, never, Scope.Scope> => {
  if (!process.stdin.isTTY || !process.stdout.isTTY) return Effect.void
  let running: ChildProcess | undefined
  const start = (program: string, args: ReadonlyArray<string>, isOwn: boolean) => {
    if (isOwn && running !== undefined) return parts.show("the last command still runs")
    const child = spawn(program, args, { stdio: isOwn ? ["ignore", "inherit", "inherit"] : "ignore" })
    child.once("error", (error) => parts.show(`${program} cannot be started: ${error.message}`))
    if (!isOwn) return
    running = child
    const forget = () => (running = undefined)
    child.once("error", forget).once("close", forget)
  }
  const [main = ""] = process.argv.slice(1)
  const command = "Deno" in globalThis ? ["run", "-A", main] : [main]
  const keys = hotKeysOf(
    parts,
    (...args) => start(process.execPath, [...command, ...args, ...parts.flags], true),
    (url) => {
      const [program, ...args] = openers[process.platform] ?? ["xdg-open"]
      start(program, [...args, url], false)
    }
  )
  return Effect.asVoid(
    Effect.acquireRelease(
      Effect.sync(() => {
        const lines = createInterface({ input: process.stdin })
        lines.on("line", (line) => onLine(keys, line, parts.show))
        parts.show("o + Enter opens the console in a browser; h + Enter lists what else can be typed here\n")
        return lines
      }),
      (lines) =>
        Effect.sync(() => {
          lines.close()
          running?.kill()
        })
    )
  )
}
