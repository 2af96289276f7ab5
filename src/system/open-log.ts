// Opens the system's log: on Kafka if MILLRACE_KAFKA_BROKERS is set, otherwise on the system's PostgreSQL.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { KafkaOptions } from "../kafka/protocol/options.ts"
import type { Log } from "../log/log.ts"
import type { TopicAdmin } from "../log/topic-plan.ts"
import type { Sql } from "../postgres/client/client.ts"
import * as PostgresLog from "../postgres/log/log.ts"
import * as PostgresTopics from "../postgres/log/topic-plan.ts"
import { kafkaOptions } from "./environment.ts"

interface LogAndTopics {
  readonly log: Log["Service"]
  /** Plans and applies changes to the log's topics. */
  readonly topics: TopicAdmin
}
/** A log on Kafka. */
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
  return { on: "Kafka", log, topics, kafka } satisfies LogOnKafka
})

/** Opens the log. `database` is run only if the log is on PostgreSQL. With `cleanMs` this process applies retention, this often. */
export const openLog = Effect.fnUntraced(function* <E>(
  database: Effect.Effect<Sql, E, Scope.Scope>,
  options: { readonly cleanMs?: number } = {}
) {
  const kafka = yield* kafkaOptions
  if (kafka !== undefined) return (yield* openKafkaLog(kafka)) as OpenedLog
  const sql = yield* database
  const { grown, log } = yield* PostgresLog.make(sql, options)
  return { on: "PostgreSQL", log, topics: PostgresTopics.make(sql, log), sql, grown } as OpenedLog
})
