// What tests of the bridge share: both sides, topics to write and to read, and changes that Kafka and Pulsar make by themselves only after long.
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import type * as Scope from "effect/Scope"
import type { Endpoints } from "../../stack/service.ts"
import { shared } from "../../stack/testing.ts"
import { Bridge, type BridgeOptions } from "../../src/bridge/definition.ts"
import { makeContext } from "../../src/bridge/context.ts"
import * as KafkaBridge from "../../src/kafka/bridge-side.ts"
import { clientOf } from "../../src/kafka/protocol/kafkajs.ts"
import * as KafkaLog from "../../src/kafka/log/log.ts"
import type { Log, NewRecord } from "../../src/log/log.ts"
import { Admin, orUndefined } from "../../src/pulsar/client/admin.ts"
import * as PulsarBridge from "../../src/pulsar/bridge-side.ts"
import { connect } from "../../src/pulsar/client/cluster.ts"
import type { PulsarOptions } from "../../src/pulsar/client/options.ts"
import type { Outgoing, Received } from "../../src/pulsar/client/transport.ts"
import { makeNamespace, optionsOf, type TransportName } from "./pulsar.ts"
import { testOver } from "./stack.ts"

export const namespace = "bridge"
/** The options of the clients of both sides. */
export interface SideOptions {
  readonly kafka: KafkaLog.KafkaOptions
  readonly pulsar: PulsarOptions
}
export const sideOptionsOf = (endpoints: Endpoints, transport: TransportName = "native"): SideOptions => ({
  kafka: { brokers: endpoints.MILLRACE_KAFKA_BROKERS!.split(",") },
  pulsar: { ...optionsOf(transport, endpoints), namespace }
})
/** Opens both sides, creates a namespace whose topics keep everything, and returns a function that makes the context of a bridge. */
export const openBothSides = Effect.fnUntraced(function* (options: SideOptions) {
  yield* Effect.promise(() => makeNamespace(options.pulsar))
  const log = yield* KafkaLog.make(options.kafka)
  const cluster = yield* connect(options.pulsar)
  const pulsar = yield* PulsarBridge.make(options.pulsar)
  const kafka = KafkaBridge.make(options.kafka)
  const bridge = (options: BridgeOptions) => makeContext(Bridge.make(options), { log, kafka, pulsar })
  return { options, log, cluster, pulsar, kafka, bridge, admin: new Admin(options.pulsar), kafkaOptions: options.kafka }
})
export type BothSides = Effect.Success<ReturnType<typeof openBothSides>>

/** Declares a test with both sides, over one transport. */
export const bridgeTest = (
  name: string,
  body: (sides: BothSides) => Effect.Effect<void, unknown, Scope.Scope>,
  transport: TransportName = "native"
): void =>
  testOver(transport)(
    `${name} (${transport})`,
    () =>
      Effect.gen(function* () {
        yield* body(yield* openBothSides(sideOptionsOf(yield* shared("kafka", "pulsar"), transport)))
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "Fatal")) as Effect.Effect<void>,
    120_000
  )

/** The full name of a topic in the bridge's namespace. */
export const full = (topic: string, tenant = "public") => `persistent://${tenant}/${namespace}/${topic}`

let number = 0
/** A name that no other test uses. */
export const unique = (text: string) => `${text}-${process.pid}-${Date.now().toString(36)}-${number++}`

/** A record for Kafka, with defaults for what is not given. */
export const recordOf = (key: string | null, value: string | null, more: Partial<NewRecord> = {}): NewRecord => ({
  partition: 0,
  key,
  value,
  eventTime: 1_357_000_000_000,
  eventId: undefined,
  tenant: undefined,
  traceparent: undefined,
  schemaVersion: undefined,
  headers: {},
  ...more
})
export const declare = (log: Log["Service"], name: string, partitions: number) =>
  log.declare([{ name, partitions, compacted: false, retentionMs: undefined }])

/** All messages of a topic on Pulsar, one partition after the other. */
export const messagesOf = Effect.fnUntraced(function* ({ cluster, pulsar }: BothSides, topic: string) {
  const all: Array<Received> = []
  for (const part of yield* pulsar.partitionsOf(topic)) {
    const end = yield* pulsar.lastPosition(part)
    if (end === undefined) continue
    yield* Effect.promise(async () => {
      const reader = await cluster.transport.read({ topic: part, from: "earliest" })
      try {
        while (true) {
          const message = await reader.next(30_000)
          if (message === undefined)
            throw new Error(`the message at the end of ${part}, ${JSON.stringify(end)}, did not come within 30 s`)
          all.push(message)
          const { batch, batchSize, entry, ledger } = message.id
          if (ledger === end.ledger && entry === end.entry && (batch < 0 || batch === batchSize - 1)) return
        }
      } finally {
        await reader.close()
      }
    })
  }
  return all
})
/** Sends to a topic on Pulsar that is not partitioned, or to one partition. */
export const publish = (
  { cluster }: Pick<BothSides, "cluster">,
  topic: string,
  messages: ReadonlyArray<Partial<Outgoing>>,
  batching = false,
  name?: string
) =>
  Effect.promise(async () => {
    const settings = { topic, batching, maxPending: 10_000, ...(name !== undefined && { name }) }
    const producer = await cluster.transport.produce(settings)
    const eventTime = 1_357_000_000_000
    await Promise.all(messages.map((one) => producer.send({ key: "", value: "", eventTime, properties: {}, ...one })))
    await producer.close()
  })
/** Creates a partitioned topic on Pulsar. */
export const partitioned = ({ admin }: BothSides, topic: string, partitions: number) =>
  Effect.promise(() => admin.call("PUT", `${topic.replace("://", "/")}/partitions`, partitions))

/** Creates a tenant with the bridge's namespace. */
export const tenant = ({ admin, cluster: { options: pulsar } }: BothSides, name: string) =>
  Effect.promise(async () => {
    await admin.call("PUT", `tenants/${name}`, { allowedClusters: ["standalone"] }, [409])
    await makeNamespace({ ...pulsar, tenant: name, namespace })
  })
const administer = async <A>(
  options: KafkaLog.KafkaOptions,
  use: (admin: ReturnType<ReturnType<typeof clientOf>["admin"]>) => Promise<A>
) => {
  const admin = clientOf(options).admin()
  await admin.connect()
  try {
    return await use(admin)
  } finally {
    await admin.disconnect()
  }
}
/** Begins a transaction with a record in a partition, and returns how to abort it. */
export const transactionOf = Effect.fnUntraced(function* (
  options: KafkaLog.KafkaOptions,
  topic: string,
  partition: number
) {
  const settings = { transactionalId: `other-${topic}`, idempotent: true, maxInFlightRequests: 1 }
  const producer = yield* Effect.acquireRelease(
    Effect.promise(async () => {
      const made = clientOf(options).producer(settings)
      await made.connect()
      return made
    }),
    (made) => Effect.promise(() => made.disconnect())
  )
  const transaction = yield* Effect.promise(() => producer.transaction())
  yield* Effect.promise(() => transaction.send({ topic, messages: [{ partition, value: "other" }] }))
  return yield* Effect.cached(Effect.promise(() => transaction.abort()))
})
/** Deletes a topic on Kafka, and waits until the broker has: until then it takes the old topic for the one that is created next. */
export const removeTopic = (options: KafkaLog.KafkaOptions, topic: string) =>
  administer(options, async (admin) => {
    await admin.deleteTopics({ topics: [topic] })
    const isGone = Effect.promise(async () => !(await admin.listTopics()).includes(topic))
    await Effect.runPromise(eventually(isGone, () => `the broker still has ${topic}`))
  })
/** Deletes partition 0's records before an offset, as retention does. */
export const removeRecords = (options: KafkaLog.KafkaOptions, topic: string, before: number) =>
  administer(options, async (admin) => {
    // so that kafkajs knows the topic
    await admin.fetchTopicOffsets(topic)
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: String(before) }] })
  })
/** Deletes a consumer group, as Kafka does after 7 idle days. */
export const removeGroup = (options: KafkaLog.KafkaOptions, group: string) =>
  administer(options, (admin) => admin.deleteGroups([group]))
/** The sum of a group's offsets on a topic, as a measure of its progress. */
export const progressOf = (options: KafkaLog.KafkaOptions, group: string, topic: string) =>
  administer(options, async (admin) => {
    const [found] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
    return (found?.partitions ?? []).reduce((sum, { offset }) => sum + Math.max(0, Number(offset)), 0)
  })
/** Makes the broker forget the sequence ids of a topic's producers, as it does after 6 idle hours. */
export const forgetProducers = async ({ admin }: Pick<BothSides, "admin">, topic: string) => {
  const path = topic.replace("://", "/")
  const parts = (await orUndefined(admin.partitions(topic))) ?? 0
  const paths = parts === 0 ? [path] : Array.from({ length: parts }, (_, i) => `${path}-partition-${i}`)
  const isOn = async (one: string) => {
    const found = (await admin.call("GET", `${one}/internalStats`)) as { readonly cursors: object }
    return "pulsar.dedup" in found.cursors
  }
  for (const enabled of [false, true]) {
    await admin.call("POST", `${path}/deduplicationEnabled`, enabled)
    for (const one of paths)
      while ((await isOn(one)) !== enabled) await new Promise((resolve) => setTimeout(resolve, 50))
  }
  await admin.call("DELETE", `${path}/deduplicationEnabled`)
}

/** Waits until a condition holds, asking up to a thousand times. Otherwise dies with what `details` returns. */
export const eventually = <E, R>(
  condition: Effect.Effect<boolean, E, R>,
  details: () => string = () => ""
): Effect.Effect<void, E, R> =>
  Effect.gen(function* () {
    for (let looks = 1; !(yield* condition); looks++) {
      if (looks === 1_000) return yield* Effect.die(new Error(`the condition does not come to hold: ${details()}`))
      yield* Effect.sleep(100)
    }
  })
