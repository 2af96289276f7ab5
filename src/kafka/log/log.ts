// The log on Kafka: the adapter of the log's port, with record batches, consumer groups and idempotent appends of its own.
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { maxBytesOf } from "../../log/rules.ts"
import { type Assignment, Log, type LogError, type ReadOptions } from "../../log/log.ts"
import type { TopicAdmin as TopicsPort } from "../../log/topic-plan.ts"
import { Client, endsOf, type KafkaOptions, offsets, register, retrying } from "../protocol/protocol.ts"
import { Appender } from "./append.ts"
import { attempt, logError } from "./failures.ts"
import { assign } from "./group.ts"
import { open, type PartitionReading, read } from "./read.ts"
import { ReadBudget } from "./read-budget.ts"
import * as Topics from "./topics.ts"

export { type Compression, type KafkaOptions, optionsFrom, type Sasl } from "../protocol/options.ts"

/** What readers of a process hold together by default, in bytes. */
const defaultFetchBytes = 96 << 20

const readingOf = (topic: string, partition: number, options: ReadOptions | undefined): PartitionReading => ({
  topic,
  partition,
  maxBytes: () => maxBytesOf(options)
})

/** A log on Kafka, and the planning and changing of its topics. */
export interface OpenedLog {
  readonly log: Log["Service"]
  readonly topics: TopicsPort
}
/**
 * Opens a log on the brokers of `options`, connected while the scope is open. Fails in one line if no broker answers, the user is refused or
 * an option is not valid. Readers see committed records only: `end` is the last stable offset, before the first record of an open
 * transaction. Record times are the broker's on topics that `declare` creates; event times travel in the header `event_time`.
 */
export const openLog = Effect.fnUntraced(function* (
  options: KafkaOptions
): Effect.fn.Return<OpenedLog, LogError, Scope.Scope> {
  register()
  const client = yield* Effect.acquireRelease(
    Effect.try({ try: () => new Client(options), catch: logError("bounds", "") }),
    (opened) => Effect.sync(() => opened.close())
  )
  yield* Effect.tryPromise({ try: () => client.hello(), catch: logError("bounds", "") })
  const { declare, ...topics } = Topics.make(client)
  return { log: logOf(client, declare), topics }
})

/** Opens a log on the brokers of `options`, as `openLog` does, without its topics. */
export const make = (options: KafkaOptions): Effect.Effect<Log["Service"], LogError, Scope.Scope> =>
  Effect.map(openLog(options), ({ log }) => log)

const logOf = (client: Client, declare: Log["Service"]["declare"]): Log["Service"] => {
  const appender = new Appender(client)
  const budget = new ReadBudget(client.options.fetchBytes ?? defaultFetchBytes)
  return Log.of({
    declare,
    append: (topic, records) => attempt("append", topic, () => appender.append(topic, records)),
    bounds: (topic) =>
      attempt("bounds", topic, () =>
        retrying(client, topic, client.requestMs, async () => {
          const { leaders } = await client.topic(topic)
          const found = await offsets(client, topic, [...leaders.keys()])
          return [...found].map(([partition, { end, start }]) => ({ partition, start, end }))
        })
      ),
    ends: (topic) =>
      attempt("bounds", topic, () =>
        retrying(client, topic, client.requestMs, async () => {
          const { leaders } = await client.topic(topic)
          const partitions = [...leaders.keys()]
          const ends = await endsOf(client, topic, partitions)
          return partitions.map((partition) => ends.get(partition) ?? 0)
        })
      ),
    identity: (topic) =>
      attempt("bounds", topic, () =>
        retrying(client, topic, client.requestMs, async () => {
          client.forget(topic)
          return (await client.topic(topic)).id
        })
      ),
    read: (topic, partition, position, readOptions) => read(client, readingOf(topic, partition, readOptions), position),
    open: (topic, partition, position, readOptions) =>
      open(client, budget, readingOf(topic, partition, readOptions), position),
    assign: Effect.fnUntraced(function* (topic, group, use, readOptions) {
      yield* attempt("assign", topic, () => client.topic(topic))
      return yield* assign(client, topic, group, (partition, generation) => {
        const assignment: Assignment = {
          topic,
          partition,
          generation,
          open: (from, options = readOptions) => open(client, budget, readingOf(topic, partition, options), from)
        }
        return use(assignment)
      })
    })
  })
}

/** The log as a layer; fails as `openLog` does. */
export const layer = (options: KafkaOptions): Layer.Layer<Log, LogError> => Layer.effect(Log, make(options))
