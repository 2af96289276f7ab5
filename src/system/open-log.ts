// Opens the system's log: on Kafka if MILLRACE_KAFKA_BROKERS is set, otherwise on the system's PostgreSQL.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { KafkaOptions } from "../kafka/protocol/options.ts"
import type { Log } from "../log/log.ts"
import { routedLog } from "../log/routed.ts"
import type { TopicAdmin } from "../log/topic-plan.ts"
import { query, type Sql } from "../postgres/client/client.ts"
import * as PostgresLog from "../postgres/log/log.ts"
import * as PostgresTopics from "../postgres/log/topic-plan.ts"
import { kafkaOptions } from "./environment.ts"

interface LogAndTopics {
  readonly log: Log["Service"]
  /** Plans and applies changes to the log's topics. */
  readonly topics: TopicAdmin
  /** Wakes readers of all processes: a partition of an aggregate's topic has grown to this end. */
  readonly appended: (topicId: number, partition: number, end: number) => void
}
/** A log on Kafka. The topics of aggregates are read from PostgreSQL, where the event store has them. */
export interface LogOnKafka extends LogAndTopics {
  readonly on: "Kafka"
  readonly kafka: KafkaOptions
}
/** A log on the system's PostgreSQL. */
export interface LogOnPostgres extends LogAndTopics {
  readonly on: "PostgreSQL"
  readonly sql: Sql
  /** Wakes readers of this process: a partition has grown to this end. */
  readonly grown: (topicId: number, partition: number, end: number) => void
}
/** The system's log, and which system keeps it. */
export type OpenedLog = LogOnKafka | LogOnPostgres

// Kafka's code is loaded only if it is used, so that a system without Kafka starts faster.
const openKafkaLog = Effect.fnUntraced(function* (kafka: KafkaOptions) {
  const KafkaLog = yield* Effect.promise(() => import("../kafka/log/log.ts"))
  const { log, topics } = yield* KafkaLog.openLog(kafka)
  return { on: "Kafka", log, topics, kafka, appended: () => undefined } satisfies LogOnKafka
})

/** How a log is opened. */
export interface OpenLogOptions {
  /** How often this process applies retention on PostgreSQL, in milliseconds. Default: never. */
  readonly cleanMs?: number
  /** The names of the aggregates. Default: those that the database has; `"none"`: topics of aggregates are not read. */
  readonly aggregates?: ReadonlyArray<string> | "none"
}
const storedAggregates = (sql: Sql) =>
  query(
    "read the aggregates",
    () => sql<Array<{ readonly name: string }>>`select name from millrace.log_topic where aggregate`
  ).pipe(
    Effect.map((rows) => rows.map(({ name }) => name)),
    // the database was not migrated yet, so it has none
    Effect.catchIf(
      ({ code }) => /^(42P01|42703|3F000)$/.test(code),
      () => Effect.succeed([])
    )
  )

/** Opens the log. `database` is run if the log is on PostgreSQL, or if aggregates are read. */
export const openLog = Effect.fnUntraced(function* <E>(
  database: Effect.Effect<Sql, E, Scope.Scope>,
  { aggregates, cleanMs }: OpenLogOptions = {}
) {
  const kafka = yield* kafkaOptions
  const options = cleanMs === undefined ? {} : { cleanMs }
  if (kafka === undefined) {
    const sql = yield* database
    const { appended, grown, log } = yield* PostgresLog.make(sql, options)
    return { on: "PostgreSQL", log, topics: PostgresTopics.make(sql, log), sql, grown, appended } as OpenedLog
  }
  const opened = yield* openKafkaLog(kafka)
  if (aggregates === "none") return opened as OpenedLog
  const sql = yield* database
  const names = new Set(aggregates ?? (yield* storedAggregates(sql)))
  if (names.size === 0) return opened as OpenedLog
  const { appended, log } = yield* PostgresLog.make(sql)
  return { ...opened, log: routedLog(opened.log, log, (topic) => names.has(topic)), appended } as OpenedLog
})
