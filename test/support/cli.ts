// Runs the `millrace` command in a child process for tests, with its output and exit code. The process is killed when the scope closes.
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

const root = fileURLToPath(new URL("../..", import.meta.url))
/** The arguments by which the runtime of the tests runs a file. */
const running = (file: string) => ("Deno" in globalThis ? ["run", "-A", file] : [file])
const main = fileURLToPath(new URL("../../bin/millrace.mjs", import.meta.url))

/** A process that was started, with its output so far. */
export interface Running {
  readonly process: ChildProcess
  readonly output: () => string
  readonly errors: () => string
  /** Waits for the end of the process: its exit code, or null if a signal ended it. */
  readonly ended: Effect.Effect<number | null>
  /** Waits until the output matches, and returns the match. Dies if the process ends before. */
  readonly said: (text: RegExp) => Effect.Effect<string>
}
/** The exit code and the output of a process that has ended. */
export interface Ended {
  readonly code: number | null
  readonly output: string
  readonly errors: string
}
type Environment = Readonly<Record<string, string | undefined>>

/** The environment of the tests without `MILLRACE_` variables: the command must not find the services of whoever runs the tests. */
export const environmentOf = (given: Environment) => {
  const own = Object.entries(process.env).filter(([name]) => !name.startsWith("MILLRACE_"))
  return { ...Object.fromEntries(own), NO_COLOR: "1", ...given }
}

/** Starts the command; if it still runs when the scope closes, it is killed. */
export const start = (
  environment: Environment,
  ...args: ReadonlyArray<string>
): Effect.Effect<Running, never, Scope.Scope> => startIn(root, environment, main, ...args)
/** Starts the command in a directory, as `start` does. */
export const startCommandIn = (
  cwd: string,
  environment: Environment,
  ...args: ReadonlyArray<string>
): Effect.Effect<Running, never, Scope.Scope> => startIn(cwd, environment, main, ...args)
/** Runs a program on the runtime of the tests, as `start` runs the command. */
export const startIn = (
  cwd: string,
  environment: Environment,
  file: string,
  ...args: ReadonlyArray<string>
): Effect.Effect<Running, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync((): Running => {
      const child = spawn(process.execPath, [...running(file), ...args], {
        cwd,
        env: environmentOf(environment),
        stdio: ["ignore", "pipe", "pipe"]
      })
      let output = ""
      let errors = ""
      child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()))
      child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()))
      const closed = new Promise<number | null>((resolve) => child.once("close", resolve))
      const ended = Effect.promise(() => closed)
      const said = Effect.fnUntraced(function* (text: RegExp) {
        while (!text.test(output + errors)) {
          if (child.exitCode !== null || child.signalCode !== null) {
            return yield* Effect.die(
              new Error(`${args.join(" ")} ended before its output matched ${text}: ${output}${errors}`)
            )
          }
          yield* Effect.sleep(20)
        }
        return text.exec(output + errors)![0]
      })
      return { process: child, output: () => output, errors: () => errors, ended, said }
    }),
    ({ ended, process: child }) =>
      Effect.suspend(() => {
        child.kill("SIGKILL")
        return ended
      })
  )

/** Runs the command to its end. */
export const run = (environment: Environment, ...args: ReadonlyArray<string>): Effect.Effect<Ended> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { ended, errors, output } = yield* start(environment, ...args)
      const code = yield* ended
      return { code, output: output(), errors: errors() }
    })
  )
