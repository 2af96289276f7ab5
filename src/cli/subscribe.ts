// Defines the command line of `millrace subscribe`. What it does is in print-messages.ts, which is loaded when it runs.
import { Argument, Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { data, json, optionalText, runToExitCode, toggle } from "./flags.ts"

/** `millrace subscribe TOPIC`. */
export const subscribe = Command.make(
  "subscribe",
  {
    data,
    topic: Argument.String("topic").pipe(Argument.withDescription("A derived topic, such as receipts.v1")),
    type: Flag.Literals("type", ["exclusive", "failover", "shared", "keyShared"]).pipe(
      Flag.withDescription("How the consumers of the subscription share its messages; default: exclusive"),
      Flag.withDefault("exclusive")
    ),
    name: optionalText("name", "Name of the subscription; default: a new one, which is deleted when the command ends"),
    from: Flag.String("from").pipe(
      Flag.withDescription(
        'Where a new subscription starts: earliest, latest, a duration before now such as "2 hours", a date, positions such as 0:42,1:17 (partition:position), or the token of an answer to events; default: latest'
      ),
      Flag.withDefault("latest")
    ),
    seek: toggle("seek", "Move the subscription to --from even if it exists already"),
    max: Flag.optional(Flag.Int("max").pipe(Flag.withDescription("Exit after this many messages"))),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(
        Effect.promise(() => import("./print-messages.ts")),
        (module) =>
          module.subscribe({
            ...flags,
            name: Option.getOrUndefined(flags.name),
            max: Option.getOrUndefined(flags.max)
          })
      ),
      { untilStopped: true }
    )
).pipe(
  Command.withDescription(
    "Print the messages of a topic as they arrive. A message is acknowledged when it has been printed"
  ),
  Command.withExamples([
    {
      command: "millrace subscribe receipts.v1 --from '1 hour' --json",
      description: "Messages of the last hour, and new ones"
    }
  ])
)
