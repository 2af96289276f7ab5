// Runs `millrace pause` and `millrace resume`, beside the processes of the system or while none runs.
import * as Effect from "effect/Effect"
import { dataFlag } from "../system/build-text.ts"
import { pauseProjection, resumeProjection } from "../system/pause.ts"
import { asUnprepared } from "./command-failure.ts"
import { print } from "./print.ts"
import { openJoined } from "./open-joined.ts"

/** The flags and the argument of the two commands. */
export interface PauseFlags {
  readonly data: string
  readonly config: string | undefined
  readonly name: string
  readonly json: boolean
}

/** Pauses a projection, or lets it go on. Either may be run again. */
export const pauseOrResume = Effect.fnUntraced(function* (action: "pause" | "resume", flags: PauseFlags) {
  const { json, name } = flags
  const { embeddedDir, sql } = yield* openJoined(flags)
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
