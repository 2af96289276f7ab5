// What tests of the relay to Kafka share: a database with an outbox, topics on a broker, what a reader of committed records finds there, and
// faults between the relay and the broker.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { Client } from "../../src/kafka/protocol/client.ts"
import { type Broker, clientOf, type Connection } from "../../src/kafka/protocol/kafkajs.ts"
import { failureOf } from "../../src/kafka/protocol/errors.ts"
import * as KafkaLog from "../../src/kafka/log/log.ts"
import type { KafkaOptions } from "../../src/kafka/protocol/options.ts"
import * as KafkaRelay from "../../src/kafka/relay/relay.ts"
import type { RelayTarget } from "../../src/relay/target.ts"
import type { Log, LogRecord } from "../../src/log/log.ts"
import type { Outbox } from "../../src/relay/outbox.ts"
import type { Sql } from "../../src/postgres/client/client.ts"
import * as PostgresOutbox from "../../src/postgres/relay/outbox.ts"
import { databaseOn } from "./postgres.ts"

/** Declares a topic that is not compacted and kept for ever. */
export const declare = (log: Log["Service"], name: string, partitions: number) =>
  log.declare([{ name, partitions, compacted: false, retentionMs: undefined }])

/** Runs requests of kafkajs's admin client. */
export const withAdmin = <A>(
  options: KafkaOptions,
  use: (admin: ReturnType<ReturnType<typeof clientOf>["admin"]>) => Promise<A>
) =>
  Effect.promise(async () => {
    const admin = clientOf(options).admin()
    await admin.connect()
    try {
      return await use(admin)
    } finally {
      await admin.disconnect()
    }
  })

/** The ends of a topic's partitions, including records of open transactions. */
const endsOf = (options: KafkaOptions, topic: string) =>
  Effect.tryPromise({
    try: async () => {
      const client = new Client(options)
      try {
        const { leaders } = await client.topic(topic)
        const ends = new Map<number, number>()
        for (const [partition, leader] of leaders.entries()) {
          const topics = [{ topic, partitions: [{ partition, timestamp: "-1" }] }]
          const { responses } = await client.use(leader, "ask", (broker) =>
            broker.listOffsets({ replicaId: -1, isolationLevel: 0, topics })
          )
          ends.set(partition, Number(responses[0]!.partitions[0]!.offset))
        }
        return ends
      } finally {
        client.close()
      }
    },
    catch: (cause) => cause
  })
/** Repeats what fails because a broker that has just started does not lead all partitions yet. */
const whileLeaderless = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  effect.pipe(
    Effect.retry({ schedule: Schedule.spaced(50), while: (cause) => failureOf(cause).retryable }),
    Effect.orDie
  )
/** Calls `each` with all committed records of a topic, one partition after the other, once no transaction is open there. */
export const eachRecord = Effect.fnUntraced(function* (
  options: KafkaOptions,
  log: Log["Service"],
  topic: string,
  each: (record: LogRecord) => void
) {
  const settled = Effect.gen(function* () {
    const ends = yield* endsOf(options, topic)
    const bounds = yield* log.bounds(topic)
    return bounds.every(({ end, partition }) => end === ends.get(partition)) ? bounds : undefined
  })
  let bounds = yield* whileLeaderless(settled)
  for (; bounds === undefined; bounds = yield* whileLeaderless(settled)) yield* Effect.sleep(5)
  for (const { end, partition, start } of bounds) {
    for (let position = start; position < end;) {
      const batch = yield* whileLeaderless(log.read(topic, partition, position))
      batch.records.forEach(each)
      position = batch.next
    }
  }
})
/** All committed records of a topic, as `eachRecord` reads them. */
export const recordsOf = Effect.fnUntraced(function* (options: KafkaOptions, log: Log["Service"], topic: string) {
  const all: Array<LogRecord> = []
  yield* eachRecord(options, log, topic, (record) => void all.push(record))
  return all
})
/** Sequence numbers by stream, in the order of the partitions. */
export const sequencesOf = (records: ReadonlyArray<LogRecord>) => {
  const found: Record<string, Array<number>> = {}
  for (const { headers } of records) (found[headers["millrace-stream"]!] ??= []).push(Number(headers["millrace-seq"]))
  return found
}
/** The offsets of a group as partition of the topic, sequence and incarnation. */
export const offsetsOf = (options: KafkaOptions, group: string, topic: string) =>
  Effect.map(
    withAdmin(options, (admin) => admin.fetchOffsets({ groupId: group, topics: [topic] })),
    ([found]) =>
      found!.partitions
        .filter(({ offset }) => offset !== "-1")
        .map(({ metadata, offset, partition }) => ({ partition, seq: Number(offset), incarnation: metadata }))
        .toSorted((a, b) => a.partition - b.partition)
  )

/** Publishes until the outbox has no more. Returns the number of messages. */
export const shipAll = Effect.fnUntraced(function* (target: RelayTarget) {
  let messages = 0
  for (let more = true; more;) {
    const shipment = yield* target.publish
    messages += shipment.messages
    more = shipment.more
  }
  return messages
})

/** What each test gets. */
export interface Case {
  readonly sql: Sql
  readonly url: string
  readonly log: Log["Service"]
  readonly options: KafkaOptions
  /** The name of its topics, groups and transactional ids, so that tests do not disturb each other. */
  readonly name: string
  /** All committed records of a topic. */
  readonly records: (topic: string) => Effect.Effect<ReadonlyArray<LogRecord>, unknown>
  readonly outbox: Outbox["Service"]
  readonly relay: (
    options?: KafkaRelay.KafkaRelayOptions,
    outbox?: Outbox["Service"]
  ) => Effect.Effect<RelayTarget, unknown, Scope.Scope>
}
let made = 0
/** Tests on a PostgreSQL server and brokers that are known when they run. Each has its own database, and a projection `p` of its own topic. */
export const testsOn =
  (services: () => { readonly root: string; readonly brokers: ReadonlyArray<string> }) =>
  (title: string, body: (_: Case) => Effect.Effect<void, unknown, Scope.Scope>, timeout = 180_000) =>
    it.live(
      title,
      () =>
        Effect.gen(function* () {
          const { brokers, root } = services()
          const { sql, url } = yield* databaseOn(root, 20)
          const options: KafkaOptions = { brokers, requestMs: 20_000 }
          const log = yield* KafkaLog.make(options)
          const name = `r${process.pid}-${made++}`
          const outbox = PostgresOutbox.make(sql)
          const relay = (relayOptions: KafkaRelay.KafkaRelayOptions = {}, own = outbox) =>
            KafkaRelay.make(options, own, { prefix: name, ...relayOptions })
          // positions are stored under the source topic
          yield* declare(log, "events", 8)
          const records = (topic: string) => recordsOf(options, log, topic)
          yield* body({ sql, url, log, options, name, records, outbox, relay })
        }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "Fatal")),
      timeout
    )

/** An outbox that gives every lane to every process that asks, so that nothing but fencing keeps relays apart. */
export const unclaimed = (outbox: Outbox["Service"]): Outbox["Service"] => ({
  ...outbox,
  lanes: (target, lanes, idOf) =>
    Effect.map(outbox.lanes(target, lanes, idOf), (own) => ({
      ...own,
      claim: (count: number) => Effect.succeed({ held: Array.from({ length: count }, (_, i) => i), surplus: 0 })
    }))
})

/** Kafka's API keys. */
export const requests = { produce: 0, take: 22, addPartitions: 24, addOffsets: 25, end: 26, commitOffsets: 28 } as const
type Send = Connection["send"]
/**
 * Intercepts the requests of this process's relays while the scope is open. `meet` gets each request's API key and how to send it,
 * and what it resolves or rejects to is the answer.
 */
export const intercept = (meet: (apiKey: number, send: () => Promise<unknown>) => Promise<unknown>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { use } = Client.prototype
      const between = (broker: Broker): Broker =>
        Object.create(broker, {
          connectionPool: {
            value: Object.create(broker.connectionPool, {
              getConnection: {
                value: async (index: number) => {
                  const connection = await broker.connectionPool.getConnection(index)
                  const send: Send = (protocol) =>
                    meet(protocol.request.apiKey, () => connection.send(protocol)) as ReturnType<Send> as never
                  return { send }
                }
              }
            }) as Broker["connectionPool"]
          }
        }) as Broker
      Client.prototype.use = function (node, purpose, run, ms) {
        const ours = /^(produce|transaction|group)$/.test(purpose)
        return use.call(this, node, purpose, (broker) => run(ours ? between(broker) : broker), ms) as never
      }
      return use
    }),
    (use) => Effect.sync(() => void (Client.prototype.use = use))
  )
/** The error of a lost connection. */
export const lost = () =>
  Object.assign(new Error("lost by the test"), { name: "KafkaJSConnectionError", retriable: true })

/** Asserts that each stream's messages are there once, and in order within each partition of a topic. */
export const assertOnce = (
  topics: ReadonlyArray<ReadonlyArray<LogRecord>>,
  expected: Readonly<Record<string, number>>
) => {
  const found = sequencesOf(topics.flat())
  for (const [stream, n] of Object.entries(expected)) {
    const seqs = (found[stream] ?? []).toSorted((a, b) => a - b)
    assert.deepStrictEqual(
      seqs,
      Array.from({ length: n }, (_, i) => i + 1),
      stream
    )
  }
  for (const records of topics) {
    const last = new Map<string, number>()
    for (const { headers, partition } of records) {
      const place = `${headers["millrace-stream"]} in ${partition}`
      const seq = Number(headers["millrace-seq"])
      assert.isAbove(seq, last.get(place) ?? 0, place)
      last.set(place, seq)
    }
  }
}
