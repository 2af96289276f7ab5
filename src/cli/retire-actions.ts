// Runs `millrace retire`: opens the database and the log, and prints what was retired.
import * as Effect from "effect/Effect"
import { assertDatabaseExists, openDatabase } from "../system/database.ts"
import { assertRegistered } from "../system/identity.ts"
import { assertKnownProjection } from "../system/known-projection.ts"
import { openLog } from "../system/open-log.ts"
import { targetNames } from "../system/open-relays.ts"
import { retire as retireProjection, type RetireRequest, type Retired } from "../system/retire.ts"
import { loadApplication } from "./config.ts"
import { print } from "./print.ts"

/** The flags and arguments of the command. */
export interface RetireFlags extends RetireRequest {
  readonly data: string
  readonly config: string | undefined
  readonly json: boolean
}

/** Retires a projection or a version, and prints what was done. */
export const retire = Effect.fnUntraced(function* ({ config, data, json, ...request }: RetireFlags) {
  const application = yield* loadApplication(config)
  yield* assertDatabaseExists(data)
  const { sql } = yield* openDatabase(data, "join", { max: 2 })
  yield* assertRegistered(application, sql)
  yield* assertKnownProjection(sql, request.name)
  const { on } = yield* openLog(Effect.succeed(sql))
  const retired = yield* retireProjection({ application, sql, targets: yield* targetNames(on) }, request)
  // `promoted` is of the time when retiring a version promoted the next one
  yield* print(json ? JSON.stringify({ ...retired, promoted: null }) : textOf(request, retired))
  return 0
})

const textOf = ({ dryRun, name }: RetireRequest, { dropped, published, timers = 0, versions }: Retired) => {
  const which = `build${versions.length === 1 ? "" : "s"} ${versions.join(", ")} of ${name}`
  const tables = versions.length === 1 ? "its tables" : "their tables"
  const end = dropped ? `, and ${dryRun ? "would drop" : "dropped"} ${tables}` : `; ${tables} stay`
  const lines = [`${dryRun ? "would retire" : "retired"} ${which}${end}`]
  if (timers > 0)
    lines.push(
      `${timers} of its timers and commands that ${timers === 1 ? "waits" : "wait"} ${dryRun ? "would be" : timers === 1 ? "is" : "are"} deleted, and never executed`
    )
  if (published)
    lines.push("what it published stays in its topics; a later version would publish from the start of the log again")
  return lines.join("\n")
}
