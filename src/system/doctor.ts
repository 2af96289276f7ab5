// The checks of `millrace doctor` about the services of a system and what they have: the database, Kafka, Pulsar, topics, projections, clocks. They change nothing.
import { statfs } from "node:fs/promises"
import { resolve } from "node:path"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { brokerTimeOf } from "../log/log.ts"
import { differs } from "../log/topic-plan.ts"
import type { Application } from "../model/application.ts"
import { query, type Sql } from "../postgres/client/client.ts"
import { pendingMigrations } from "../postgres/client/migrate.ts"
import { checkConnections } from "../postgres/client/server-check.ts"
import { readIdentity } from "../postgres/store/identity.ts"
import { readClock } from "../postgres/store/status.ts"
import { type Check, checked, passed, wrong } from "./check.ts"
import { assertDatabaseExists, type Database, openDatabase, openReader } from "./database.ts"
import { healthMaxAgeMs, kafkaOptions, pulsarOptions } from "./environment.ts"
import { dataFlag } from "./build-text.ts"
import { assertRegistered } from "./identity.ts"
import { openObserved, readStatus } from "./observed.ts"
import { openLog } from "./open-log.ts"
import { specsOf } from "./topics.ts"
import { counted } from "../text/counted.ts"

/** Connections that one process needs, as `openDatabase` counts them. */
const connectionsOfProcess = 12
/** Less free disk space than this is wrong: PostgreSQL stops when there is none. */
const leastFreeBytes = 1 << 30
/** Clocks that differ by more than this make ages and stream time wrong, in milliseconds. */
const clockDifferenceMs = 2_000

const sizeText = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`

interface ServerRow {
  readonly version: string
  readonly role: string
  readonly canCreate: boolean
}
const databaseCheck = ({ embedded, embeddedDir, sql }: Database) =>
  Effect.gen(function* () {
    const [row] = yield* query(
      "look at the server",
      () => sql<Array<ServerRow>>`select current_setting('server_version') as version, current_user::text as role,
        has_database_privilege(current_database(), 'create') and has_schema_privilege('public', 'create') as "canCreate"`
    )
    const { canCreate, role, version } = row!
    if (!canCreate)
      return wrong(
        "database",
        `the role ${role} may not create schemas in the database, and tables in the schema public`,
        `grant create on database NAME to "${role}"; grant create on schema public to "${role}"`
      )
    yield* query("connect", () => checkConnections(sql, connectionsOfProcess))
    const where = embedded ? `embedded in ${embeddedDir}` : "at MILLRACE_DATABASE_URL"
    // connecting has checked the version, the encoding, that it can write, the settings, and poolers
    return passed("database", `PostgreSQL ${version} ${where}, encoded in UTF8, writable by the role ${role}`)
  })

const readerCheck = (dataDir: string) =>
  Effect.gen(function* () {
    if ((process.env["MILLRACE_READER_URL"] ?? "") === "") return []
    yield* openReader(dataDir, { max: 1 })
    return passed("reader", "the role of MILLRACE_READER_URL connects")
  })

const migrationsCheck = ({ embeddedDir, sql }: Database) =>
  Effect.map(pendingMigrations(sql), (pending) =>
    pending.length === 0
      ? passed("migrations", "the schema is up to date")
      : wrong(
          "migrations",
          `${pending.length} are not applied: ${pending[0]}${pending.length > 1 ? " and those after it" : ""}`,
          `millrace migrate${dataFlag(embeddedDir)}`
        )
  )

const identityCheck = (application: Application.Any, sql: Sql) =>
  Effect.gen(function* () {
    yield* assertRegistered(application, sql)
    const found = yield* readIdentity(sql)
    return passed("identity", `the database belongs to the application ${application.name} (id ${found?.id})`)
  })

const topicsCheck = (application: Application.Any, sql: Sql) =>
  Effect.gen(function* () {
    const { on, topics } = yield* openLog(Effect.succeed(sql), { aggregates: "none" })
    const plans = yield* topics.plan(specsOf(application, on))
    const others = plans.filter(differs)
    if (others.length === 0)
      return passed(
        "topics",
        `${counted(plans.length, "topic")} on ${on} ${plans.length === 1 ? "is" : "are"} as declared`
      )
    return others.map(({ action, notes, settings, topic }) => {
      const what =
        action === "create"
          ? "does not exist"
          : [...notes, ...settings.map(({ from, name, to }) => `${name} is ${from}, declared is ${to}`)].join("; ")
      return wrong("topics", `${topic} on ${on}: ${what}`, `millrace topics ${action === "refused" ? "plan" : "apply"}`)
    })
  })

/** The projections and relays as `millrace status` judges them, and the dead letters. */
const statusCheck = (database: Database) =>
  Effect.gen(function* () {
    const flag = dataFlag(database.embeddedDir)
    const observed = yield* openObserved(database)
    const { dead_letters, parked_messages, problems, projections } = yield* readStatus(observed, {
      maxAgeMs: yield* healthMaxAgeMs
    })
    const builds = new Set(projections.map(({ name, version }) => `${name}_v${version}`))
    const letters = dead_letters + parked_messages
    return [
      ...(problems.length === 0
        ? [
            passed(
              "status",
              `${counted(builds.size, "build")} of projections, and the relays: nothing is halted or late`
            )
          ]
        : problems.map(({ message, try: advice, what }) =>
            wrong("status", `${what}: ${message}`, advice ?? `millrace status${flag}`)
          )),
      letters === 0
        ? passed("dead letters", "none is open")
        : wrong("dead letters", `${letters} wait${letters === 1 ? "s" : ""} for a decision`, `millrace dlq list${flag}`)
    ]
  })

/** The clocks of this machine and of PostgreSQL, and the times that Kafka gave the newest records, which cannot be in the future. */
const clockCheck = (application: Application.Any | undefined, sql: Sql) =>
  Effect.gen(function* () {
    const before = Date.now()
    const database = yield* readClock(sql)
    const here = (before + Date.now()) / 2
    const slack = clockDifferenceMs + (Date.now() - before)
    const difference = Math.round(database - here)
    const found =
      Math.abs(difference) <= slack
        ? passed("clock", `PostgreSQL and this machine agree (${Math.abs(difference)} ms apart)`)
        : wrong(
            "clock",
            `the clock of PostgreSQL is ${Math.abs(difference)} ms ${difference > 0 ? "ahead of" : "behind"} this machine's`,
            "set both by NTP: timedatectl set-ntp true"
          )
    if (application === undefined || (yield* kafkaOptions) === undefined) return [found]
    const { log } = yield* openLog(Effect.succeed(sql), { aggregates: "none" })
    let newest = -Infinity
    for (const { name } of specsOf(application, "Kafka"))
      for (const { end, partition, start } of yield* Effect.orElseSucceed(log.bounds(name), () => []))
        if (end > start) {
          const { records } = yield* log.read(name, partition, Math.max(start, end - 1), { maxBytes: 1 })
          for (const record of records) newest = Math.max(newest, brokerTimeOf(record) ?? -Infinity)
        }
    const ahead = Math.round(newest - (yield* readClock(sql)))
    return [
      found,
      ahead <= slack
        ? passed("clock of Kafka", "no record has a time of the broker that is ahead of PostgreSQL's clock")
        : wrong(
            "clock of Kafka",
            `a record has a time of the broker that is ${ahead} ms ahead of PostgreSQL's clock`,
            "set the clocks of the brokers and of PostgreSQL by NTP"
          )
    ]
  })

const diskCheck = (dataDir: string) =>
  Effect.map(
    Effect.tryPromise(() => statfs(resolve(dataDir))),
    ({ bavail, bsize }) => {
      const free = bavail * bsize
      return free >= leastFreeBytes
        ? passed("disk", `${sizeText(free)} are free where ${dataDir} is`)
        : wrong(
            "disk",
            `only ${sizeText(free)} are free where ${dataDir} is; PostgreSQL stops when the disk is full`,
            "free disk space, or move the directory while nothing runs and name it with --data"
          )
    }
  )

const kafkaCheck = Effect.gen(function* () {
  const options = yield* kafkaOptions
  if (options === undefined)
    return passed("kafka", "not used: MILLRACE_KAFKA_BROKERS is not set, the log is on PostgreSQL")
  const { withAdmin } = yield* Effect.promise(() => import("../kafka/protocol/protocol.ts"))
  const id = yield* Effect.tryPromise({
    try: () => withAdmin(options, (admin) => admin.clusterId()),
    catch: (cause) => cause as Error
  })
  return passed("kafka", `the cluster ${id} answers at ${options.brokers.join(", ")}`)
})

const pulsarCheck = Effect.gen(function* () {
  const options = yield* pulsarOptions
  if (options === undefined) return passed("pulsar", "not used: MILLRACE_PULSAR_URL is not set")
  const { isWebSocket } = yield* Effect.promise(() => import("../pulsar/client/options.ts"))
  const { checkSignIn } = yield* Effect.promise(() => import("../pulsar/client/handshake.ts"))
  if (isWebSocket(options.url)) return passed("pulsar", "used over WebSockets; whether it answers is not checked")
  yield* Effect.tryPromise({
    try: () => checkSignIn(options, 10_000),
    catch: (cause) => cause as Error
  })
  return passed("pulsar", `a broker of ${new URL(options.url).host} accepts this client`)
})

const withDatabase = (database: Database, application: Application.Any | undefined) =>
  Effect.gen(function* () {
    const { sql } = database
    const flag = dataFlag(database.embeddedDir)
    const migrations = yield* checked("migrations", `millrace migrate${flag}`, migrationsCheck(database))
    const isMigrated = migrations.every(({ ok }) => ok)
    const found = [
      ...(yield* checked("database", "see docs/operations/postgresql.md", databaseCheck(database))),
      ...migrations
    ]
    // tables that are not there yet would be reported once more by each of these
    if (!isMigrated) return found
    if (application !== undefined) {
      found.push(
        ...(yield* checked("identity", `millrace migrate${flag}`, identityCheck(application, sql))),
        ...(yield* checked("topics", "millrace topics plan", topicsCheck(application, sql)))
      )
    }
    found.push(...(yield* checked("status", `millrace status${flag}`, statusCheck(database))))
    found.push(...(yield* checked("clock", "set the clocks by NTP", clockCheck(application, sql))))
    return found
  })

/** Checks the services that the environment names, and the database of `dataDir`. `application`: undefined if it does not load. */
export const checkServices = (
  application: Application.Any | undefined,
  dataDir: string
): Effect.Effect<ReadonlyArray<Check>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const usesEmbedded = (process.env["MILLRACE_DATABASE_URL"] ?? "") === ""
    const isThere = yield* Effect.match(assertDatabaseExists(dataDir), {
      onSuccess: () => true,
      onFailure: () => false
    })
    const opening = Effect.gen(function* () {
      yield* assertDatabaseExists(dataDir)
      const database = yield* openDatabase(dataDir, "join", { max: 2 })
      return yield* withDatabase(database, application)
    })
    const advice = usesEmbedded ? "millrace dev" : "check MILLRACE_DATABASE_URL, and that the server runs"
    const found = yield* Effect.all(
      [
        checked("database", advice, opening),
        checked("reader", "check MILLRACE_READER_URL", readerCheck(dataDir)),
        checked("kafka", "check MILLRACE_KAFKA_BROKERS, and that the brokers run", kafkaCheck),
        checked("pulsar", "check MILLRACE_PULSAR_URL, and that the brokers run", pulsarCheck),
        ...(usesEmbedded && isThere ? [checked("disk", "name another directory with --data", diskCheck(dataDir))] : [])
      ],
      { concurrency: "unbounded" }
    )
    return found.flat()
  })
