// The flags that several commands share, and how every command ends.
import * as Cause from "effect/Cause"
import { Flag, GlobalFlag } from "effect/cli"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { exitCodeOf, explain } from "./command-failure.ts"
import { warn } from "./print.ts"
import { endWithScript } from "./script.ts"
import { settingsOfProcess } from "./settings-file.ts"
import { terminalText } from "./terminal-text.ts"
import { misspelledVariable } from "./variables.ts"

/** A flag with a text that may be left out. */
export const optionalText = (name: string, description: string) =>
  Flag.optional(Flag.String(name).pipe(Flag.withDescription(description)))
/** A flag that is false unless it is given. */
export const toggle = (name: string, description: string) =>
  Flag.Boolean(name).pipe(Flag.withDescription(description), Flag.withDefault(false))

export const data = Flag.String("data").pipe(
  Flag.withDescription("State directory of the embedded PostgreSQL; not used if MILLRACE_DATABASE_URL is set"),
  Flag.withDefault(Effect.sync(() => process.env["MILLRACE_DATA"] || ".millrace"))
)
export const config = optionalText("config", "File of the application; default: millrace.config.ts")
/** `--config` of commands that need no application. */
export const ownConfig = optionalText(
  "config",
  "File of the application; the command then fails if the database belongs to another one"
)
export const json = toggle("json", "Print JSON")
export const port = Flag.optional(
  Flag.Int("port").pipe(
    Flag.withDescription("Port of the HTTP server; 0 picks a free port; default: MILLRACE_HTTP_PORT, or 7070")
  )
)
/** The file of settings, of every command. It is read before the flags are. */
export const settings = GlobalFlag.Setting("settings")({
  flag: optionalText("settings", "File of settings; default: millrace.json beside the application, if there is one")
})

/** Where others than this machine reach the server, and whether they need credentials. */
export const http = {
  host: optionalText(
    "host",
    "Address that the HTTP server listens on; default: 127.0.0.1. Others than this machine need an API key or a token"
  ),
  insecure: toggle("insecure", "Let everyone in who reaches the server, without credentials")
}

const checkVariables = Effect.suspend(() => {
  const { failure = misspelledVariable(process.env), warnings } = settingsOfProcess()
  return failure === undefined ? Effect.forEach(warnings, warn, { discard: true }) : Effect.fail(failure)
})

const interruptedCodes = { SIGINT: 130, SIGTERM: 143 } as const
/** From now on the first of these signals decides the exit code, unless the command still ends with its own. It does not keep the signal from others. */
const exitBySignal = Effect.sync(() => {
  const signals = ["SIGINT", "SIGTERM"] as const
  const stopListening = () => signals.forEach((signal) => process.off(signal, onSignal))
  const onSignal = (signal: NodeJS.Signals) => {
    // without a listener a second signal ends the process at once
    stopListening()
    process.exitCode = interruptedCodes[signal as keyof typeof interruptedCodes]
  }
  // before the listener that interrupts the command, which may end the process at once
  signals.forEach((signal) => process.prependListener(signal, onSignal))
})

/** How a command ends. */
export interface EndOptions {
  /** Whether it runs until a signal stops it, so that this is its orderly end. Otherwise a signal cuts it off. Default false. */
  readonly untilStopped?: boolean
}
/**
 * Runs a command and sets the exit code of the process. Errors of all commands are printed here, in one form. A command that SIGINT or SIGTERM
 * cuts off exits with 130 or 143; one that runs until it is stopped, with 0.
 */
export const runToExitCode = (
  run: Effect.Effect<number, unknown, Scope.Scope>,
  { untilStopped = false }: EndOptions = {}
) =>
  Effect.scoped(
    Effect.gen(function* () {
      if (!untilStopped) yield* exitBySignal
      yield* endWithScript
      yield* checkVariables
      return yield* run
    })
  ).pipe(
    Effect.matchCause({
      onSuccess: (code) => code,
      onFailure: (cause) => {
        if (Cause.hasInterruptsOnly(cause)) return Number(process.exitCode ?? 0)
        const error = Cause.squash(cause)
        process.stderr.write(`${terminalText(explain(error))}\n`)
        return exitCodeOf(error)
      }
    }),
    Effect.tap((code) => Effect.sync(() => (process.exitCode = code)))
  )
