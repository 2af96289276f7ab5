// `millrace dev`: the whole system in one process on the embedded database, fed from a file if one is given.
import * as Effect from "effect/Effect"
import { loadApplication, type AnyApplication } from "./config.ts"
import { drained } from "./shutdown.ts"
import { CommandFailed, exitCodes } from "./command-failure.ts"
import { feed, type Fed } from "./feed.ts"
import { watchAlerts } from "./print-alerts.ts"
import { openDatabase, type Database } from "../system/database.ts"
import { readStatus } from "../system/observed.ts"
import { openSystem, type System } from "../system/system.ts"
import { roles, runLoops, serveHttp } from "./serve.ts"

/** What `dev` was asked for. */
export interface DevOptions {
  readonly data: string
  readonly config: string | undefined
  readonly features: string | undefined
  readonly input: string | undefined
  readonly speed: number | "max"
  readonly once: boolean
  readonly json: boolean
  readonly port: number
}

const say = (options: DevOptions, line: string) =>
  Effect.sync(() => (options.json ? process.stderr : process.stdout).write(`${line}\n`))

/** Runs until it is stopped; with `once`, until everything that was sent is projected and relayed. */
export const dev = Effect.fnUntraced(function* (options: DevOptions) {
  const application = yield* loadApplication(options.config)
  const database = yield* openDatabase(options.data, "own")
  return yield* drained(live(application, database, options))
})

const live = Effect.fnUntraced(function* (application: AnyApplication, database: Database, options: DevOptions) {
  const system = yield* openSystem(application, database, { makesTopics: true })
  const server = yield* serveHttp(system, roles, options.port)
  yield* say(options, banner(options, database, server.url))
  if (!options.json && !options.once) yield* Effect.forkScoped(watchAlerts(system, (line) => say(options, line)))
  const work = Effect.gen(function* () {
    const { fed, ...result } = yield* run(system, options, server.url)
    if (options.json) process.stdout.write(`${JSON.stringify(result)}\n`)
    else if (options.input !== undefined) yield* say(options, summary(result))
    if (fed.rejected > 0) yield* say(options, rejections(fed))
    if (options.once) return fed.rejected > 0 ? exitCodes.rejected : 0
    if (options.input !== undefined)
      yield* say(options, "Everything is projected. The servers go on; stop them with Ctrl-C.")
    return yield* Effect.never
  })
  return yield* Effect.raceFirst(work, runLoops(system, roles))
})

const banner = ({ data }: DevOptions, database: Database, url: string) => {
  const flag = database.embedded && data !== ".millrace" ? ` --data ${data}` : ""
  return [
    `Millrace is running.`,
    `  send events    POST ${url}/v1/events`,
    `  alerts (SSE)   curl -N ${url}/v1/alerts`,
    `  docs           ${url}/docs`,
    `  metrics        ${url}/metrics`,
    `  database       psql ${database.url}`,
    `  data           kept in ${database.embedded ? data : "that database"}`,
    `  look           npx millrace sql${flag} "select * from alerts order by score desc limit 5"`,
    `  how it is      npx millrace status${flag}`,
    ""
  ].join("\n")
}

/** The topic of what is known: the only one that events are looked up in. */
const featuresTopic = (application: AnyApplication) => {
  const lookups = new Set(
    application.projections.flatMap(({ projection }) => Object.values(projection.enrich).map(({ topic }) => topic.name))
  )
  const [first] = lookups
  return first !== undefined && lookups.size === 1
    ? Effect.succeed(first)
    : Effect.fail(
        new CommandFailed({
          message: `--features is for applications with one lookup topic; this one has ${lookups.size}`,
          try: `millrace ingest --topic TOPIC FILE${lookups.size > 0 ? `, with one of ${[...lookups].join(", ")}` : ""}`
        })
      )
}

const run = Effect.fnUntraced(function* (system: System, options: DevOptions, url: string) {
  const before = yield* counts(system)
  if (options.features !== undefined) {
    const topic = yield* featuresTopic(system.application)
    const fed = yield* feed(options.features, { url, topic, speed: "max" })
    if (fed.rejected > 0) {
      return yield* new CommandFailed({
        message: `${fed.rejected} values of ${options.features} were rejected, as ${fed.examples[0]}`,
        exitCode: exitCodes.rejected
      })
    }
  }
  const started = performance.now()
  const nothing: Fed = { accepted: 0, rejected: 0, examples: [] }
  const progress =
    options.json || options.speed === "max" ? undefined : everySeconds(5, (fed: Fed) => `… ${fed.accepted} events sent`)
  const fed =
    options.input === undefined
      ? nothing
      : yield* feed(options.input, { url, topic: undefined, speed: options.speed, ...(progress && { progress }) })
  if (options.input !== undefined || options.once) yield* settled(system)
  const seconds = (performance.now() - started) / 1000
  const after = yield* counts(system)
  return {
    events: fed.accepted,
    duplicates: after.duplicates - before.duplicates,
    late: after.late,
    alerts: after.alerts,
    dead_letters: after.dead_letters,
    seconds: Number(seconds.toFixed(3)),
    events_per_second: Math.round(fed.accepted / seconds),
    database_url: system.database.url,
    fed
  }
})

/** Prints at most one line in so many seconds. */
const everySeconds = (seconds: number, line: (fed: Fed) => string) => {
  let last = performance.now()
  return (fed: Fed) => {
    if (performance.now() - last < seconds * 1000) return
    last = performance.now()
    process.stdout.write(`${line(fed)}\n`)
  }
}

/** Waits until projections have handled what was in the log when this began, and relays have shipped what that published. */
const settled = Effect.fnUntraced(function* (system: System) {
  const { database, log } = system
  const topics = yield* Effect.promise(
    () => database.sql<Array<{ topic: string }>>`select distinct topic from millrace.progress`
  )
  const ends = new Map<string, number>()
  for (const { topic } of topics) {
    for (const { end, partition } of yield* log.bounds(topic)) ends.set(`${topic}/${partition}`, end)
  }
  while (true) {
    const { projections, relays } = yield* readStatus(system)
    const halted = projections.find((projection) => projection.halted !== null)
    if (halted !== undefined) {
      return yield* new CommandFailed({
        message: `${halted.name} ${halted.topic}/${halted.partition} stands still: ${halted.halted}`,
        exitCode: exitCodes.unhealthy
      })
    }
    const stopped = relays.find((target) => target.halted !== null)
    if (stopped !== undefined) {
      return yield* new CommandFailed({
        message: `the relay to ${stopped.target} stands still: ${stopped.halted}`,
        exitCode: exitCodes.unhealthy
      })
    }
    const behind = projections.some(
      ({ partition, position, topic }) => position < (ends.get(`${topic}/${partition}`) ?? 0)
    )
    if (!behind && relays.every(({ lag }) => lag === 0)) return
    yield* Effect.sleep("15 millis")
  }
})

const counts = Effect.fnUntraced(function* ({ application, database: { sql } }: System) {
  const hasAlerts = application.projections.some(({ projection }) =>
    projection.writes.some(
      (target: { kind: string; name: string }) => target.kind !== "topic" && target.name === "alerts"
    )
  )
  return yield* Effect.promise(async () => {
    const [row] = await sql<Array<{ duplicates: number; late: number; alerts: number; dead_letters: number }>>`
      select (select coalesce(sum(duplicates), 0)::int8 from millrace.progress) as duplicates,
        (select count(*) from millrace.late_events) as late,
        ${hasAlerts ? sql`(select count(*) from alerts)` : sql`0::int8`} as alerts,
        (select count(*) from millrace.dead_letters) as dead_letters`
    return row!
  })
})

type Result = Omit<Effect.Success<ReturnType<typeof run>>, "fed">
const summary = (result: Result) =>
  `\n${result.events} events in ${result.seconds} s (${result.events_per_second}/s): ${result.alerts} alerts, ${result.duplicates} duplicates, ` +
  `${result.late} late for a window, ${result.dead_letters} dead letters` +
  (result.duplicates > 0 && result.duplicates === result.events
    ? "\nEverything was there already. Name another --data DIR, or delete this one, to see it flow again."
    : "")
const rejections = ({ examples, rejected }: Fed) =>
  `${rejected} events were rejected by the gateway and are not in the log:\n  ${examples.join("\n  ")}`
