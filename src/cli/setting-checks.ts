// What is wrong with the values of settings, as a process that starts would say it: for commands that look before one starts.
import * as Effect from "effect/Effect"
import { authOption, jwtOptions } from "../server/access/options.ts"
import { healthMaxAgeMs, kafkaOptions, keyEncryptionKey, pulsarOptions } from "../system/environment.ts"
import { httpOptions } from "./http-options.ts"
import { portSetting } from "./http-port.ts"

/** What is wrong with a setting, and what to do. */
export interface SettingProblem {
  readonly message: string
  readonly try: string
}

const reading = (read: () => unknown) => Effect.try({ try: read, catch: (error) => error })
/** All that read settings. Each fails with the first thing that is wrong with its own. */
const readers: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
  portSetting,
  httpOptions({ host: undefined, port: 0 }),
  reading(() => authOption(process.env)),
  reading(() => jwtOptions(process.env)),
  kafkaOptions,
  pulsarOptions,
  healthMaxAgeMs,
  keyEncryptionKey
]

/** What is wrong with the values of the settings that are in force; empty if a process could start with them. */
export const settingProblems: Effect.Effect<ReadonlyArray<SettingProblem>> = Effect.map(
  Effect.forEach(readers, (reader) =>
    Effect.match(reader, { onSuccess: () => undefined, onFailure: (error) => error as Partial<SettingProblem> })
  ),
  (found) =>
    found
      .filter((problem) => problem !== undefined)
      .map((problem) => ({
        message: problem.message ?? String(problem),
        try: problem.try ?? "see docs/reference/configuration.md"
      }))
)
