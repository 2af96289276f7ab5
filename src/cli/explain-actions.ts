// Runs `millrace explain`: finds the row's read model and build, replays its projection in memory, and prints the explanation.
import * as Effect from "effect/Effect"
import { assertDatabaseExists, openDatabase } from "../system/database.ts"
import { explainedRow, explainTableRow } from "../system/explain-table.ts"
import { explanationJson, jsonText } from "../system/explanation-json.ts"
import { assertRegistered } from "../system/identity.ts"
import { openLog } from "../system/open-log.ts"
import { timeOf } from "../text/moment.ts"
import { asUnprepared, exitCodes, usageError } from "./command-failure.ts"
import { loadApplication } from "./config.ts"
import { explanationText, keyArguments } from "./explanation-text.ts"
import { print } from "./print.ts"
import { counted } from "../text/counted.ts"

/** The flags and arguments of the command. */
export interface ExplainFlags {
  readonly data: string
  readonly config: string | undefined
  readonly table: string
  readonly key: ReadonlyArray<string>
  /** Durations before now, or dates. */
  readonly from: string | undefined
  readonly until: string | undefined
  readonly limit: number
  readonly json: boolean
}
/** How often progress is printed, in milliseconds. */
const progressMs = 2_000

/** Explains a row, and prints the events. Exits with 3 if the stored row is another one than the replay gives. */
export const explain = Effect.fnUntraced(function* (flags: ExplainFlags) {
  const { config, data, json, key, limit, table } = flags
  if (!(limit >= 1)) return yield* usageError(`--limit is ${limit}; it must be at least 1`, "--limit 1000")
  const from = yield* momentOf("--from", flags.from)
  const until = yield* momentOf("--until", flags.until)
  const application = yield* loadApplication(config)
  const row = yield* explainedRow(application, table, key)
  yield* assertDatabaseExists(data)
  const { sql } = yield* openDatabase(data, "join", { max: 3 })
  yield* assertRegistered(application, sql)
  const { log } = yield* openLog(Effect.succeed(sql))
  const options = { from, until, mostEvents: limit, onProgress: progressOf, keyText: keyArguments }
  const explanations = yield* Effect.mapError(explainTableRow({ application, sql, log }, row, options), asUnprepared)
  yield* print(json ? jsonText(explanations.map(explanationJson)) : explanations.map(explanationText).join("\n\n"))
  const differs = explanations.some(({ differences = [] }) => differences.some(({ isRounding }) => !isRounding))
  return differs ? exitCodes.unhealthy : 0
})

const momentOf = (flag: string, text: string | undefined) => {
  const time = text === undefined ? undefined : timeOf(text, Date.now())
  return text !== undefined && time === undefined
    ? Effect.fail(
        usageError(
          `${flag} '${text}' is neither a duration nor a date`,
          `${flag} "2 hours", or ${flag} 2026-01-31T12:00Z`
        )
      )
    : Effect.succeed(time)
}

/** Prints on standard error how far the replay is, if it takes long. */
const progressOf = (name: string) => {
  let last = Date.now()
  return (done: number, total: number) => {
    if (Date.now() - last < progressMs) return
    last = Date.now()
    process.stderr.write(`millrace: replayed ${done} of ${counted(total, "record")} of ${name}\n`)
  }
}
