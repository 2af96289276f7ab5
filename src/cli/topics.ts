// Defines the command line of `millrace topics`. What its commands do is in topics-actions.ts and export-topic.ts, which are loaded when one of them runs.
import { Argument, Command } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { config, data, json, runToExitCode, toggle } from "./flags.ts"

const topicsOf = (action: "plan" | "apply" | "check", description: string) =>
  Command.make(
    action,
    {
      data,
      config,
      allowRepartition: toggle(
        "allow-repartition",
        "Allow partitions to be added on Kafka. Keys then lose their order, and projections over the topic must start over, under their next versions or new names"
      ),
      json
    },
    (flags) =>
      runToExitCode(
        Effect.flatMap(
          Effect.promise(() => import("./topics-actions.ts")),
          (module) => module.topics(action, { ...flags, config: Option.getOrUndefined(flags.config) })
        )
      )
  ).pipe(Command.withDescription(description))
const topicsExport = Command.make(
  "export",
  { data, topic: Argument.String("topic").pipe(Argument.withDescription("A topic of events or lookup values")) },
  (flags) =>
    runToExitCode(
      Effect.flatMap(
        Effect.promise(() => import("./export-topic.ts")),
        (module) => module.exportTopic(flags)
      )
    )
).pipe(
  Command.withDescription(
    "Print the events that a topic has now as NDJSON, for millrace ingest in another system: by the time of their appends, in each partition in its order"
  )
)
const topicsList = Command.make("list", { data, config, json }, (flags) =>
  runToExitCode(
    Effect.flatMap(
      Effect.promise(() => import("./topics-actions.ts")),
      (module) => module.list({ ...flags, config: Option.getOrUndefined(flags.config) })
    )
  )
).pipe(
  Command.withDescription(
    "Print the topics: what each has, its partitions with the position of the next record, and who writes and reads it"
  )
)
/** `millrace topics list|plan|apply|check|export`. */
export const topics = Command.make("topics").pipe(
  Command.withDescription(
    "List the topics of the log, compare them with what the application declares, create or change them, and export their events"
  ),
  Command.withSubcommands([
    topicsList,
    topicsOf("plan", "Print what would be created or changed, and what is refused and why"),
    topicsOf("apply", "Print the plan and carry it out; change nothing if a topic is refused"),
    topicsOf("check", "Print the plan; exit with 3 if anything differs from the declaration"),
    topicsExport
  ]),
  Command.withExamples([
    { command: "millrace topics apply", description: "Create the topics of millrace.config.ts before the first start" }
  ])
)
