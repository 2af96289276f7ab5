// What `millrace dev` and `millrace start` share: the roles of a system, its HTTP server, and its loops.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Http from "../server/server.ts"
import { Log } from "../log/log.ts"
import { CommandFailed, exitCodes } from "./command-failure.ts"
import { healthMaxAgeMs, kafkaOptions, pulsarOptions } from "../system/environment.ts"
import { systemMetricsText, withCounts } from "../system/metrics.ts"
import { accessOf, type HttpFlags, type HttpOptions } from "./http-options.ts"
import { defaultLimits } from "../server/http/limits.ts"
import { changeSource } from "../server/changes/source.ts"
import { viewReader } from "../server/views/reader.ts"
import { openQueries } from "../system/database.ts"
import { isLoopbackName } from "../server/http/site-check.ts"
import { logStrayErrors } from "./stray-errors.ts"
import { readStatus } from "../system/observed.ts"
import { pressureParts } from "./pressure.ts"
import { watchPressure } from "../system/pressure.ts"
import { makeReadiness } from "../system/readiness.ts"
import { makeSharedReading } from "../system/shared-reading.ts"
import { runProjections, runRelay, type System } from "../system/system.ts"
import { whenReachable } from "../system/when-reachable.ts"
import { maskSecrets } from "../text/secrets.ts"
import { commaSeparated } from "../text/comma-separated.ts"
import { didYouMean } from "../text/similar-names.ts"

/** The roles that a process can have in a system. */
export const roles = ["gateway", "projections", "relay", "api"] as const
export type Role = (typeof roles)[number]

const adviceOn = ([unknown]: ReadonlyArray<string>): string =>
  (unknown === undefined ? undefined : didYouMean(unknown, roles)) ?? `--roles ${roles.join(",")}, or some of these`
/** Reads roles that are separated by commas. */
export const parseRoles = (text: string): Effect.Effect<ReadonlyArray<Role>, CommandFailed> => {
  const named = commaSeparated(text)
  const unknown = named.filter((role) => !roles.includes(role as Role))
  return unknown.length > 0 || named.length === 0
    ? Effect.fail(
        new CommandFailed({
          message: unknown.length > 0 ? `unknown role ${unknown.join(", ")}` : "--roles names no role",
          try: adviceOn(unknown),
          exitCode: exitCodes.usage
        })
      )
    : Effect.succeed([...new Set(named)] as ReadonlyArray<Role>)
}

/** The port that is used if none is given: the known one for requests, and a free one for monitoring alone, since processes share machines. */
export const defaultPort = (held: ReadonlyArray<Role>): number =>
  held.includes("gateway") || held.includes("api") ? 7070 : 0

/** One line that says against which services the process runs, without passwords. */
export const servicesText = Effect.fnUntraced(function* (dataDir: string) {
  const [kafka, pulsar, url] = [yield* kafkaOptions, yield* pulsarOptions, process.env["MILLRACE_DATABASE_URL"] ?? ""]
  const address = URL.parse(maskSecrets(url))
  const database =
    url === ""
      ? `embedded PostgreSQL in ${dataDir}, because MILLRACE_DATABASE_URL is not set`
      : `PostgreSQL at ${address?.host}${address?.pathname}`
  const log = kafka === undefined ? "the log in the same database" : `the log on Kafka at ${kafka.brokers.join(", ")}`
  const toPulsar = pulsar === undefined ? "no Pulsar" : `Pulsar at ${URL.parse(pulsar.url)?.host}`
  return maskSecrets(`${database}; ${log}; ${toPulsar}`)
})

/** Whether the process uses no service but the embedded database. */
export const isLocal = Effect.gen(function* () {
  return (
    (process.env["MILLRACE_DATABASE_URL"] ?? "") === "" &&
    (yield* kafkaOptions) === undefined &&
    (yield* pulsarOptions) === undefined
  )
})

/** If opening takes longer, the log says so and the port of the process answers, in milliseconds. */
const slowMs = 2_000

/** How a process waits for what it opens. */
export interface WaitingOptions {
  /** Where the process listens; at port 0 nothing is served meanwhile. */
  readonly address: HttpOptions
  /** Whether it will have the routes of the gateway or the API. */
  readonly hasRoutes: boolean
  /** The services that are connected to, for people. */
  readonly services: string
  /** Whether nothing but the embedded database is opened: it may be slow to start, and the log has no line about that. */
  readonly isLocal: boolean
}
/**
 * Opens something of the system, and waits while a service that it needs is away. Meanwhile the log says so, and `/readyz`, `/status` and
 * `/metrics` at the port of the process have the reason: from the first failure on, or after 2 seconds without an answer.
 */
export const openWaiting = Effect.fnUntraced(function* <A, E, R>(
  open: Effect.Effect<A, E, R>,
  { address, hasRoutes, isLocal, services }: WaitingOptions
) {
  const monitoring = yield* Scope.fork(yield* Effect.scope)
  let waitingFor: string | undefined
  const health = {
    ...address,
    isStarting: hasRoutes,
    // nobody's credentials can be checked yet: others than this machine learn nothing but that it is not ready
    access: { isRequired: !isLoopbackName(address.host) },
    ready: Effect.sync(() => ({ ready: false, waiting_for: waitingFor })),
    status: Effect.sync(() => ({ healthy: false, reason: `waiting for a service that is away: ${waitingFor}` })),
    moreMetrics: Effect.suspend(() => systemMetricsText({ value: undefined, ageMs: 0, failure: waitingFor }))
  }
  const waiting = Effect.fnUntraced(function* (reason: string, line: Effect.Effect<void>) {
    const isFirst = waitingFor === undefined
    waitingFor = reason
    yield* line
    if (!isFirst || address.port === 0) return
    yield* Scope.provide(Http.serveHealth(health), monitoring).pipe(
      Effect.catch(({ message }) => Effect.logWarning(message))
    )
  })
  const noAnswer = `no answer yet; connecting to ${services}`
  const slow = Effect.suspend(() =>
    waitingFor === undefined
      ? waiting(
          noAnswer,
          isLocal ? Effect.void : Effect.logInfo(`connecting to ${services} (no answer for ${slowMs / 1000} s)`)
        )
      : Effect.void
  )
  yield* Effect.forkIn(Effect.andThen(Effect.sleep(slowMs), slow), monitoring)
  const opened = yield* whenReachable(open, (reason) =>
    waiting(reason, Effect.logWarning(`waiting for a service that is away: ${reason}`))
  )
  if (waitingFor !== undefined && !(isLocal && waitingFor === noAnswer))
    yield* Effect.logInfo("the service answers; starting")
  yield* Scope.close(monitoring, Exit.void)
  return opened
})

/**
 * How often the status of the system is read for `/metrics` and `/status`, and how long they wait for it, in milliseconds. A page that opens needs two
 * readings for its rates: they follow one another at once, also where each takes long.
 */
const statusReading = { freshMs: 1_000, aheadMs: 15_000, patienceMs: 3_000 }

/** Starts the HTTP server with the routes of the roles, and those for monitoring, which every role has. It is closed with the scope. */
export const serveHttp = Effect.fnUntraced(function* (
  system: System,
  held: ReadonlyArray<Role>,
  address: HttpOptions,
  { insecure }: Pick<HttpFlags, "insecure">
) {
  const access = yield* accessOf(system.database.sql, address, insecure)
  const maxAgeMs = yield* healthMaxAgeMs
  const { presence } = system
  const reading = yield* makeSharedReading(
    withCounts(system.database.sql, readStatus(system, { maxAgeMs })),
    statusReading
  )
  const monitoring = {
    ...address,
    access,
    ready: yield* makeReadiness(system, held),
    status: Effect.map(reading, ({ ageMs, failure, value }) =>
      value === undefined || failure !== undefined
        ? { healthy: false, reason: `the status cannot be read: ${failure ?? "it was not read yet"}` }
        : { ...value.status, read_ms_ago: Math.round(ageMs) }
    ),
    moreMetrics: Effect.flatMap(reading, systemMetricsText),
    pressure: held.includes("gateway")
      ? pressureParts(yield* watchPressure(system.database), (yield* kafkaOptions) === undefined)
      : undefined
  }
  const routes = held.filter((role) => role === "gateway" || role === "api")
  for (const role of routes) yield* presence.add(role)
  if (routes.length === 0) return yield* Http.serveHealth(monitoring)
  const { application, database, eventStore } = system
  const queries = routes.includes("api") ? yield* openQueries(database, defaultLimits.viewMs) : undefined
  const views = queries && {
    views: viewReader(queries, database.sql),
    changes: changeSource(queries, database.sql)
  }
  return yield* Http.serve({ ...monitoring, ...views, application, eventStore, system, roles: routes }).pipe(
    Effect.provideService(Log, system.log)
  )
})

/** Runs the loops of the roles. Fails as soon as one of them fails, or the database has ended for good. */
export const runLoops = (system: System, held: ReadonlyArray<Role>): Effect.Effect<never, unknown> =>
  Effect.scoped(
    Effect.andThen(
      logStrayErrors,
      Effect.raceAllFirst<Effect.Effect<never, unknown>>([
        system.database.failed,
        held.includes("projections") ? Effect.andThen(runProjections(system), Effect.never) : Effect.never,
        held.includes("relay") ? Effect.andThen(runRelay(system), Effect.never) : Effect.never
      ])
    )
  )
