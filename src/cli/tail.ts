// Defines the command line of `millrace tail`. What it does is in tail-actions.ts, tail-view.ts and tail-remote.ts, which are loaded when it runs.
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
      Argument.withDescription(
        "Any topic of the log: of events, of lookup values, a derived one, or an aggregate; or view:NAME for the rows of a table or window and their changes"
      )
    ),
    key: optionalText("key", "Only records with this key"),
    tenant: optionalText("tenant", "Only records of this tenant"),
    type: optionalText("type", "Only events of this type"),
    from: optionalText(
      "from",
      'Where to start: latest, earliest, a duration before now such as "2 hours", a date, positions such as 0:42,1:17 (partition:position), or the token of an answer to events; default: latest; of a view: earliest (all rows first, the default), latest, or a token'
    ),
    partition: Flag.optional(
      Flag.Int("partition").pipe(
        Flag.withDescription(
          "Only this partition of a topic; with --from 2:17 --max 1 it prints the record at a position"
        )
      )
    ),
    url: optionalText(
      "url",
      "Read from the server there, over HTTP, with the key in MILLRACE_API_KEY; default: from the log and the database"
    ),
    max: Flag.optional(Flag.Int("max").pipe(Flag.withDescription("Exit after this many records, or rows and changes"))),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.suspend(() => {
        const given = {
          ...flags,
          config: Option.getOrUndefined(flags.config),
          from: Option.getOrUndefined(flags.from),
          key: Option.getOrUndefined(flags.key),
          tenant: Option.getOrUndefined(flags.tenant),
          type: Option.getOrUndefined(flags.type),
          partition: Option.getOrUndefined(flags.partition),
          max: Option.getOrUndefined(flags.max)
        }
        const url = Option.getOrUndefined(flags.url)
        if (url !== undefined)
          return Effect.flatMap(
            Effect.promise(() => import("./tail-remote.ts")),
            (module) => module.tailRemote(url, given)
          )
        return flags.topic.startsWith("view:")
          ? Effect.flatMap(
              Effect.promise(() => import("./tail-view.ts")),
              (module) => module.tailView(given)
            )
          : Effect.flatMap(
              Effect.promise(() => import("./tail-actions.ts")),
              (module) => module.tail(given)
            )
      }),
      { untilStopped: true }
    )
).pipe(
  Command.withDescription(
    "Print the records of a topic, or the changes of a view, as they come, until stopped. Nothing is acknowledged or remembered: every run sees all records"
  ),
  Command.withExamples([
    { command: "millrace tail orders.v1 --type order.placed", description: "New events of one type" },
    {
      command: "millrace tail orders.v1 --from '1 hour' --json",
      description: "The last hour and what follows, as NDJSON"
    },
    {
      command: "millrace tail orders.v1 --url https://millrace.internal:7443",
      description: "New events of a server on another machine"
    },
    { command: "millrace tail view:orders", description: "The rows of a table, and then every change of them" }
  ])
)
