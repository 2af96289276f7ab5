// Defines the command line of `millrace tail`. What it does is in tail-actions.ts, which is loaded when it runs.
import { Argument, Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { config, data, json, optionalText, runToExitCode } from "./flags.ts"

/** `millrace tail TOPIC`. */
export const tail = Command.make(
  "tail",
  {
    data,
    config,
    topic: Argument.String("topic").pipe(
      Argument.withDescription("Any topic of the log: of events, of lookup values, a derived one, or an aggregate")
    ),
    key: optionalText("key", "Only records with this key"),
    tenant: optionalText("tenant", "Only records of this tenant"),
    type: optionalText("type", "Only events of this type"),
    from: Flag.String("from").pipe(
      Flag.withDescription(
        'Where to start: latest, earliest, a duration before now such as "2 hours", a date, or positions such as 0:42,1:17 (partition:position); default: latest'
      ),
      Flag.withDefault("latest")
    ),
    max: Flag.optional(Flag.Int("max").pipe(Flag.withDescription("Exit after this many records"))),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(
        Effect.promise(() => import("./tail-actions.ts")),
        (module) =>
          module.tail({
            ...flags,
            config: Option.getOrUndefined(flags.config),
            key: Option.getOrUndefined(flags.key),
            tenant: Option.getOrUndefined(flags.tenant),
            type: Option.getOrUndefined(flags.type),
            max: Option.getOrUndefined(flags.max)
          })
      ),
      { untilStopped: true }
    )
).pipe(
  Command.withDescription(
    "Print the records of a topic as they come, until stopped. Nothing is acknowledged or remembered: every run sees all records"
  ),
  Command.withExamples([
    { command: "millrace tail orders.v1 --type order.placed", description: "New events of one type" },
    {
      command: "millrace tail orders.v1 --from '1 hour' --json",
      description: "The last hour and what follows, as NDJSON"
    }
  ])
)
