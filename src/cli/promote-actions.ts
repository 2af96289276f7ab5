// Runs `millrace promote`: opens the database and the log, and prints what was promoted or corrected, and what to do next.
import * as Effect from "effect/Effect"
import type { Corrected } from "../system/corrections.ts"
import { assertDatabaseExists, openDatabase } from "../system/database.ts"
import { assertRegistered } from "../system/identity.ts"
import { assertKnownProjection } from "../system/known-projection.ts"
import { openLog } from "../system/open-log.ts"
import { promoteAndCorrect, promotedJson } from "../system/promote-and-correct.ts"
import { promote as promoteBuild, type PromoteRequest, type Promoted } from "../system/promote.ts"
import { asUnprepared, usageError, withAdviceIfAway } from "./command-failure.ts"
import { loadApplication } from "./config.ts"
import { print } from "./print.ts"
import { parseDuration } from "./time.ts"
import { counted } from "../text/counted.ts"

/** The flags and the argument of the command. */
export interface PromoteFlags extends Omit<PromoteRequest, "timeoutMs"> {
  readonly data: string
  readonly config: string | undefined
  readonly timeout: string
  /** `corrections`, or nothing. */
  readonly publish: string | undefined
  readonly json: boolean
}

/** Promotes a build, and prints what was done. */
export const promote = Effect.fnUntraced(function* ({
  config,
  data,
  json,
  publish,
  timeout,
  ...request
}: PromoteFlags) {
  const timeoutMs = yield* parseDuration(timeout, "--timeout")
  if (request.rollback && request.build !== undefined)
    return yield* usageError(
      "--rollback and --build exclude each other",
      "--build N names the build to promote, also an older one"
    )
  if (publish !== undefined && publish !== "corrections")
    return yield* usageError(`--publish is '${publish}'; it can be corrections`, "--publish corrections")
  if (publish !== undefined && request.dryRun) return yield* usageError("--publish and --dry-run exclude each other")
  const application = yield* loadApplication(config)
  yield* assertDatabaseExists(data)
  const { embeddedDir, sql } = yield* openDatabase(data, "join")
  yield* assertRegistered(application, sql)
  yield* assertKnownProjection(sql, request.name)
  const { log, on } = yield* openLog(Effect.succeed(sql))
  const context = { application, sql, log, on, embeddedDir }
  const result = yield* promoteAndCorrect(context, { ...request, timeoutMs }, publish !== undefined, (...given) =>
    promoteBuild(...given).pipe(
      Effect.mapError(asUnprepared),
      Effect.mapError(withAdviceIfAway("run it again when the database answers; nothing was changed"))
    )
  )
  const { corrections, promoted } = result
  const texts = [promoted && textOf(promoted), corrections && correctionsText(request.name, corrections)]
  yield* print(
    json ? JSON.stringify(promotedJson(request.name, result)) : texts.filter((text) => text !== undefined).join("\n")
  )
  return 0
})

const correctionsText = (name: string, { gone, notCorrected, published, revision, rows }: Corrected) =>
  [
    `${name}: ${counted(published, "correction")} published as revision ${revision}, of ${counted(rows, "row")} that differ${rows === 1 ? "s" : ""}`,
    ...(gone === 0 ? [] : [`${counted(gone, "row")} that the new build does not have: no message says so`]),
    ...notCorrected.map((one) => `${one.name} is not corrected: ${one.reason}`)
  ].join("\n")

const textOf = ({ from, next, notReproduced, pauseMs, projection, stale, state, to }: Promoted) =>
  (state === "ready"
    ? [
        `${projection}: build ${to} could replace build ${from}; nothing was changed. The pause was ${pauseMs} ms`,
        ...notReproduced.map((one) => `differs: ${one}`),
        ...stale.map((view) => `materialized view ${view} would show the old rows until it is refreshed`)
      ]
    : [
        `${projection}: build ${to} replaced build ${from}, after a pause of ${pauseMs} ms`,
        ...notReproduced.map((one) => `differs: ${one}`),
        ...next
      ]
  ).join("\n")
