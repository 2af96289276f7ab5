// `millrace rebuild NAME`: replays the log into the next build of a projection, beside the live one.
import { Argument, Command } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { config, data, json, optionalText, runToExitCode, toggle } from "./flags.ts"

/** What `rebuild` and `reenrich` both take. */
export const replayFlags = {
  data,
  config,
  name: Argument.String("name").pipe(Argument.withDescription("A projection")),
  plan: toggle("plan", "Print what would be done, and change nothing"),
  rate: optionalText("rate", "Events a second, for all processes together, or max; default: max, or as before"),
  maxLiveLag: optionalText(
    "max-live-lag",
    "Wait while an event waits longer than so many seconds for the live build; or none; default: none, or as before"
  ),
  json
}

/** `millrace rebuild`. */
export const rebuild = Command.make(
  "rebuild",
  {
    ...replayFlags,
    from: optionalText(
      "from",
      'A date, or a duration before now such as "2 hours": the build begins empty, with what the log stored from then on. Or now: it begins as a copy of the live build. Default: the start of the log'
    ),
    until: optionalText(
      "until",
      'An investigation build, which has what the log stored before then and is never promoted: a date, or a duration before now such as "2 hours"'
    ),
    keys: optionalText(
      "keys",
      "A file with keys of events, one a line, or -: a copy of the live build in which only the rows of these keys are replayed"
    ),
    pause: toggle("pause", "Pause the rebuild, in all processes"),
    resume: toggle("resume", "Let a paused rebuild go on"),
    cancel: toggle("cancel", "Give the rebuild up, and delete its build")
  },
  ({ config, from, keys, maxLiveLag, rate, until, ...flags }) =>
    runToExitCode(
      Effect.flatMap(
        Effect.promise(() => import("./rebuild-actions.ts")),
        (module) =>
          module.rebuild({
            ...flags,
            lookups: "asSeen",
            config: Option.getOrUndefined(config),
            rate: Option.getOrUndefined(rate),
            from: Option.getOrUndefined(from),
            until: Option.getOrUndefined(until),
            keys: Option.getOrUndefined(keys),
            maxLiveLag: Option.getOrUndefined(maxLiveLag)
          })
      )
    )
).pipe(
  Command.withDescription(
    "Replay the log into the next build of a projection, beside the live one, which stays as it is. Other processes of the system help. Run it again after it was interrupted: it continues"
  ),
  Command.withExamples([
    {
      command: "millrace rebuild orders --plan",
      description: "What it would replay, how long that takes, and what it cannot reproduce"
    },
    {
      command: "millrace rebuild orders --max-live-lag 1",
      description: "Slow down while live processing is more than a second behind"
    },
    {
      command: "millrace rebuild orders --until 2026-01-31T12:00Z",
      description: "What the read model was at that time, in tables of its own"
    },
    {
      command: "millrace rebuild orders --keys customers.txt",
      description: "Replay the rows of some keys, and copy all others from the live build"
    },
    { command: "millrace rebuild orders --cancel", description: "Delete the build" }
  ])
)
