// Runs `millrace promote`: opens the database and the log, and prints what was promoted and what to do next.
import * as Effect from "effect/Effect"
import { projectionNames } from "../postgres/store/identity.ts"
import { assertDatabaseExists, openDatabase } from "../system/database.ts"
import { assertRegistered } from "../system/identity.ts"
import { openLog } from "../system/open-log.ts"
import { promote as promoteBuild, type PromoteRequest, type Promoted } from "../system/promote.ts"
import { asUnprepared, usageError } from "./command-failure.ts"
import { loadApplication } from "./config.ts"
import { print } from "./print.ts"
import { adviceFor } from "./similar-names.ts"
import { parseDuration } from "./time.ts"

/** The flags and the argument of the command. */
export interface PromoteFlags extends Omit<PromoteRequest, "timeoutMs"> {
  readonly data: string
  readonly config: string | undefined
  readonly timeout: string
  readonly json: boolean
}

/** Promotes a build, and prints what was done. */
export const promote = Effect.fnUntraced(function* ({ config, data, json, timeout, ...request }: PromoteFlags) {
  const timeoutMs = yield* parseDuration(timeout, "--timeout")
  if (request.rollback && request.build !== undefined)
    return yield* usageError(
      "--rollback and --build exclude each other",
      "--build N names the build to promote, also an older one"
    )
  const application = yield* loadApplication(config)
  yield* assertDatabaseExists(data)
  const { embeddedDir, sql } = yield* openDatabase(data, "join")
  yield* assertRegistered(application, sql)
  const known = yield* projectionNames(sql)
  if (!known.includes(request.name))
    return yield* usageError(`this database has no projection called '${request.name}'`, adviceFor(request.name, known))
  const { log, on } = yield* openLog(Effect.succeed(sql))
  const done = yield* promoteBuild({ application, sql, log, on, embeddedDir }, { ...request, timeoutMs }).pipe(
    Effect.mapError(asUnprepared)
  )
  yield* print(json ? JSON.stringify(done) : textOf(done))
  return 0
})

const textOf = ({ from, next, pauseMs, projection, stale, state, to }: Promoted) =>
  (state === "ready"
    ? [
        `${projection}: build ${to} could replace build ${from}; nothing was changed. The pause was ${pauseMs} ms`,
        ...stale.map((view) => `materialized view ${view} would show the old rows until it is refreshed`)
      ]
    : [`${projection}: build ${to} replaced build ${from}, after a pause of ${pauseMs} ms`, ...next]
  ).join("\n")
