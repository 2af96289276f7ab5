// The log on Kafka: the port over kafkajs's connections, with records, groups and idempotence of this adapter's own.
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { defaultMaxBytes } from "../../log/rules.ts"
import { type Assignment, Log, type LogError, type ReadOptions } from "../../log/log.ts"
import type { TopicAdmin as TopicsPort } from "../../log/topic-plan.ts"
import { Producer } from "./append.ts"
import { assign } from "./group.ts"
import { Client, retrying } from "../protocol/client.ts"
import { register } from "../protocol/compression.ts"
import { attempt, logError } from "../protocol/errors.ts"
import { endsOf, offsets } from "../protocol/fetch.ts"
import type { Options } from "../protocol/options.ts"
import { open, read, type Reading } from "./read.ts"
import * as Topics from "./topics.ts"

export { type Compression, type Options, optionsFrom, type Sasl } from "../protocol/options.ts"

const placeOf = (topic: string, partition: number, options: ReadOptions | undefined): Reading => ({
  topic,
  partition,
  maxBytes: options?.maxBytes ?? defaultMaxBytes
})

/** A log on Kafka, and its topics. */
export interface Opened {
  readonly log: Log["Service"]
  readonly topics: TopicsPort
}
/**
 * Opens a log on the brokers of `options`, connected while the scope is open. Fails in one line where no broker answers, the user is refused
 * or an option makes no sense. Reading is read committed: `end` is where records end that are decided; what a transaction of others holds
 * back is not there yet. Record times are the broker's on topics that `declare` makes; event times travel in the header `event_time`.
 */
export const openLog = Effect.fnUntraced(function* (options: Options): Effect.fn.Return<Opened, LogError, Scope.Scope> {
  register()
  const client = yield* Effect.acquireRelease(
    Effect.try({ try: () => new Client(options), catch: logError("bounds", "") }),
    (made) => Effect.sync(() => made.close())
  )
  yield* Effect.tryPromise({ try: () => client.hello(), catch: logError("bounds", "") })
  const { declare, ...topics } = Topics.make(client)
  return { log: logOf(client, declare), topics }
})

/** `openLog`, without its topics. */
export const make = (options: Options): Effect.Effect<Log["Service"], LogError, Scope.Scope> =>
  Effect.map(openLog(options), ({ log }) => log)

const logOf = (client: Client, declare: Log["Service"]["declare"]): Log["Service"] => {
  const producer = new Producer(client)
  return Log.of({
    declare,
    append: (topic, records) => attempt("append", topic, () => producer.append(topic, records)),
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
    read: (topic, partition, position, readOptions) => read(client, placeOf(topic, partition, readOptions), position),
    open: (topic, partition, position, readOptions) => open(client, placeOf(topic, partition, readOptions), position),
    assign: Effect.fnUntraced(function* (topic, group, use, readOptions) {
      yield* attempt("assign", topic, () => client.topic(topic))
      return yield* assign(client, topic, group, (partition, generation) => {
        const assignment: Assignment = {
          topic,
          partition,
          generation,
          open: (from) => open(client, placeOf(topic, partition, readOptions), from)
        }
        return use(assignment)
      })
    })
  })
}

/** The log as a layer. */
export const layer = (options: Options): Layer.Layer<Log, LogError> => Layer.effect(Log, make(options))
