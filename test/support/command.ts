// Runs the `millrace` command in a child process against a database, for tests.
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"

/** What a command printed, and its exit code; null if it was killed. */
export interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}
/** The environment of the tests without `MILLRACE_` variables: the command must not find the services of the machine that runs the tests. */
const own = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("MILLRACE_")))
/** Starts the command. `said` is called with everything that it has printed to standard output so far. */
export const startCommand = (
  url: string,
  args: ReadonlyArray<string>,
  said: (out: string) => void = () => undefined
) => {
  const main = fileURLToPath(new URL("../../bin/millrace.mjs", import.meta.url))
  const run = "Deno" in globalThis ? ["run", "-A", main, ...args] : [main, ...args]
  const child = spawn(process.execPath, run, { env: { ...own, MILLRACE_DATABASE_URL: url } })
  const texts = { out: "", err: "" }
  child.stdout.on("data", (data: Buffer) => said((texts.out += data.toString())))
  child.stderr.on("data", (data: Buffer) => (texts.err += data.toString()))
  const ended = new Promise<Ended>((resolve) => child.once("close", (code) => resolve({ code, ...texts })))
  return { child, ended }
}
/** Runs the command until it ends. */
export const command = (url: string, ...args: ReadonlyArray<string>): Effect.Effect<Ended> =>
  Effect.promise(() => startCommand(url, args).ended)
