// `millrace config`: prints what is in force, and where each value came from.
import { Command } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { usualFile } from "./config.ts"
import { config, data, json, runToExitCode, toggle } from "./flags.ts"
import { print, warn } from "./print.ts"
import { settingProblems } from "./setting-checks.ts"
import { settingsVariable } from "./setting-table.ts"
import { settingsOfProcess } from "./settings-file.ts"
import { settingsSchema } from "./settings-schema.ts"
import { type Setting, settingsIn } from "./settings.ts"
import { terminalLine } from "./terminal-text.ts"

const lineOf = (width: number, { file, from, name, value }: Setting) =>
  `${name.padEnd(width)}  ${from.padEnd("environment".length)}  ${terminalLine(value ?? "not set")}${file === undefined ? "" : `  (${terminalLine(file)})`}`

/** The settings that options of the command decide, too. */
const optionsOf = (config: string | undefined, data: string, settings: ReadonlyArray<Setting>) => {
  const { file } = settingsOfProcess()
  const isNamed = process.argv.some((arg) => arg === "--settings" || arg.startsWith("--settings="))
  const ofVariable = (process.env[settingsVariable] ?? "") === "" ? "default" : "environment"
  const ofData = settings.find(({ name }) => name === "MILLRACE_DATA")
  const found: ReadonlyArray<Setting> = [
    { name: "--config", value: config ?? usualFile() ?? null, from: config === undefined ? "default" : "option" },
    { name: "--settings", value: file ?? null, from: isNamed ? "option" : ofVariable },
    { name: "--data", value: data, from: data === ofData?.value ? ofData.from : "option" }
  ]
  return found
}

/** `millrace config`. */
export const showConfig = Command.make(
  "config",
  {
    data,
    config,
    json,
    schema: toggle("schema", "Print the JSON Schema of the file of settings instead, for editors")
  },
  (flags) =>
    runToExitCode(
      Effect.gen(function* () {
        if (flags.schema) {
          yield* print(JSON.stringify(settingsSchema(), null, 2))
          return 0
        }
        const inForce = settingsIn(process.env, settingsOfProcess().from)
        const settings = [...optionsOf(Option.getOrUndefined(flags.config), flags.data, inForce), ...inForce]
        const width = Math.max(...settings.map(({ name }) => name.length))
        yield* print(
          flags.json ? JSON.stringify({ settings }) : settings.map((setting) => lineOf(width, setting)).join("\n")
        )
        const problems = yield* settingProblems
        for (const problem of problems) yield* warn(`${problem.message}\ntry: ${problem.try}`)
        return problems.length === 0 ? 0 : 1
      })
    )
).pipe(
  Command.withDescription(
    "Print each setting that is in force, and whether an option, the environment, a file or a default decides it. Secrets are masked. Exits with 1 if a process would not start with one of them, and says why"
  )
)
