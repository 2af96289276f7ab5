// The `millrace` command line: defines the commands and their flags. What a command does is loaded when it runs.
import { readFileSync } from "node:fs"
import * as NodeChildProcessSpawner from "@effect/platform-node-shared/NodeChildProcessSpawner"
import * as NodeFileSystem from "@effect/platform-node-shared/NodeFileSystem"
import * as NodePath from "@effect/platform-node-shared/NodePath"
import * as NodeRuntime from "@effect/platform-node-shared/NodeRuntime"
import * as NodeStdio from "@effect/platform-node-shared/NodeStdio"
import * as NodeTerminal from "@effect/platform-node-shared/NodeTerminal"
import * as Cause from "effect/Cause"
import { Argument, Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import { type CommandFailed, exitCodes, usageError } from "./command-failure.ts"
import { aggregate } from "./aggregate.ts"
import { withStatements } from "./arguments.ts"
import { dlq } from "./dlq.ts"
import { doctor } from "./doctor.ts"
import { explain } from "./explain.ts"
import { config, data, http, json, optionalText, ownConfig, port, runToExitCode, settings, toggle } from "./flags.ts"
import { portFlag, portOf } from "./http-port.ts"
import { init } from "./init.ts"
import { watchOutput } from "./output-errors.ts"
import { pulsar } from "./pulsar.ts"
import { diff } from "./diff.ts"
import { rebuild } from "./rebuild.ts"
import { reenrich } from "./reenrich.ts"
import { pause, resume } from "./pause.ts"
import { promote } from "./promote.ts"
import { erase, exportSubject } from "./erase.ts"
import { retire } from "./retire.ts"
import { settingsOfProcess } from "./settings-file.ts"
import { showConfig } from "./show-config.ts"
import { subscribe } from "./subscribe.ts"
import { tail } from "./tail.ts"
import { keys } from "./keys.ts"
import { terminalText } from "./terminal-text.ts"
import { timers } from "./timers.ts"
import { topics } from "./topics.ts"
import { maskSecrets } from "../text/secrets.ts"

const speedOf = (speed: string): Effect.Effect<number | "max", CommandFailed> => {
  const rate = Number(speed)
  return speed === "max"
    ? Effect.succeed(speed)
    : rate > 0 && Number.isFinite(rate)
      ? Effect.succeed(rate)
      : Effect.fail(
          usageError(
            `--speed is '${speed}'; it must be max or a number of events per second`,
            "--speed max, or --speed 500"
          )
        )
}

const dev = Command.make(
  "dev",
  {
    data,
    config,
    lookup: Flag.String("lookup").pipe(
      Flag.withDescription(
        "TOPIC=FILE: values of a lookup topic, sent before the input: NDJSON, also .gz; may be given several times"
      ),
      Flag.atLeast(0)
    ),
    features: optionalText("features", "The same for an application with one lookup topic: only the file"),
    input: optionalText("input", "File of events, sent to the gateway in the order of the file: NDJSON, also .gz"),
    speed: Flag.String("speed").pipe(
      Flag.withDescription("How fast the input is sent: events per second, or max; default: max"),
      Flag.withDefault("max")
    ),
    once: toggle("once", "Exit when all events are processed by the projections and published by the relays"),
    json,
    port,
    ...http
  },
  (flags) =>
    runToExitCode(
      Effect.gen(function* () {
        const speed = yield* speedOf(flags.speed)
        const module = yield* Effect.promise(() => import("./dev.ts"))
        const { config, features, input } = flags
        return yield* module.dev({
          ...flags,
          speed,
          port: (yield* portOf(Option.getOrUndefined(flags.port))) ?? 7070,
          host: Option.getOrUndefined(flags.host),
          config: Option.getOrUndefined(config),
          features: Option.getOrUndefined(features),
          input: Option.getOrUndefined(input)
        })
      }),
      { untilStopped: !flags.once }
    )
).pipe(
  Command.withDescription("Run all roles in one process, on the embedded database unless MILLRACE_DATABASE_URL is set"),
  Command.withExamples([
    { command: "millrace dev", description: "Run the application of millrace.config.ts" },
    {
      command: "millrace dev --input events.ndjson.gz --speed max --once --json",
      description: "Send a file, wait until it is processed, print the counts"
    }
  ])
)

const commands = () => import("./commands.ts")
const start = Command.make(
  "start",
  {
    data,
    config,
    roles: Flag.String("roles").pipe(
      Flag.withDescription("What this process does, separated by commas; default: gateway,projections,relay,api"),
      Flag.withDefault("gateway,projections,relay,api")
    ),
    port: Flag.optional(
      Flag.Int("port").pipe(
        Flag.withDescription(
          "Port of the HTTP server, which every role has: /healthz, /readyz, /metrics, /status; 0 picks a free port; default: MILLRACE_HTTP_PORT, or 7070 for a gateway or an api, else a free one"
        )
      )
    ),
    ...http,
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(Effect.promise(commands), (module) =>
        module.start({
          ...flags,
          host: Option.getOrUndefined(flags.host),
          config: Option.getOrUndefined(flags.config),
          port: Option.getOrUndefined(flags.port)
        })
      ),
      { untilStopped: true }
    )
).pipe(Command.withDescription("Run some or all roles of the system until stopped"))

const migrate = Command.make(
  "migrate",
  {
    data,
    config,
    adopt: toggle(
      "adopt",
      "The database is this application's from now on: after the application was renamed, or the database was restored or moved and replaces the original"
    ),
    newIdentity: toggle(
      "new-identity",
      "The database is a copy that runs beside the original: give it names of its own on Kafka and Pulsar"
    ),
    accept: optionalText(
      "accept",
      "A projection whose functions changed and record the same as before: its rows go on with them, and no start warns any more"
    ),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(Effect.promise(commands), (module) =>
        module.migrate({
          ...flags,
          config: Option.getOrUndefined(flags.config),
          accept: Option.getOrUndefined(flags.accept)
        })
      )
    )
).pipe(
  Command.withDescription("Update the database to this version of Millrace, and create the tables of the application")
)

const ingest = Command.make(
  "ingest",
  {
    data,
    config,
    topic: optionalText("topic", "A topic of the application; default: the topic of each event's type"),
    file: Argument.String("file").pipe(Argument.withDescription("NDJSON, also .gz; - is standard input")),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(Effect.promise(commands), (module) =>
        module.ingest({
          ...flags,
          config: Option.getOrUndefined(flags.config),
          topic: Option.getOrUndefined(flags.topic)
        })
      )
    )
).pipe(
  Command.withDescription(
    "Send the events of a file to the gateway at MILLRACE_URL; if that is not set, append them to the log"
  )
)

const status = Command.make(
  "status",
  {
    data,
    config: ownConfig,
    maxAge: optionalText(
      "max-age",
      'How long a record or a message may wait before the system is not healthy, such as "2 minutes"; default: MILLRACE_HEALTH_MAX_AGE, or 1 minute'
    ),
    partitions: toggle(
      "partitions",
      "A row for each partition; without it, partitions of a projection that are up to date share one"
    ),
    watch: toggle("watch", "Show it again every 2 seconds, in place of the last one in a terminal, until stopped"),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(Effect.promise(commands), (module) =>
        module.status({
          ...flags,
          config: Option.getOrUndefined(flags.config),
          maxAge: Option.getOrUndefined(flags.maxAge)
        })
      ),
      { untilStopped: flags.watch }
    )
).pipe(
  Command.withDescription(
    "Print how far projections and relays are behind, which processes run, what is wrong and what to do, and how many dead letters there are (dlq list shows all). Exits with 3 if the system is not healthy"
  )
)

const sql = Command.make(
  "sql",
  {
    data,
    format: Flag.Literals("format", ["table", "tsv", "csv", "json"]).pipe(
      Flag.withDescription("How rows are printed; default: table"),
      Flag.withDefault("table")
    ),
    write: toggle("write", "Allow the query to change data"),
    query: Argument.String("query").pipe(Argument.withDescription("One SQL query"))
  },
  (flags) =>
    runToExitCode(
      Effect.flatMap(
        Effect.promise(() => import("./sql.ts")),
        (module) => module.sql(flags)
      )
    )
).pipe(
  Command.withDescription(
    "Run a SQL query on the database: read models, and Millrace's own tables. It cannot change anything unless --write is given"
  ),
  Command.withExamples([
    { command: 'millrace sql "select * from orders order by total desc limit 5"', description: "The largest orders" }
  ])
)

const url = Command.make("url", { data, reader: toggle("reader", "The URL of the role that can only read") }, (flags) =>
  runToExitCode(
    Effect.flatMap(
      Effect.promise(() => import("./url.ts")),
      (module) => module.url(flags)
    )
  )
).pipe(
  Command.withDescription(
    "Print the URL of the database with its password, for other programs. Exits with 3 if the embedded database does not run"
  ),
  Command.withExamples([{ command: 'psql "$(npx millrace url)"', description: "Open a session on the database" }])
)

const bridge = Command.make(
  "bridge",
  {
    rules: optionalText(
      "rules",
      "File of the rules: JSON, or a module that exports a bridge; default: millrace.bridge.json, .ts, millrace.config.ts"
    ),
    once: toggle("once", "Mirror what the topics have now, and exit"),
    dryRun: toggle("dry-run", "Print which topics each rule would mirror, and exit"),
    port: Flag.optional(
      Flag.Int("port").pipe(
        Flag.withDescription("Serve /healthz, /readyz and /metrics on 127.0.0.1; 0 picks a free port")
      )
    ),
    json
  },
  (flags) =>
    runToExitCode(
      Effect.gen(function* () {
        const port = yield* portFlag(Option.getOrUndefined(flags.port))
        const module = yield* Effect.promise(() => import("./bridge.ts"))
        return yield* module.bridge({ ...flags, rules: Option.getOrUndefined(flags.rules), port })
      }),
      { untilStopped: !flags.once && !flags.dryRun }
    )
).pipe(
  Command.withDescription(
    "Mirror topics between Kafka and Pulsar by rules, each record exactly once, in both directions"
  )
)

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  readonly version: string
}

/** What the parser of flags uses. The whole of `@effect/platform-node` would bring clients of HTTP and Redis with it. */
const nodeServices = Layer.provideMerge(
  NodeChildProcessSpawner.layer,
  Layer.mergeAll(NodeFileSystem.layer, NodePath.layer, NodeStdio.layer, NodeTerminal.layer)
)
const hasLostOutput = watchOutput()
// before the flags are read, some of which have their defaults from settings
settingsOfProcess()
if (process.argv[2] === "sql") process.argv = [...process.argv.slice(0, 3), ...withStatements(process.argv.slice(3))]

Command.make("millrace").pipe(
  Command.withDescription("Event sourcing with projections: one log, one atomic commit, exactly-once publishing"),
  Command.withSubcommands([
    init,
    bridge,
    dev,
    start,
    topics,
    migrate,
    ingest,
    status,
    doctor,
    showConfig,
    rebuild,
    reenrich,
    diff,
    promote,
    pause,
    resume,
    retire,
    erase,
    exportSubject,
    subscribe,
    tail,
    aggregate,
    timers,
    keys,
    dlq,
    explain,
    pulsar,
    sql,
    url
  ]),
  Command.withGlobalFlags([settings]),
  Command.run({ version }),
  // logs go to standard error: standard output is for results
  Effect.provide(
    Logger.layer([Logger.withConsoleError(Logger.map(Logger.formatLogFmt, (line) => terminalText(maskSecrets(line))))])
  ),
  Effect.provide(nodeServices),
  NodeRuntime.runMain({
    disableErrorReporting: true,
    teardown: (exit, done) => {
      const code =
        Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause) ? Number(process.exitCode ?? 0) : exitCodes.usage
      // the error of the last write arrives after this moment
      setImmediate(() => done(code === 0 && hasLostOutput() ? exitCodes.failed : code))
    }
  })
)
