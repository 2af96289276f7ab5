// The engine on Kafka and PostgreSQL in this process: an application's topics on a node, its tables in a database, and operations on both.
import * as Effect from "effect/Effect"
import { Kafka, logLevel } from "kafkajs"
import type { Application } from "../../src/model/application.ts"
import { type Log, specOf } from "../../src/log/log.ts"
import { topicsOf } from "../../src/model/application.ts"
import * as KafkaLog from "../../src/kafka/log/log.ts"
import * as PostgresStore from "../../src/postgres/store/store.ts"
import type { AnyApplication, Engine } from "./engine.ts"
import { type Database, databaseOn } from "./postgres.ts"

/** Declares the application's topics, and prepares its projections at the first position of each topic, as `millrace start` does. */
export const kafkaEngine = Effect.fnUntraced(function* (
  brokers: ReadonlyArray<string>,
  postgres: string,
  application: AnyApplication,
  options: Partial<KafkaLog.KafkaOptions> & { readonly on?: Database; readonly declares?: boolean } = {}
) {
  const { declares = true, on, ...kafka } = options
  const database = on ?? (yield* databaseOn(postgres, 6))
  const log = yield* KafkaLog.make({ brokers, heartbeatMs: 200, sessionMs: 3_000, requestMs: 5_000, ...kafka })
  const topics = topicsOf(application as Application.Any)
  if (declares) yield* log.declare(topics.map(({ partitions, topic }) => specOf(topic, partitions)))
  const store = PostgresStore.make(database.sql)
  const starts = new Map(
    yield* Effect.forEach(topics, ({ topic: { name } }) =>
      Effect.map(log.bounds(name), (bounds) => [name, bounds] as const)
    )
  )
  yield* store.prepare(
    application.projections.map(({ projection }) => projection),
    (name) => topics.find(({ topic }) => topic.name === name)?.partitions ?? 1,
    (name, partition) => starts.get(name)?.[partition]?.start ?? 0
  )
  return { ...database, application, log, store } satisfies Engine
})

/** Runs admin requests, as the operator of a cluster would. */
export const asOperator = <A>(
  brokers: ReadonlyArray<string>,
  run: (admin: ReturnType<Kafka["admin"]>) => Promise<A>
): Effect.Effect<A> =>
  Effect.promise(async () => {
    const admin = new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING }).admin()
    await admin.connect()
    try {
      return await run(admin)
    } finally {
      await admin.disconnect()
    }
  })

/** Deletes the records of a partition before a position, as retention would. */
export const cut = (brokers: ReadonlyArray<string>, topic: string, partition: number, position: number) =>
  asOperator(brokers, async (admin) => {
    await admin.fetchTopicOffsets(topic)
    await admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: String(position) }] })
  })

/** Deletes a topic and waits until the log notices it. */
export const deleteTopic = Effect.fnUntraced(function* (
  brokers: ReadonlyArray<string>,
  log: Log["Service"],
  topic: string
) {
  yield* asOperator(brokers, (admin) => admin.deleteTopics({ topics: [topic] }))
  while ((yield* Effect.exit(log.bounds(topic)))._tag === "Success") yield* Effect.sleep(20)
})
