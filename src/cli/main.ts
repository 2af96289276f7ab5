// The `millrace` command line: what there is to say, and which function does it. Commands load what they need when they run.
import { readFileSync } from "node:fs"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Cause from "effect/Cause"
import { Argument, Command, Flag } from "effect/cli"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { dlqOf } from "./dlq.ts"
import { pulsarOf } from "./pulsar.ts"
import { CommandFailed, exitCodeOf, exitCodes, explain, isBrokenPipe } from "./command-failure.ts"
import { subscribeOf } from "./subscribe.ts"

const text = (flag: Flag.Flag<string>) => Flag.optional(flag)
const data = Flag.String("data").pipe(
  Flag.withDescription("State directory of the embedded PostgreSQL; MILLRACE_DATABASE_URL replaces it"),
  Flag.withDefault(".millrace")
)
const config = text(
  Flag.String("config").pipe(Flag.withDescription("The application; default: millrace.config.ts here"))
)
const json = Flag.Boolean("json").pipe(Flag.withDescription("Print JSON for programs"), Flag.withDefault(false))
const port = Flag.Int("port").pipe(
  Flag.withDescription("Port of the HTTP server on 127.0.0.1; 0 picks a free one"),
  Flag.withDefault(7070)
)

/** Runs a command's effect and leaves its exit code. Errors are told here, in the same form for all. */
const ending = (run: Effect.Effect<number, unknown, Scope.Scope>) =>
  Effect.scoped(run).pipe(
    Effect.matchCause({
      onSuccess: (code) => code,
      onFailure: (cause) => {
        if (Cause.hasInterruptsOnly(cause)) return 0
        const error = Cause.squash(cause)
        process.stderr.write(`${explain(error)}\n`)
        return exitCodeOf(error)
      }
    }),
    Effect.tap((code) => Effect.sync(() => (process.exitCode = code)))
  )

const speedOf = (speed: string): Effect.Effect<number | "max", CommandFailed> => {
  const rate = Number(speed)
  return speed === "max"
    ? Effect.succeed(speed)
    : rate > 0 && Number.isFinite(rate)
      ? Effect.succeed(rate)
      : Effect.fail(
          new CommandFailed({
            message: `--speed ${speed} is no speed`,
            try: "--speed max, or events a second as in --speed 500",
            exitCode: exitCodes.usage
          })
        )
}

const dev = Command.make(
  "dev",
  {
    data,
    config,
    features: text(
      Flag.String("features").pipe(Flag.withDescription("NDJSON (or .gz) for the lookup topic, sent before the input"))
    ),
    input: text(
      Flag.String("input").pipe(
        Flag.withDescription("NDJSON (or .gz) of events, sent through the gateway in file order")
      )
    ),
    speed: Flag.String("speed").pipe(Flag.withDescription("Events a second, or max"), Flag.withDefault("max")),
    once: Flag.Boolean("once").pipe(
      Flag.withDescription("Exit when everything is projected and relayed"),
      Flag.withDefault(false)
    ),
    json,
    port
  },
  (flags) =>
    ending(
      Effect.gen(function* () {
        const speed = yield* speedOf(flags.speed)
        const module = yield* Effect.promise(() => import("./dev.ts"))
        const { config, features, input } = flags
        return yield* module.dev({
          ...flags,
          speed,
          config: Option.getOrUndefined(config),
          features: Option.getOrUndefined(features),
          input: Option.getOrUndefined(input)
        })
      })
    )
).pipe(
  Command.withDescription("Run everything in one process on the embedded database"),
  Command.withExamples([
    { command: "millrace dev", description: "Run the application of millrace.config.ts" },
    {
      command: "millrace dev --input events.ndjson.gz --speed max --once --json",
      description: "Send a file, wait until it is projected, print figures"
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
      Flag.withDescription("What this process does: gateway, projections, relay, api"),
      Flag.withDefault("gateway,projections,relay,api")
    ),
    port,
    json
  },
  (flags) =>
    ending(
      Effect.flatMap(Effect.promise(commands), (module) =>
        module.start({ ...flags, config: Option.getOrUndefined(flags.config) })
      )
    )
).pipe(Command.withDescription("Run some or all roles until stopped"))

const migrate = Command.make("migrate", { data, config, json }, (flags) =>
  ending(
    Effect.flatMap(Effect.promise(commands), (module) =>
      module.migrate({ ...flags, config: Option.getOrUndefined(flags.config) })
    )
  )
).pipe(Command.withDescription("Bring the database up to date with this version and this application"))

const ingest = Command.make(
  "ingest",
  {
    data,
    config,
    topic: text(
      Flag.String("topic").pipe(Flag.withDescription("Any declared topic; default: where an event's type belongs"))
    ),
    file: Argument.String("file").pipe(Argument.withDescription("NDJSON, or .gz of it; - is standard input")),
    json
  },
  (flags) =>
    ending(
      Effect.flatMap(Effect.promise(commands), (module) =>
        module.ingest({
          ...flags,
          config: Option.getOrUndefined(flags.config),
          topic: Option.getOrUndefined(flags.topic)
        })
      )
    )
).pipe(Command.withDescription("Send NDJSON through the gateway at MILLRACE_URL, or straight to the log"))

const status = Command.make("status", { data, json }, (flags) =>
  ending(Effect.flatMap(Effect.promise(commands), (module) => module.status(flags)))
).pipe(
  Command.withDescription(
    "Show positions, lags, relays, and dead letters of projections and relays (dlq list has all); exit 0 only when healthy"
  )
)

const sql = Command.make(
  "sql",
  {
    data,
    format: Flag.Literals("format", ["table", "tsv", "csv", "json"]).pipe(
      Flag.withDescription("How rows are printed"),
      Flag.withDefault("table")
    ),
    write: Flag.Boolean("write").pipe(
      Flag.withDescription("Allow changes; without it the query only reads"),
      Flag.withDefault(false)
    ),
    query: Argument.String("query").pipe(Argument.withDescription("One SQL query"))
  },
  (flags) => ending(Effect.flatMap(Effect.promise(commands), (module) => module.sql(flags)))
).pipe(
  Command.withDescription("Query read models and Millrace's own tables"),
  Command.withExamples([
    { command: 'millrace sql "select * from alerts order by score desc limit 5"', description: "The highest alerts" }
  ])
)

const topicsOf = (doing: "plan" | "apply" | "check", description: string) =>
  Command.make(
    doing,
    {
      data,
      config,
      allowRepartition: Flag.Boolean("allow-repartition").pipe(
        Flag.withDescription("Add partitions on Kafka: breaks the order of keys, and projections must be rebuilt"),
        Flag.withDefault(false)
      ),
      json
    },
    (flags) =>
      ending(
        Effect.flatMap(
          Effect.promise(() => import("./topics.ts")),
          (module) => module.topics(doing, { ...flags, config: Option.getOrUndefined(flags.config) })
        )
      )
  ).pipe(Command.withDescription(description))
const topics = Command.make("topics").pipe(
  Command.withDescription(
    "The application's topics on Kafka, or on the embedded log: what is to be done, and doing it"
  ),
  Command.withSubcommands([
    topicsOf("plan", "Show what is to be done: create, change, nothing, or why not"),
    topicsOf("apply", "Show it and do it; nothing where one is refused"),
    topicsOf("check", "Show it; exit 3 where anything differs from what is declared")
  ]),
  Command.withExamples([
    { command: "millrace topics apply", description: "Make the topics of millrace.config.ts before the first start" }
  ])
)

const bridge = Command.make(
  "bridge",
  {
    rules: text(
      Flag.String("rules").pipe(
        Flag.withDescription(
          "JSON, or a module that exports a bridge; default: millrace.bridge.json, .ts, millrace.config.ts"
        )
      )
    ),
    once: Flag.Boolean("once").pipe(
      Flag.withDescription("Mirror what is there now, and exit"),
      Flag.withDefault(false)
    ),
    dryRun: Flag.Boolean("dry-run").pipe(
      Flag.withDescription("Show what each rule would mirror, and exit"),
      Flag.withDefault(false)
    ),
    port: Flag.optional(
      Flag.Int("port").pipe(
        Flag.withDescription("Serve /healthz, /readyz and /metrics on 127.0.0.1; 0 picks a free port")
      )
    ),
    json
  },
  (flags) =>
    ending(
      Effect.flatMap(
        Effect.promise(() => import("./bridge.ts")),
        (module) =>
          module.bridge({
            ...flags,
            rules: Option.getOrUndefined(flags.rules),
            port: Option.getOrUndefined(flags.port)
          })
      )
    )
).pipe(Command.withDescription("Mirror topics between Kafka and Pulsar by rules, exactly once, in both directions"))

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  readonly version: string
}

// without a listener this ends the process with a stack; who writes is told, and who prints a last line need not know
process.stdout.on("error", (error) => {
  if (!isBrokenPipe(error)) throw error
})

Command.make("millrace").pipe(
  Command.withDescription("Event sourcing with projections: one log, one atomic commit, exactly-once publishing"),
  Command.withSubcommands([
    bridge,
    dev,
    start,
    topics,
    migrate,
    ingest,
    status,
    subscribeOf({ data, ending, json }),
    dlqOf({ config, data, ending, json }),
    pulsarOf({ config, ending, json }),
    sql
  ]),
  Command.run({ version }),
  // standard output is for results
  Effect.provide(Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)])),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain({
    disableErrorReporting: true,
    teardown: (exit, done) =>
      done(
        Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause) ? Number(process.exitCode ?? 0) : exitCodes.usage
      )
  })
)
