// The `subscribe` command as the command line has it. What it does is in messages.ts, which is loaded when it runs.
import { Argument, Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Shared } from "./dlq.ts"

/** `millrace subscribe TOPIC`. */
export const subscribeOf = ({ data, ending, json }: Omit<Shared, "config">) =>
  Command.make(
    "subscribe",
    {
      data,
      topic: Argument.String("topic").pipe(Argument.withDescription("A derived topic, such as alerts.v1")),
      type: Flag.Literals("type", ["exclusive", "failover", "shared", "keyShared"]).pipe(
        Flag.withDescription("How messages are shared with other consumers of the subscription; default: exclusive"),
        Flag.withDefault("exclusive")
      ),
      name: Flag.optional(
        Flag.String("name").pipe(Flag.withDescription("The subscription; default: one that is forgotten at the end"))
      ),
      from: Flag.String("from").pipe(
        Flag.withDescription(
          'Where a new one begins: earliest, latest, "2 hours", a date, or 0:42,1:17 (partition:position); default: latest'
        ),
        Flag.withDefault("latest")
      ),
      seek: Flag.Boolean("seek").pipe(
        Flag.withDescription("Move one that is there to `--from`, too"),
        Flag.withDefault(false)
      ),
      max: Flag.optional(Flag.Int("max").pipe(Flag.withDescription("End after so many messages"))),
      json
    },
    (flags) =>
      ending(
        Effect.flatMap(
          Effect.promise(() => import("./print-messages.ts")),
          (module) =>
            module.subscribe({
              ...flags,
              name: Option.getOrUndefined(flags.name),
              max: Option.getOrUndefined(flags.max)
            })
        )
      )
  ).pipe(
    Command.withDescription("Print a topic's messages as they come; each is acknowledged once it is written"),
    Command.withExamples([
      { command: "millrace subscribe alerts.v1 --from '1 hour' --json", description: "The last hour's, and what comes" }
    ])
  )
