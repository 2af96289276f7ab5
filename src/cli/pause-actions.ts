// Runs `millrace pause` and `millrace resume`, beside the processes of the system or while none runs.
import * as Effect from "effect/Effect"
import { assertDatabaseExists, openDatabase } from "../system/database.ts"
import { dataFlag } from "../system/findings.ts"
import { assertOwn } from "../system/identity.ts"
import { pauseProjection, resumeProjection } from "../system/pause.ts"
import { asUnprepared } from "./command-failure.ts"
import { loadApplication } from "./config.ts"
import { print } from "./print.ts"

/** The flags and the argument of the two commands. */
export interface PauseFlags {
  readonly data: string
  readonly config: string | undefined
  readonly name: string
  readonly json: boolean
}

/** Pauses a projection, or lets it go on. Either may be run again. */
export const pauseOrResume = Effect.fnUntraced(function* (action: "pause" | "resume", flags: PauseFlags) {
  const { config, data, json, name } = flags
  yield* assertDatabaseExists(data)
  const { embeddedDir, sql } = yield* openDatabase(data, "join", { max: 1 })
  if (config !== undefined) yield* assertOwn(yield* loadApplication(config), sql)
  const run = action === "pause" ? pauseProjection(sql, name) : resumeProjection(sql, name)
  const changed = yield* Effect.mapError(run, asUnprepared)
  const text =
    action === "pause"
      ? `${name} is ${changed ? "paused" : "paused already"}: processes stop within a second, after the batch that they process. Events wait in the log; let it go on with: millrace resume${dataFlag(embeddedDir)} ${name}`
      : changed
        ? `${name} goes on within a second, where it was`
        : `${name} was not paused`
  yield* print(json ? JSON.stringify({ projection: name, paused: action === "pause", changed }) : text)
  return 0
})
