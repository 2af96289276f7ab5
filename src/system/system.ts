// Puts a running system together from its parts: a database, the log on it or on Kafka, the store, relays and servers, by roles.
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { type Application, goesTo, topicsOf } from "../model/application.ts"
import * as Embedded from "../postgres/embedded/embedded.ts"
import { FanOut, FanOutError } from "../subscription/fanout.ts"
import { type Options as KafkaOptions, optionsFrom } from "../kafka/protocol/options.ts"
import { Log, LogError, specOf } from "../log/log.ts"
import * as PostgresFanOut from "../postgres/subscription/fanout.ts"
import * as PostgresLetters from "../postgres/subscription/dead-letters.ts"
import * as PostgresLog from "../postgres/log/log.ts"
import * as PostgresTopics from "../postgres/log/topic-plan.ts"
import { connect, type Sql } from "../postgres/client/client.ts"
import { migrate } from "../postgres/client/migrate.ts"
import * as PostgresOnce from "../postgres/subscription/once.ts"
import * as PostgresOutbox from "../postgres/relay/outbox.ts"
import * as PostgresRelay from "../postgres/relay/to-log.ts"
import * as PostgresStore from "../postgres/store/store.ts"
import type { Projection } from "../model/projection.ts"
import {
  defaults as pulsarDefaults,
  type Options as PulsarOptions,
  optionsFrom as pulsarOptionsFrom
} from "../pulsar/client/options.ts"
import type { RelayError, RelayTarget } from "../relay/target.ts"
import * as Relay from "../relay/relay.ts"
import * as Runner from "../runner/runner.ts"
import { readStatus as readStatusOf } from "./status.ts"
import { Store } from "../runner/store.ts"
import { Tenancy } from "../model/tenancy.ts"
import type { TopicPlan, TopicAdmin } from "../log/topic-plan.ts"

export type { Status } from "./status.ts"

/** A database that answers, and where it is. */
export interface Database {
  readonly url: string
  /** Whether it is the one of the state directory. */
  readonly embedded: boolean
  readonly sql: Sql
  /** Fails when the server is gone for good. */
  readonly failed: Effect.Effect<never, Error>
}
/** The parts of a system that are open. */
export interface System {
  readonly database: Database
  readonly application: Application.Any
  readonly log: Log["Service"]
  readonly store: Store["Service"]
  /** The names of the targets that what commits published is brought to, by relays of any process. */
  readonly targets: ReadonlyArray<string>
  /** Those targets, where this process runs the relays. */
  readonly relays: ReadonlyArray<RelayTarget>
}

/**
 * Few: each prepares the same large statements for itself, and a handful keeps a server of several cores busy. At 500 events a second
 * 6 had half the p99 of 16.
 */
const connections = 6

/** The database of the environment, or the embedded one of a state directory: owned, or joined for as long as a command runs. */
export const openDatabase = Effect.fnUntraced(function* (
  dataDir: string,
  how: "own" | "join",
  options: { readonly max?: number; readonly asText?: boolean } = {}
) {
  const given = process.env["MILLRACE_DATABASE_URL"]
  const server =
    given === undefined || given === ""
      ? yield* how === "own" ? Embedded.start({ dataDir }) : Embedded.use({ dataDir })
      : { url: given, failed: Effect.never }
  const sql = yield* connect(server.url, { max: connections, ...options })
  const embedded = given === undefined || given === ""
  return { url: server.url, embedded, sql, failed: server.failed } satisfies Database
})

/** What the environment says of Kafka; undefined: the log is on the database. Fails with one line where a value makes no sense. */
const kafkaOptions = Effect.try({
  try: () => optionsFrom(process.env),
  catch: (cause) => new LogError({ operation: "bounds", topic: "", retryable: false, reason: (cause as Error).message })
})

/** The log on Kafka, and its topics. Loaded when it is used: a system without it does not wait for its driver. */
const openKafka = Effect.fnUntraced(function* (options: KafkaOptions) {
  const KafkaLog = yield* Effect.promise(() => import("../kafka/log/log.ts"))
  return yield* KafkaLog.openLog(options)
})

/** What the environment says of Pulsar; undefined: nothing goes there. Fails with one line where a value makes no sense. */
const pulsarOptions = Effect.try({
  try: () => pulsarOptionsFrom(process.env),
  catch: (cause) => new FanOutError({ operation: "connect", retryable: false, reason: (cause as Error).message })
})

/** The names of the targets, which are known without their code. */
const kafkaTarget = "kafka"
const pulsarTarget = "pulsar"

/** The log that the environment names and its topics, and the relays' targets: commits are brought to where the log is, and to Pulsar. */
const openParts = Effect.fnUntraced(function* (application: Application.Any, sql: Sql, relaysHere: boolean) {
  const parts = yield* openLogParts(application, sql, relaysHere)
  const pulsar = yield* pulsarOptions
  if (pulsar === undefined) return parts
  const relays = Effect.fnUntraced(function* () {
    const others = yield* parts.relays()
    return relaysHere ? [...others, yield* openPulsarRelay(application, sql, pulsar)] : others
  })
  return { ...parts, targets: [...parts.targets, pulsarTarget], relays }
})
const openLogParts = Effect.fnUntraced(function* (application: Application.Any, sql: Sql, relaysHere: boolean) {
  const kafka = yield* kafkaOptions
  if (kafka !== undefined) {
    const parts = { ...(yield* openKafka(kafka)), onKafka: true, targets: [kafkaTarget] }
    const relays = (): Effect.Effect<ReadonlyArray<RelayTarget>, RelayError, Scope.Scope> =>
      relaysHere ? Effect.map(openKafkaRelay(application, sql, kafka), (one) => [one]) : Effect.succeed([])
    return { ...parts, relays }
  }
  const { grown, log } = yield* PostgresLog.make(sql, { cleanMs: 60_000 })
  const relays = (): Effect.Effect<ReadonlyArray<RelayTarget>, RelayError, Scope.Scope> =>
    relaysHere ? Effect.map(PostgresRelay.make(sql, { appended: grown }), (one) => [one]) : Effect.succeed([])
  return { log, topics: PostgresTopics.make(sql, log), onKafka: false, targets: [PostgresRelay.embedded], relays }
})
/** Applications that share a cluster have relays of their own: the same names would fence each other. */
const openKafkaRelay = Effect.fnUntraced(function* (application: Application.Any, sql: Sql, options: KafkaOptions) {
  const KafkaRelay = yield* Effect.promise(() => import("../kafka/relay/relay.ts"))
  return yield* KafkaRelay.make(options, PostgresOutbox.make(sql), {
    prefix: `millrace-relay/${application.name}`,
    accepts: goesTo(application, "kafka")
  })
})
/** Values of a topic with tiers go where its tenancy says. */
const openPulsarRelay = Effect.fnUntraced(function* (application: Application.Any, sql: Sql, options: PulsarOptions) {
  const PulsarRelay = yield* Effect.promise(() => import("../pulsar/relay/relay.ts"))
  const { pulsar } = application
  const tiered = new Map(pulsar?.topics.filter(({ tier }) => tier !== undefined).map((topic) => [topic.name, topic]))
  const topicFor = (name: string, value: string) => {
    const topic = tiered.get(name)
    return topic === undefined ? name : Tenancy.topicFor(topic, JSON.parse(value) as Readonly<Record<string, unknown>>)
  }
  const place = { ...(pulsar !== undefined && { namespace: pulsar.namespace }), ...options }
  // of records without a tenant
  const own = place.tenant ?? pulsarDefaults.tenant
  return yield* PulsarRelay.make(place, PostgresOutbox.make(sql), {
    prefix: `millrace-relay/${application.name}`,
    accepts: goesTo(application, "pulsar"),
    batched: pulsar?.topics.filter(({ batching }) => batching).flatMap(Tenancy.topicsOf) ?? [],
    partitions: new Map(
      pulsar?.topics.flatMap((topic) => Tenancy.topicsOf(topic).map((name) => [name, topic.partitions] as const))
    ),
    ...(tiered.size > 0 && { topicFor }),
    ...(pulsar !== undefined && { undeclared: (tenant: string) => tenant !== own && Tenancy.parks(pulsar, tenant) })
  })
})

/** The topics of an application, as a log takes them. Kafka has none that goes to Pulsar alone, the log on PostgreSQL has them all. */
export const specsOf = (application: Application.Any, on: "Kafka" | "PostgreSQL") =>
  topicsOf(application)
    .filter(
      ({ topic: { to }, writtenBy }) => on === "PostgreSQL" || writtenBy.length === 0 || to?.includes("kafka") !== false
    )
    .map(({ partitions, topic }) => specOf(topic, partitions))

/** Where an application's topics are, for commands about them alone: with Kafka it opens no database. */
export const openTopics = Effect.fnUntraced(function* (dataDir: string) {
  const kafka = yield* kafkaOptions
  if (kafka !== undefined) return { where: "Kafka" as const, topics: (yield* openKafka(kafka)).topics }
  const { sql } = yield* openDatabase(dataDir, "join", { max: 2 })
  yield* migrate(sql)
  const { log } = yield* PostgresLog.make(sql)
  return { where: "PostgreSQL" as const, topics: PostgresTopics.make(sql, log) }
})

/** Topics on Kafka are not what the application needs them to be. */
export class TopicsNotReady extends Data.TaggedError("TopicsNotReady")<{
  readonly message: string
  readonly try: string
}> {}

/** Fails where the application could not run on the topics that there are: one is missing, or has another number of partitions. */
const assertReady = Effect.fnUntraced(function* (application: Application.Any, topics: TopicAdmin) {
  const plans = yield* topics.plan(specsOf(application, "Kafka"))
  const of = (action: TopicPlan["action"]) => plans.filter((plan) => plan.action === action)
  const missing = of("create").map(({ topic }) => topic)
  const [refused] = of("refused")
  if (missing.length > 0) {
    const message = `${missing.length === 1 ? "a topic is" : `${missing.length} topics are`} not on Kafka: ${missing.join(", ")}`
    return yield* new TopicsNotReady({ message, try: "millrace topics apply" })
  }
  if (refused !== undefined) {
    const message = `topic ${refused.topic} is not what is declared: ${refused.notes.join("; ")}`
    return yield* new TopicsNotReady({ message, try: "millrace topics plan" })
  }
})

/** Where the sources of projections begin, by partition: retention may have taken what is older than a projection. */
const startsOf = Effect.fnUntraced(function* (application: Application.Any, log: Log["Service"]) {
  const sources = application.projections.flatMap(({ projection }) => (projection as Projection.Any).sources)
  const names = [...new Set(sources.filter(({ kind }) => kind === "topic").map(({ name }) => name))]
  const found = yield* Effect.forEach(names, (name) => log.bounds(name), { concurrency: 8 })
  return new Map(found.map((bounds, i) => [names[i]!, bounds.map(({ start }) => start)]))
})

/** How to open a system. */
export interface OpenOptions {
  /** Whether this process runs the relays. Default true. */
  readonly relaysHere?: boolean
  /** Makes topics that are missing on Kafka, rather than fail. Those on the database are always made. Default false. */
  readonly makesTopics?: boolean
}
/**
 * Opens everything that an application needs: migrates, declares topics, prepares projections. Idempotent, and safe beside others that do
 * it. With Kafka as the log it makes no topic unless told, and fails with `TopicsNotReady` where some are missing.
 */
export const openSystem = Effect.fnUntraced(function* (
  application: Application.Any,
  database: Database,
  options: OpenOptions = {}
) {
  const { sql } = database
  const { makesTopics = false, relaysHere = true } = options
  const { log, onKafka, targets, topics, ...parts } = yield* openParts(application, sql, relaysHere)
  if (onKafka && !makesTopics) yield* assertReady(application, topics)
  yield* migrate(sql)
  const specs = specsOf(application, onKafka ? "Kafka" : "PostgreSQL")
  if (!onKafka || makesTopics) yield* log.declare(specs)
  const relays = yield* parts.relays()
  const signal = () => {
    for (const target of relays) target.signal()
  }
  const store = PostgresStore.make(sql, { published: relaysHere ? signal : notifier(sql) })
  const starts = yield* startsOf(application, log)
  yield* store.prepare(
    application.projections.map(({ projection }) => projection),
    (name) => specs.find((spec) => spec.name === name)?.partitions ?? 1,
    (name, partition) => starts.get(name)?.[partition] ?? 0
  )
  return { application, database, log, store, targets, relays } satisfies System
})

/** What the status is read from. */
export interface Observed extends Pick<System, "log" | "targets"> {
  readonly database: Pick<Database, "sql">
}
/** Opens what the status is read from: the log that the environment names, and which targets relays have. It needs no application. */
export const openObserved = Effect.fnUntraced(function* (database: Database) {
  const kafka = yield* kafkaOptions
  const others = (yield* pulsarOptions) === undefined ? [] : [pulsarTarget]
  if (kafka !== undefined)
    return { database, log: (yield* openKafka(kafka)).log, targets: [kafkaTarget, ...others] } satisfies Observed
  const { log } = yield* PostgresLog.make(database.sql)
  return { database, log, targets: [PostgresRelay.embedded, ...others] } satisfies Observed
})
/** How far a system has come. */
export const readStatus = ({ database, log, targets }: Observed) => readStatusOf(database.sql, log, targets)

/** Tells relays of other processes that there is something, once for all commits that end while a notification is under way. */
const notifier = (sql: Sql) => {
  let wanted = false
  let busy = false
  const tell = async () => {
    busy = true
    while (wanted) {
      wanted = false
      // a lost one costs a relay's poll, no more
      await sql`select pg_notify(${PostgresRelay.outboxChannel}, '')`.catch(() => undefined)
    }
    busy = false
  }
  return () => {
    wanted = true
    if (!busy) void tell()
  }
}

/** Runs every projection of the application, until interrupted. */
export const runProjections = ({ application, log, store }: System): Effect.Effect<void> => {
  const lookupTables: Runner.LookupTables = new Map()
  const services = (application.services ?? Layer.empty) as Layer.Layer<unknown>
  const runs = application.projections.map(({ projection }) => Runner.run(projection as Projection.Any, lookupTables))
  return Effect.all(runs, { concurrency: "unbounded", discard: true }).pipe(
    Effect.provideService(Log, log),
    Effect.provideService(Store, store),
    Effect.provide(services)
  ) as Effect.Effect<void>
}

/** Runs the relays and what tidies up behind them, until interrupted. */
export const runRelay = ({ database, relays, targets }: System) =>
  Effect.all(
    [...relays.map((target) => Relay.run(target)), Relay.collect(PostgresRelay.collect(database.sql, { targets }))],
    { concurrency: "unbounded", discard: true }
  )

/** Where `layer` finds the system. */
export interface LayerOptions {
  /** The state directory whose embedded database is joined, or started for as long as the layer is open. Default `.millrace`. */
  readonly dataDir?: string
}
/** The fan-out on Pulsar, where that is set. Loaded when it is used. */
const openPulsarFanOut = Effect.gen(function* () {
  const options = yield* pulsarOptions
  if (options === undefined) return undefined
  const PulsarFanOut = yield* Effect.promise(() => import("../pulsar/subscription/fanout.ts"))
  return yield* PulsarFanOut.make(options)
})

/**
 * The log and the fan-out of a system that other processes run, or may run later: for subscriptions and appends in programs of your
 * own. `MILLRACE_DATABASE_URL`, `MILLRACE_KAFKA_BROKERS` and `MILLRACE_PULSAR_URL` say where they are, as for the commands.
 */
export const layer = ({ dataDir = ".millrace" }: LayerOptions = {}): Layer.Layer<Log | FanOut, Error> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const kafka = yield* kafkaOptions
      const pulsar = yield* openPulsarFanOut
      if (kafka !== undefined)
        return Context.make(Log, (yield* openKafka(kafka)).log).pipe(Context.add(FanOut, pulsar ?? noFanOut))
      const { sql } = yield* openDatabase(dataDir, "join")
      yield* migrate(sql)
      const { log } = yield* PostgresLog.make(sql)
      const fanOut = pulsar ?? (yield* PostgresFanOut.make(sql, log))
      return Context.make(Log, log).pipe(Context.add(FanOut, fanOut))
    })
  )

/**
 * The dead-letter topics of subscriptions: Pulsar's, or those of the log on the database. Undefined where topics are on Kafka alone, which has no
 * subscriptions.
 */
export const openDeadLetterTopics = Effect.fnUntraced(function* (sql: Sql) {
  const pulsar = yield* pulsarOptions
  if (pulsar !== undefined)
    return yield* (yield* Effect.promise(() => import("../pulsar/dead-letters.ts"))).make(pulsar)
  if ((yield* kafkaOptions) !== undefined) return undefined
  return PostgresLetters.make(sql, (yield* PostgresLog.make(sql)).log)
})
/** What sends messages to Pulsar that the relay parked. Fails where `MILLRACE_PULSAR_URL` is not set. */
export const openParkedSender = Effect.gen(function* () {
  const pulsar = yield* pulsarOptions
  if (pulsar !== undefined)
    return yield* (yield* Effect.promise(() => import("../pulsar/dead-letters.ts"))).makeSender(pulsar)
  const reason = "it goes to Pulsar. try: set MILLRACE_PULSAR_URL"
  return yield* new FanOutError({ operation: "send a parked message", retryable: false, reason })
})

/** Where `once` keeps what was handled, and how. */
export interface OnceOptions extends PostgresOnce.Options {
  /** The consumer's own database. Default: that of `MILLRACE_DATABASE_URL`, or the embedded one of `dataDir`. */
  readonly url?: string
  /** The state directory whose embedded database is joined, or started for as long as the scope is open. Default `.millrace`. */
  readonly dataDir?: string
}
/**
 * Effectively once, for `Subscription.run`: handlers get a transaction on a PostgreSQL database, in which their message is marked as
 * handled. Makes the schema `millrace_once` there where it is missing. The transaction is a tagged template of postgres.js.
 */
export const once = Effect.fnUntraced(function* ({ dataDir = ".millrace", url, ...options }: OnceOptions = {}) {
  const sql = url === undefined ? (yield* openDatabase(dataDir, "join")).sql : yield* connect(url, { max: 2 })
  return yield* PostgresOnce.make(sql, options)
})

/** Kafka has no subscriptions with redelivery and dead letters of its own: those are Pulsar's, or the embedded system's. */
const refuse = (operation: string) =>
  new FanOutError({
    operation,
    retryable: false,
    reason:
      "the derived topics are on Kafka, which has no such subscriptions. try: set MILLRACE_PULSAR_URL, or read them with a consumer group"
  })
const noFanOut = FanOut.of({
  subscribe: () => Effect.fail(refuse("subscribe")),
  seek: () => Effect.fail(refuse("seek")),
  unsubscribe: () => Effect.fail(refuse("unsubscribe"))
})
