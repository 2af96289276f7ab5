// The topics that an application needs in the log: their declarations, whether the log has them, and where their partitions start.
import * as Effect from "effect/Effect"
import { type Log, specOf, type TopicSpec } from "../log/log.ts"
import type { TopicPlan, TopicAdmin } from "../log/topic-plan.ts"
import type { Aggregate } from "../model/aggregate.ts"
import { aggregatesOf, type Application, topicsOf } from "../model/application.ts"
import type { Projection } from "../model/projection.ts"
import type { Sql } from "../postgres/client/client.ts"
import { migrate } from "../postgres/client/migrate.ts"
import * as TopicPlans from "../postgres/log/topic-plan.ts"
import * as LogTopics from "../postgres/log/topics.ts"
import { assertDatabaseExists, openDatabase } from "./database.ts"
import { assertOwn } from "./identity.ts"
import { TopicsNotReady } from "./errors.ts"
import { openLog, type OpenedLog } from "./open-log.ts"

const specOfAggregate = ({ name, partitions }: Pick<Aggregate.Any, "name" | "partitions">): TopicSpec => ({
  name,
  partitions,
  compacted: false,
  retentionMs: undefined,
  isAggregate: true
})
/**
 * The topics that an application declares on a log. A log on PostgreSQL has all of them. A log on Kafka does not have derived topics whose
 * `to` leaves Kafka out, and has the topics of aggregates as copies, which relays write.
 */
export const specsOf = (application: Application.Any, on: OpenedLog["on"]): ReadonlyArray<TopicSpec> => [
  // before the topics that are derived from them: the first one that differs is named
  ...aggregatesOf(application).map(specOfAggregate),
  ...topicsOf(application)
    .filter(
      ({ topic: { to }, writtenBy }) => on === "PostgreSQL" || writtenBy.length === 0 || to?.includes("kafka") !== false
    )
    .map(({ partitions, topic }) => specOf(topic, partitions))
]

/**
 * Opens the topics of the log, for commands about topics alone. If the log is on Kafka no database is opened. Otherwise it must not belong
 * to another application; it is created and migrated if it is going to be changed, and must exist if not.
 */
export const openTopics = Effect.fnUntraced(function* (
  application: Application.Any,
  dataDir: string,
  changes: boolean
) {
  const database = Effect.gen(function* () {
    if (!changes) yield* assertDatabaseExists(dataDir)
    const { sql } = yield* openDatabase(dataDir, "join", { max: 2 })
    yield* assertOwn(application, sql)
    if (changes) yield* migrate(sql)
    return sql
  })
  const { on, topics } = yield* openLog(database, { aggregates: "none" })
  return { on, topics }
})

/** Fails with `TopicsNotReady` if a topic does not exist, or if it has another number of partitions or another cleanup policy than declared. */
export const assertReady = Effect.fnUntraced(function* (application: Application.Any, topics: TopicAdmin) {
  const plans = yield* topics.plan(specsOf(application, "Kafka"))
  const having = (action: TopicPlan["action"]) => plans.filter((plan) => plan.action === action)
  const missing = having("create").map(({ topic }) => topic)
  if (missing.length > 0) {
    const subject = missing.length === 1 ? "a topic does" : `${missing.length} topics do`
    const message = `${subject} not exist on Kafka: ${missing.join(", ")}`
    return yield* new TopicsNotReady({ message, try: "millrace topics apply" })
  }
  yield* assertNoneRefused(plans)
})
const assertNoneRefused = Effect.fnUntraced(function* (plans: ReadonlyArray<TopicPlan>) {
  const refused = plans.find(({ action }) => action === "refused")
  if (refused === undefined) return
  const message = `topic ${refused.topic} differs from its declaration: ${refused.notes.join("; ")}`
  return yield* new TopicsNotReady({ message, try: "millrace topics plan" })
})
/**
 * Fails with `TopicsNotReady` if an aggregate's topic exists with another number of partitions than declared, or as an ordinary topic: a start of
 * the application refuses it, so a command without one must not append to it.
 */
export const assertAggregateTopic = Effect.fnUntraced(function* (aggregate: Aggregate.Any, sql: Sql) {
  yield* assertNoneRefused(yield* TopicPlans.make(sql, LogTopics.make(sql)).plan([specOfAggregate(aggregate)]))
})

/** The first position of each partition, by the names of the projections' source topics. Retention may have deleted earlier records. */
export const startsOf = Effect.fnUntraced(function* (application: Application.Any, log: Log["Service"]) {
  const sources = application.projections.flatMap(({ projection }) => (projection as Projection.Any).sources)
  const names = [...new Set(sources.map(({ name }) => name))]
  const found = yield* Effect.forEach(names, (name) => log.bounds(name), { concurrency: 8 })
  return new Map(found.map((bounds, i) => [names[i]!, bounds.map(({ start }) => start)]))
})
