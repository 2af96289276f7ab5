// Defines the command line of `millrace aggregate`. What its commands do is in aggregate-actions.ts, which is loaded when one of them runs.
import { Argument, Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { config, data, json, optionalText, runToExitCode, toggle } from "./flags.ts"

const target = {
  data,
  config,
  name: Argument.String("name").pipe(Argument.withDescription("An aggregate of the application")),
  id: Argument.String("id").pipe(Argument.withDescription("The id of its stream, as case-1"))
}
const actions = Effect.promise(() => import("./aggregate-actions.ts"))

const send = Command.make(
  "send",
  {
    ...target,
    command: Argument.String("command").pipe(Argument.withDescription("A command of the aggregate")),
    fields: Argument.String("field").pipe(
      Argument.withDescription(
        "The command's fields: field=value for each, or one JSON object. The field of the id may be left out"
      ),
      Argument.variadic()
    ),
    expected: optionalText(
      "expected",
      "The version that the stream must have; 0: no events, exists: any events. Exits with 3 if it has another one"
    ),
    commandId: optionalText(
      "command-id",
      "The id of the command: the same id gets the same answer, whenever it is sent again. Default: a new one"
    ),
    actor: optionalText("actor", "Who sends the command, for the events' headers; default: the user's name here"),
    timeout: Flag.String("timeout").pipe(
      Flag.withDescription("How long to wait for the answer; default: 30s. Exits with 4 after that"),
      Flag.withDefault("30s")
    ),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(actions, (module) =>
        module.send({
          ...flags,
          config: Option.getOrUndefined(flags.config),
          expected: Option.getOrUndefined(flags.expected),
          commandId: Option.getOrUndefined(flags.commandId),
          actor: Option.getOrUndefined(flags.actor)
        })
      )
    )
).pipe(
  Command.withDescription(
    "Send a command to an aggregate, and print its events. Exits with 3 if the aggregate rejects it, or has not the expected version"
  ),
  Command.withExamples([
    { command: "millrace aggregate send account acc-1 deposit cents=500", description: "Fields by their names" },
    {
      command: `millrace aggregate send account acc-1 deposit '{"cents":500}' --expected 3 --json`,
      description: "A JSON object, for version 3 only; prints JSON"
    }
  ])
)

const list = Command.make(
  "list",
  {
    data,
    config,
    name: target.name,
    recent: Flag.Boolean("recent").pipe(
      Flag.withDescription("Those that were appended to last, the newest first; default: by their ids"),
      Flag.withDefault(false)
    ),
    prefix: optionalText("prefix", "Only ids that begin so"),
    after: optionalText("after", "Only ids behind this one, as the last line of the page before says it"),
    limit: Flag.Int("limit").pipe(
      Flag.withDescription("At most this many streams; default: 100"),
      Flag.withDefault(100)
    ),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(actions, (module) =>
        module.list({
          ...flags,
          config: Option.getOrUndefined(flags.config),
          prefix: Option.getOrUndefined(flags.prefix),
          after: Option.getOrUndefined(flags.after)
        })
      )
    )
).pipe(
  Command.withDescription("List the streams of an aggregate that have events, with their versions"),
  Command.withExamples([
    { command: "millrace aggregate list account --recent --limit 10", description: "The last ones that changed" }
  ])
)

const show = Command.make(
  "show",
  {
    ...target,
    version: Flag.optional(
      Flag.Int("version").pipe(Flag.withDescription("The state as it was at this version; default: the newest"))
    ),
    at: optionalText("at", 'The state as it was then: a date, or a duration before now such as "2 hours"'),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(actions, (module) =>
        module.show({
          ...flags,
          config: Option.getOrUndefined(flags.config),
          version: Option.getOrUndefined(flags.version),
          at: Option.getOrUndefined(flags.at)
        })
      )
    )
).pipe(
  Command.withDescription("Print the state of an aggregate, as its events make it. Exits with 1 if it has no events"),
  Command.withExamples([{ command: "millrace aggregate show account acc-1", description: "The newest state" }])
)

const events = Command.make(
  "events",
  {
    ...target,
    from: Flag.Int("from").pipe(
      Flag.withDescription("The version of the first event to print; default: 1"),
      Flag.withDefault(1)
    ),
    limit: Flag.Int("limit").pipe(
      Flag.withDescription("At most this many events; default: 1000"),
      Flag.withDefault(1_000)
    ),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(actions, (module) => module.events({ ...flags, config: Option.getOrUndefined(flags.config) }))
    )
).pipe(
  Command.withDescription(
    "Print the events of an aggregate, in order. With --json one object a line. Exits with 1 if it has none"
  ),
  Command.withExamples([
    { command: "millrace aggregate events account acc-1 --from 100", description: "From version 100 on" }
  ])
)

const archive = Command.make(
  "archive",
  {
    ...target,
    dryRun: toggle("dry-run", "Print whether it would be archived, and at which version, and change nothing"),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(actions, (module) => module.archive({ ...flags, config: Option.getOrUndefined(flags.config) }))
    )
).pipe(
  Command.withDescription(
    "Archive a stream: it takes no more events, and its events stay. It cannot be undone. Exits with 1 if it has no events"
  ),
  Command.withExamples([{ command: "millrace aggregate archive account acc-1", description: "Close one stream" }])
)

/** `millrace aggregate send|list|show|events|archive`. */
export const aggregate = Command.make("aggregate").pipe(
  Command.withDescription(
    "Send commands to aggregates, list their streams, show their states and events, and archive them"
  ),
  Command.withSubcommands([send, list, show, events, archive])
)
