// Runs `millrace dev`: all roles of a system in one process, fed from a file if one is given.
import { existsSync, readFileSync } from "node:fs"
import * as Effect from "effect/Effect"
import { countEvents, countRows } from "../postgres/store/status.ts"
import { readTimers } from "../postgres/store/timer-status.ts"
import { loadApplication, type AnyApplication } from "./config.ts"
import { drained } from "./shutdown.ts"
import { CommandFailed, exitCodes, usageError } from "./command-failure.ts"
import { feed, type FeedOptions, feedProgress, type FeedResult } from "./feed.ts"
import { type ClientTls, clientTls } from "./http-client.ts"
import type { Progress } from "./progress.ts"
import { readHotKeys } from "./hot-keys.ts"
import { topicsOf } from "../model/application.ts"
import { alertsTopic } from "../server/streams/routes.ts"
import type { TlsOptions } from "../server/http/tls.ts"
import { watchAlerts } from "./print-alerts.ts"
import { watchAggregates } from "./print-aggregates.ts"
import { openDatabase, type Database } from "../system/database.ts"
import { dataFlag } from "../system/build-text.ts"
import { openSystem, readDeployments, type System } from "../system/system.ts"
import { untilProcessed } from "../system/until-processed.ts"
import { print } from "./print.ts"
import { httpOptions } from "./http-options.ts"
import { queryOf, readModelsOf, readModelsText } from "./print-read-models.ts"
import { ownCommand } from "./own-command.ts"
import { isLocal, openWaiting, roles, runLoops, serveHttp, servicesText, type WaitingOptions } from "./serve.ts"
import { assertPortFree } from "../server/port.ts"
import { terminalText } from "./terminal-text.ts"
import { maskSecrets } from "../text/secrets.ts"
import { counted } from "../text/counted.ts"

/** The flags of the command. */
export interface DevFlags {
  readonly data: string
  readonly config: string | undefined
  readonly features: string | undefined
  /** Files of lookup topics: `TOPIC=FILE`. */
  readonly lookup: ReadonlyArray<string>
  readonly input: string | undefined
  readonly speed: number | "max"
  readonly once: boolean
  readonly json: boolean
  readonly port: number
  readonly host: string | undefined
  readonly insecure: boolean
}

/** A file of values for a lookup topic. */
interface LookupFile {
  readonly topic: string
  readonly file: string
}
/** The flags, and the files of lookup topics that they name. */
interface DevOptions extends DevFlags {
  readonly lookups: ReadonlyArray<LookupFile>
}

/** Prints a line for people: to standard error if standard output is for JSON. */
const printLine = (options: DevFlags, line: string) =>
  Effect.sync(() => (options.json ? process.stderr : process.stdout).write(`${terminalText(line)}\n`))

/** Runs until stopped; with `once`, until everything that was sent is processed by the projections and published by the relays. */
export const dev = Effect.fnUntraced(function* (options: DevFlags) {
  const application = yield* loadApplication(options.config)
  const lookups = yield* lookupFiles(application, options)
  const services = yield* servicesText(options.data)
  yield* printLine(options, `millrace ${application.name} runs against ${services}`)
  const waiting = { address: yield* httpOptions(options), services, hasRoutes: true, isLocal: yield* isLocal }
  yield* assertPortFree(waiting.address)
  if (waiting.isLocal && !existsSync(options.data))
    yield* printLine(options, `creating the database in ${options.data}: once, and some seconds long`)
  const database = yield* openWaiting(openDatabase(options.data, "own"), waiting)
  return yield* drained(runSystem(application, database, { ...options, lookups }, waiting))
})

const runSystem = Effect.fnUntraced(function* (
  application: AnyApplication,
  database: Database,
  options: DevOptions,
  waiting: WaitingOptions
) {
  const system = yield* openWaiting(openSystem(application, database, { makesTopics: true }), waiting)
  const server = yield* serveHttp(system, roles, waiting.address, options)
  yield* printLine(options, banner(application, options, database, server.url))
  if (!options.json && !options.once) {
    const show = (line: string) => printLine(options, line)
    if (hasAlerts(application)) yield* Effect.forkScoped(watchAlerts(system, show))
    yield* readHotKeys({
      // the environment is the same, the folder of the state may be given
      flags: ["--data", options.data, ...(options.config === undefined ? [] : ["--config", options.config])],
      url: server.url,
      show: (line) => void process.stdout.write(`${terminalText(line)}\n`)
    })
    yield* Effect.forkScoped(watchAggregates(system, dataFlag(database.embeddedDir), show))
  }
  const work = Effect.gen(function* () {
    const { fed, here, ...result } = yield* sendFiles(system, options, {
      url: server.url,
      ...(waiting.address.tls && { tls: yield* ownTls(waiting.address.tls) })
    })
    if (options.json) yield* print(JSON.stringify(result))
    else if (options.input !== undefined)
      yield* printLine(options, summary({ ...result, ...here }, dataFlag(database.embeddedDir)))
    if (fed.rejected > 0) yield* printLine(options, rejections(fed))
    if (options.once) return fed.rejected > 0 ? exitCodes.rejected : 0
    if (options.input !== undefined) {
      if (!options.json)
        yield* printLine(options, yield* readModelsText(system, `${ownCommand} sql${dataFlag(database.embeddedDir)}`))
      yield* printLine(options, `\n${yield* processedText(system)} The system keeps running; stop it with Ctrl-C.`)
      const { waiting } = yield* readTimers(database.sql)
      if (waiting > 0)
        yield* printLine(
          options,
          `${waiting} ${waiting === 1 ? "timer waits and fires" : "timers wait and fire"} while it runs: ${ownCommand} timers list${dataFlag(database.embeddedDir)}`
        )
    }
    return yield* Effect.never
  })
  return yield* Effect.raceFirst(work, runLoops(system, roles))
})

/** What became of what was sent: all is processed, or waits until a new version takes the place of the one that readers see. */
const processedText = Effect.fnUntraced(function* (system: System) {
  const waiting = (yield* Effect.orElseSucceed(readDeployments(system), () => [])).filter(
    ({ isLiveHere }) => !isLiveHere
  )
  if (waiting.length === 0) return "All events are processed."
  const texts = waiting.map((one) => `Projection ${one.projection}: ${one.message}. Next: ${one.try}`)
  return `The log has all events. ${texts.join("\n")}.`
})
/** Whether an application has the topic that the server streams at `/v1/alerts`. */
const hasAlerts = (application: AnyApplication) => topicsOf(application).some(({ topic }) => topic.name === alertsTopic)
const banner = (application: AnyApplication, { data }: DevFlags, database: Database, url: string) => {
  const flag = dataFlag(database.embeddedDir)
  const [aggregate] = application.aggregates
  const [readModel] = readModelsOf(application)
  const query = readModel && queryOf(readModel)
  return [
    `Millrace is running.`,
    `  console        ${url}`,
    `  send events    POST ${url}/v1/events`,
    ...(hasAlerts(application) ? [`  alerts (SSE)   curl -N ${url}/v1/alerts`] : []),
    ...(aggregate === undefined
      ? []
      : [`  send commands  POST ${url}/v1/aggregates/${aggregate.name}/ID/commands/COMMAND`]),
    `  docs           ${url}/docs`,
    `  metrics        ${url}/metrics`,
    `  database       psql "$(${ownCommand} url${flag})"`,
    `  data           kept in ${database.embedded ? data : "this database"}`,
    ...(query === undefined ? [] : [`  query          ${ownCommand} sql${flag} "${query}"`]),
    `  status         ${ownCommand} status${flag}`,
    ""
  ].join("\n")
}

/** The files of `--features` and `--lookup`. Fails if a topic is not a lookup topic of the application, or a file is not named. */
const lookupFiles = Effect.fnUntraced(function* (application: AnyApplication, { features, lookup }: DevFlags) {
  const topics = new Set(
    application.projections.flatMap(({ projection }) => Object.values(projection.enrich).map(({ topic }) => topic.name))
  )
  const files: Array<LookupFile> = []
  if (features !== undefined) {
    const [topic] = topics
    if (topic === undefined || topics.size > 1)
      return yield* new CommandFailed({
        message: `--features needs an application with exactly one lookup topic; this one has ${topics.size}`,
        try: topics.size === 0 ? "leave --features out" : `--lookup TOPIC=FILE, with one of ${[...topics].join(", ")}`
      })
    files.push({ topic, file: features })
  }
  for (const text of lookup) {
    const [, topic = "", file = ""] = /^([^=]*)=(.*)$/s.exec(text) ?? []
    if (topic === "" || file === "")
      return yield* usageError(`--lookup is '${text}'; it must be TOPIC=FILE`, "--lookup customers.v1=customers.ndjson")
    if (!topics.has(topic))
      return yield* usageError(
        `--lookup names '${topic}', which no projection of ${application.name} looks up`,
        topics.size === 0 ? "leave --lookup out" : `one of ${[...topics].join(", ")}`
      )
    files.push({ topic, file })
  }
  return files
})

/** How this process recognizes its own server: by the certificate that this has, whatever its name is. */
const ownTls = ({ cert }: TlsOptions) =>
  Effect.try({
    try: (): ClientTls => ({
      ...clientTls(),
      ca: `${clientTls().ca ?? ""}${readFileSync(cert, "utf8")}`,
      isOwnServer: true
    }),
    catch: (error) => error
  })

/** Sends the files, waits until they are processed, and returns the counts of `--json`. */
const sendFiles = Effect.fnUntraced(function* (
  system: System,
  options: DevOptions,
  gateway: Pick<FeedOptions, "url" | "tls">
) {
  const before = yield* countsOf(system)
  for (const { file, topic } of options.lookups) {
    const fed = yield* feed(file, { ...gateway, topic, speed: "max" })
    if (fed.rejected > 0) {
      return yield* new CommandFailed({
        message: `the gateway rejected ${counted(fed.rejected, "record")} of ${file}, for example ${fed.examples[0]}`,
        exitCode: exitCodes.rejected
      })
    }
  }
  const started = performance.now()
  const nothing: FeedResult = { accepted: 0, rejected: 0, examples: [] }
  const onProgress = options.json ? undefined : feedProgress(everySeconds(5, ({ text }) => `… ${text}`))
  const fed =
    options.input === undefined
      ? nothing
      : yield* feed(options.input, {
          ...gateway,
          topic: undefined,
          speed: options.speed,
          ...(onProgress && { onProgress })
        })
  if (options.input !== undefined || options.once) yield* untilProcessed(system)
  const seconds = (performance.now() - started) / 1000
  const after = yield* countsOf(system)
  return {
    events: fed.accepted,
    duplicates: after.duplicates - before.duplicates,
    late: after.late,
    ...(after.alerts !== undefined && { alerts: after.alerts }),
    dead_letters: after.deadLetters,
    seconds: Number(seconds.toFixed(3)),
    events_per_second: Math.round(fed.accepted / seconds),
    // programs read it after a run; only the embedded database's password is nobody else's
    database_url: options.once && system.database.embedded ? system.database.url : maskSecrets(system.database.url),
    fed,
    // for people: what is of this run, and what waits for them
    here: {
      late: after.late - before.late,
      dead_letters: after.deadLetters - before.deadLetters,
      open: after.openDeadLetters
    }
  }
})

/** Prints a line, but not more often than this. */
const everySeconds = (seconds: number, line: (progress: Progress) => string) => {
  let last = performance.now()
  return (progress: Progress) => {
    if (performance.now() - last < seconds * 1000) return
    last = performance.now()
    process.stdout.write(`${line(progress)}\n`)
  }
}

const countsOf = Effect.fnUntraced(function* ({ application, database: { sql } }: System) {
  const hasTable = hasAlerts(application) && readModelsOf(application).some(({ name }) => name === "alerts")
  return { ...(yield* countEvents(sql)), alerts: hasTable ? yield* countRows(sql, "alerts") : undefined }
})

type Sent = Effect.Success<ReturnType<typeof sendFiles>>
type DevSummary = Omit<Sent, "fed" | "here"> & Sent["here"]
const summary = (result: DevSummary, flag: string) =>
  `\n${counted(result.events, "event")} in ${result.seconds} s (${result.events_per_second}/s): ` +
  `${result.alerts === undefined ? "" : `${counted(result.alerts, "alert")}, `}${counted(result.duplicates, "duplicate")}, ` +
  `${result.late} late for a window, ${counted(result.dead_letters, "dead letter")}` +
  (result.open === 0
    ? ""
    : `\n${counted(result.open, "dead letter")} ${result.open === 1 ? "waits" : "wait"} for a decision: ${ownCommand} dlq list${flag}`) +
  (result.duplicates > 0 && result.duplicates === result.events
    ? "\nAll events were in the log already. To process them again use another --data DIR, or delete this one."
    : "") +
  "\n"
const rejections = ({ examples, rejected }: FeedResult) =>
  `The gateway rejected ${counted(rejected, "event")}, which ${rejected === 1 ? "is" : "are"} not in the log:\n  ${examples.join("\n  ")}`
