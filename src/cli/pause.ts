// Defines the command lines of `millrace pause` and `millrace resume`. What they do is in pause-actions.ts, which is loaded when one of them runs.
import { Argument, Command } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { data, json, ownConfig, runToExitCode } from "./flags.ts"

const flags = {
  data,
  config: ownConfig,
  name: Argument.String("name").pipe(Argument.withDescription("A projection of the application")),
  json
}
const commandOf = (action: "pause" | "resume", description: string) =>
  Command.make(action, flags, (given) =>
    runToExitCode(
      Effect.flatMap(
        Effect.promise(() => import("./pause-actions.ts")),
        (module) => module.pauseOrResume(action, { ...given, config: Option.getOrUndefined(given.config) })
      )
    )
  ).pipe(Command.withDescription(description))

/** `millrace pause NAME`. */
export const pause = commandOf(
  "pause",
  "Stop the processing of events into the live build of a projection, in all processes, until millrace resume. It keeps its positions; events wait in the log"
)
/** `millrace resume NAME`. */
export const resume = commandOf("resume", "Let a paused projection go on where it is")
