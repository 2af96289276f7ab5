// Bridges for tests: both systems as a bridge sees them, topics to fill and to read, and what is found there. It holds no test.
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
/** How both are reached. */
export interface Places {
  readonly kafka: KafkaLog.KafkaOptions
  readonly pulsar: PulsarOptions
}
export const placesOf = (endpoints: Endpoints, transport: TransportName = "native"): Places => ({
  kafka: { brokers: endpoints.MILLRACE_KAFKA_BROKERS!.split(",") },
  pulsar: { ...optionsOf(transport, endpoints), namespace }
})
/** Both systems, a namespace whose topics keep everything, and a way to make bridges. */
export const both = Effect.fnUntraced(function* (places: Places) {
  yield* Effect.promise(() => makeNamespace(places.pulsar))
  const log = yield* KafkaLog.make(places.kafka)
  const cluster = yield* connect(places.pulsar)
  const pulsar = yield* PulsarBridge.make(places.pulsar)
  const kafka = KafkaBridge.make(places.kafka)
  const bridge = (options: BridgeOptions) => makeContext(Bridge.make(options), { log, kafka, pulsar })
  return { places, log, cluster, pulsar, kafka, bridge, admin: new Admin(places.pulsar), kafkaOptions: places.kafka }
})
export type Both = Effect.Success<ReturnType<typeof both>>

/** A test of its own with both systems, over one of the transports. */
export const bridgeTest = (
  name: string,
  body: (ends: Both) => Effect.Effect<void, unknown, Scope.Scope>,
  transport: TransportName = "native"
): void =>
  testOver(transport)(
    `${name} (${transport})`,
    () =>
      Effect.gen(function* () {
        yield* body(yield* both(placesOf(yield* shared("kafka", "pulsar"), transport)))
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "Fatal")) as Effect.Effect<void>,
    120_000
  )

/** A topic's name in full. */
export const full = (topic: string, tenant = "public") => `persistent://${tenant}/${namespace}/${topic}`

let number = 0
/** A name that no other test has. */
export const unique = (text: string) => `${text}-${process.pid}-${Date.now().toString(36)}-${number++}`

/** A record for Kafka; what is not given is usual. */
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

/** Everything that a topic on Pulsar has, a part after the other. */
export const messagesOf = Effect.fnUntraced(function* ({ cluster, pulsar }: Both, topic: string) {
  const all: Array<Received> = []
  for (const part of yield* pulsar.partitionsOf(topic)) {
    const end = yield* pulsar.lastPosition(part)
    if (end === undefined) continue
    yield* Effect.promise(async () => {
      const reader = await cluster.transport.read({ topic: part, from: "earliest" })
      try {
        while (true) {
          const message = await reader.next(30_000)
          if (message === undefined) throw new Error(`${part} ends at ${JSON.stringify(end)}, which does not come`)
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
  { cluster }: Pick<Both, "cluster">,
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
/** Makes a partitioned topic on Pulsar. */
export const partitioned = ({ admin }: Both, topic: string, partitions: number) =>
  Effect.promise(() => admin.call("PUT", `${topic.replace("://", "/")}/partitions`, partitions))

/** Makes a tenant with the bridge's namespace. */
export const tenant = ({ admin, cluster: { options: pulsar } }: Both, name: string) =>
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
/** Begins a transaction with a record in a partition. Returns how it is aborted, once. */
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
/** Deletes a topic on Kafka. */
export const removeTopic = (options: KafkaLog.KafkaOptions, topic: string) =>
  administer(options, (admin) => admin.deleteTopics({ topics: [topic] }))
/** Deletes partition 0's records before an offset, as retention does. */
export const removeRecords = (options: KafkaLog.KafkaOptions, topic: string, before: number) =>
  administer(options, async (admin) => {
    // kafkajs learns the topic by this
    await admin.fetchTopicOffsets(topic)
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: String(before) }] })
  })
/** Deletes a consumer group, as Kafka does after 7 idle days. */
export const removeGroup = (options: KafkaLog.KafkaOptions, group: string) =>
  administer(options, (admin) => admin.deleteGroups([group]))
/** The sum of a group's offsets on a topic: how far it came. */
export const progressOf = (options: KafkaLog.KafkaOptions, group: string, topic: string) =>
  administer(options, async (admin) => {
    const [found] = await admin.fetchOffsets({ groupId: group, topics: [topic] })
    return (found?.partitions ?? []).reduce((sum, { offset }) => sum + Math.max(0, Number(offset)), 0)
  })
/** Has the broker forget the sequence ids of a topic's producers, as it does after 6 idle hours. */
export const forgetProducers = async ({ admin }: Pick<Both, "admin">, topic: string) => {
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

/** Waits for a condition, looking again and again. Dies after a thousand looks, with what there is to say about it. */
export const eventually = <E, R>(
  condition: Effect.Effect<boolean, E, R>,
  said: () => string = () => ""
): Effect.Effect<void, E, R> =>
  Effect.gen(function* () {
    for (let looks = 1; !(yield* condition); looks++) {
      if (looks === 1_000) return yield* Effect.die(new Error(`it does not come about: ${said()}`))
      yield* Effect.sleep(100)
    }
  })
