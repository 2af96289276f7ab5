// Bridges for tests: both systems as a bridge sees them, topics to fill and to read, and what is found there. It holds no test.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Endpoints } from "../../stack/service.ts"
import { Bridge, type BridgeOptions } from "../../src/bridge.ts"
import { join } from "../../src/bridge-run.ts"
import * as KafkaBridge from "../../src/kafka/bridge.ts"
import * as KafkaLog from "../../src/kafka/log.ts"
import type { Log, NewRecord } from "../../src/log.ts"
import { Admin } from "../../src/pulsar/admin.ts"
import * as PulsarBridge from "../../src/pulsar/bridge.ts"
import { connect } from "../../src/pulsar/fanout.ts"
import type { Options as PulsarOptions } from "../../src/pulsar/options.ts"
import type { Outgoing, Received } from "../../src/pulsar/transport.ts"
import { makeNamespace, optionsOf, type TransportName } from "./pulsar.ts"

export const namespace = "bridge"
/** How both are reached. */
export interface Places {
  readonly kafka: KafkaLog.Options
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
  const bridge = (options: BridgeOptions) => join(Bridge.make(options), { log, kafka, pulsar })
  return { log, cluster, pulsar, kafka, bridge, admin: new Admin(places.pulsar) }
})
export type Both = Effect.Success<ReturnType<typeof both>>

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
  for (const part of yield* pulsar.parts(topic)) {
    const end = yield* pulsar.end(part)
    if (end === undefined) continue
    yield* Effect.promise(async () => {
      const reader = await cluster.transport.read({ topic: part, from: "earliest" })
      try {
        while (true) {
          const message = await reader.next(2_000)
          if (message === undefined) return
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
  batching = false
) =>
  Effect.promise(async () => {
    const producer = await cluster.transport.produce({ topic, batching, maxPending: 10_000 })
    const eventTime = 1_357_000_000_000
    await Promise.all(messages.map((one) => producer.send({ key: "", value: "", eventTime, properties: {}, ...one })))
    await producer.close()
  })
/** Makes a partitioned topic on Pulsar. */
export const partitioned = ({ admin }: Both, topic: string, partitions: number) =>
  Effect.promise(() => admin.call("PUT", `${topic.replace("://", "/")}/partitions`, partitions))

/** Waits for a condition, looking again and again. */
export const eventually = <E, R>(condition: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.gen(function* () {
    while (!(yield* condition)) yield* Effect.sleep(50)
  })
export type Scoped<A, E = unknown> = Effect.Effect<A, E, Scope.Scope>
