// `millrace config`: prints what is in force, and where each value came from.
import { Command } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { usualFile } from "./config.ts"
import { config, data, json, runToExitCode } from "./flags.ts"
import { print } from "./print.ts"
import { type Setting, settingsIn } from "./settings.ts"
import { terminalLine } from "./terminal-text.ts"

const lineOf = (width: number, { from, name, value }: Setting) =>
  `${name.padEnd(width)}  ${from.padEnd("environment".length)}  ${terminalLine(value ?? "not set")}`

/** `millrace config`. */
export const showConfig = Command.make("config", { data, config, json }, (flags) =>
  runToExitCode(
    Effect.gen(function* () {
      const file = Option.getOrUndefined(flags.config)
      const options: ReadonlyArray<Setting> = [
        { name: "--config", value: file ?? usualFile() ?? null, from: file === undefined ? "default" : "option" },
        { name: "--data", value: flags.data, from: flags.data === ".millrace" ? "default" : "option" }
      ]
      const settings = [...options, ...settingsIn(process.env)]
      const width = Math.max(...settings.map(({ name }) => name.length))
      yield* print(
        flags.json ? JSON.stringify({ settings }) : settings.map((setting) => lineOf(width, setting)).join("\n")
      )
      return 0
    })
  )
).pipe(
  Command.withDescription(
    "Print each setting that is in force, and whether an option, the environment or a default decides it. Secrets are masked"
  )
)
