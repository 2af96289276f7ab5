// Runs `millrace diff`: opens the database and the log, and prints what differs between two builds.
import * as Effect from "effect/Effect"
import { assertDatabaseExists, openDatabase } from "../system/database.ts"
import { diff as diffBuilds } from "../system/diff.ts"
import { diffJson } from "../system/diff-json.ts"
import { assertRegistered } from "../system/identity.ts"
import { assertKnownProjection } from "../system/known-projection.ts"
import { openLog } from "../system/open-log.ts"
import { exitCodes, usageError, withAdviceIfAway } from "./command-failure.ts"
import { loadApplication } from "./config.ts"
import { diffText } from "./diff-text.ts"
import { print } from "./print.ts"
import { openProgress } from "./progress.ts"
import { parseDuration } from "./time.ts"

/** The flags and the argument of the command. */
export interface DiffFlags {
  readonly data: string
  readonly config: string | undefined
  readonly name: string
  readonly with: number | undefined
  readonly exact: boolean
  readonly samples: number
  readonly timeout: string
  readonly json: boolean
}

/** Compares two builds, and prints what differs. */
export const diff = (flags: DiffFlags) =>
  Effect.mapError(compared(flags), withAdviceIfAway("run it again when the database answers; nothing was changed"))

const compared = Effect.fnUntraced(function* ({ config, data, json, timeout, ...request }: DiffFlags) {
  if (request.samples < 0) return yield* usageError(`--samples is ${request.samples}; it must be 0 or more`)
  const timeoutMs = yield* parseDuration(timeout, "--timeout")
  const application = yield* loadApplication(config)
  yield* assertDatabaseExists(data)
  const { sql } = yield* openDatabase(data, "join")
  yield* assertRegistered(application, sql)
  yield* assertKnownProjection(sql, request.name)
  const { log, on } = yield* openLog(Effect.succeed(sql))
  const comparing = Effect.gen(function* () {
    const show = yield* openProgress(`diff of ${request.name}`)
    const onCompared = (done: number, total: number, what: string) =>
      show({ fraction: done / total, text: `${done} of ${total} compared, at last ${what}` })
    return yield* diffBuilds({ application, sql, log, on }, { ...request, timeoutMs, onCompared })
  })
  const found = yield* Effect.scoped(comparing)
  yield* print(json ? diffJson(found) : diffText(found))
  return found.equal ? 0 : exitCodes.refused
})
