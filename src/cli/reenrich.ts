// `millrace reenrich NAME`: replays the log into the next build of a projection with today's values of its lookups.
import { Command } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { runToExitCode } from "./flags.ts"
import { replayFlags } from "./rebuild.ts"

/** `millrace reenrich`. */
export const reenrich = Command.make("reenrich", replayFlags, ({ config, maxLiveLag, rate, ...flags }) =>
  runToExitCode(
    Effect.flatMap(
      Effect.promise(() => import("./rebuild-actions.ts")),
      (module) =>
        module.rebuild({
          ...flags,
          lookups: "today",
          pause: false,
          resume: false,
          cancel: false,
          from: undefined,
          until: undefined,
          keys: undefined,
          config: Option.getOrUndefined(config),
          rate: Option.getOrUndefined(rate),
          maxLiveLag: Option.getOrUndefined(maxLiveLag)
        })
    )
  )
).pipe(
  Command.withDescription(
    "Replay the log into the next build of a projection with today's values of its lookups, after reference data was corrected. Compare and promote it as any rebuild; millrace rebuild pauses, resumes and cancels it"
  ),
  Command.withExamples([
    {
      command: "millrace reenrich orders",
      description:
        "Then millrace diff orders shows the rows that the corrected values change, and millrace promote orders puts them in place"
    }
  ])
)
