// How fast messages go through Pulsar on both transports: published, delivered and acknowledged by the port, beside what a plain native client does.
//
// node bench/pulsar.ts [--messages N] [--bytes N]. The broker is MILLRACE_PULSAR_URL's, or one of its own.
import { createRequire } from "node:module"
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import { shared } from "../stack/testing.ts"
import { type Cluster, connect, fromCluster } from "../src/pulsar/fanout.ts"
import type * as Native from "../src/pulsar/native-client.ts"
import { topicName } from "../src/pulsar/options.ts"
import * as Producer from "../src/pulsar/producer.ts"
import { makeNamespace, optionsOf, transports } from "../test/support/pulsar.ts"

const { values } = parseArgs({
  options: { messages: { type: "string", default: "20000" }, bytes: { type: "string", default: "100" } }
})
const messages = Number(values.messages)
const value = JSON.stringify("x".repeat(Number(values.bytes)))
const keys = 1_000
const numbered = (from: number, to: number): ReadonlyArray<Producer.Numbered> =>
  Array.from({ length: to - from + 1 }, (_, i) => ({
    key: `N${(from + i) % keys}`,
    value,
    eventTime: 1_357_000_000_000,
    properties: { "millrace-stream": "s", "millrace-seq": String(from + i), event_id: `e${from + i}` },
    sequenceId: from + i
  }))
const perSecond = (count: number, from: number) => Math.round(count / ((performance.now() - from) / 1_000))
const percentile = (sorted: ReadonlyArray<number>, p: number) =>
  Math.round((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? 0) * 10) / 10

const topicFor = Effect.fnUntraced(function* (cluster: Cluster, name: string) {
  const topic = `bench-${process.pid}-${name}`
  yield* Effect.promise(() => cluster.admin!.create(topicName(cluster.options, topic)))
  return topic
})

/** Messages a second, sent in thousands. */
const produce = Effect.fnUntraced(function* (cluster: Cluster, topic: string, batching: boolean) {
  const producer = yield* Producer.open(cluster, { topic, name: "s#1", initialSequenceId: 0 })
  yield* producer.setBatching(batching)
  const from = performance.now()
  for (let at = 1; at <= messages; at += 1_000) yield* producer.send(numbered(at, Math.min(at + 999, messages)))
  return perSecond(messages, from)
}, Effect.scoped)

/** Messages a second, received and acknowledged. */
const consume = Effect.fnUntraced(function* (
  cluster: Cluster,
  topic: string,
  type: "exclusive" | "shared" | "keyShared"
) {
  const consumer = yield* fromCluster(cluster).subscribe({ topic, name: type, type, from: "earliest" })
  const from = performance.now()
  for (let got = 0; got < messages;) {
    const some = yield* consumer.receive(500)
    yield* consumer.acknowledge(some)
    got += some.length
  }
  return perSecond(messages, from)
}, Effect.scoped)

/** From sending one message to having received it, in milliseconds. */
const latency = Effect.fnUntraced(function* (cluster: Cluster, topic: string) {
  const producer = yield* Producer.open(cluster, { topic, name: "s#1", initialSequenceId: 0 })
  const consumer = yield* fromCluster(cluster).subscribe({ topic, name: "latency", type: "keyShared" })
  const times: Array<number> = []
  for (let i = 1; i <= 300; i++) {
    const from = performance.now()
    yield* producer.send(numbered(i, i))
    yield* consumer.acknowledge(yield* consumer.receive(1))
    times.push(performance.now() - from)
  }
  const sorted = times.toSorted((a, b) => a - b)
  return { p50: percentile(sorted, 0.5), p99: percentile(sorted, 0.99) }
}, Effect.scoped)

/** The native client alone, batched and with nothing around it. */
const plain = async (url: string, client: string | undefined, topic: string) => {
  const module = createRequire(import.meta.url)(client ?? "pulsar-client") as Native.Module
  const connection = new module.Client({
    serviceUrl: url,
    operationTimeoutSeconds: 30,
    connectionTimeoutMs: 10_000,
    logLevel: module.LogLevel.ERROR,
    log: () => {},
    tlsValidateHostname: false
  })
  const options = { batchingEnabled: true, batchingMaxPublishDelayMs: 1, batchingMaxMessages: 1_000 }
  const limits = { maxPendingMessages: 1_000, blockIfQueueFull: false, sendTimeoutMs: 30_000 }
  const producer = await connection.createProducer({ topic, ...options, ...limits })
  const data = Buffer.from(value)
  let from = performance.now()
  for (let at = 0; at < messages; at += 1_000)
    await Promise.all(
      Array.from({ length: Math.min(1_000, messages - at) }, (_, i) =>
        producer.send({ data, partitionKey: `N${(at + i) % keys}`, eventTimestamp: 1, properties: {} })
      )
    )
  const produced = perSecond(messages, from)
  const consumer = await connection.subscribe({
    topic,
    subscription: "plain",
    subscriptionType: "Exclusive",
    subscriptionInitialPosition: "Earliest",
    consumerName: "plain",
    receiverQueueSize: 1_000,
    nAckRedeliverTimeoutMs: 1_000,
    batchIndexAckEnabled: false,
    batchReceivePolicy: { maxNumMessages: 200, maxNumBytes: -1, timeoutMs: 1 }
  })
  from = performance.now()
  for (let got = 0; got < messages;) {
    const some = await consumer.batchReceive()
    got += some.length
    for (const message of some) void consumer.acknowledgeId(message.getMessageId())
  }
  const consumed = perSecond(messages, from)
  await connection.close()
  return { produced, consumed }
}

const main = Effect.gen(function* () {
  const endpoints = yield* shared("pulsar")
  const native = optionsOf("native", endpoints)
  yield* Effect.promise(() => makeNamespace(native))
  const report: Record<string, unknown> = { messages, bytes: Number(values.bytes) }
  for (const transport of transports) {
    const cluster = yield* connect(optionsOf(transport, endpoints))
    const [single, batched, slow] = [
      yield* topicFor(cluster, `${transport}-single`),
      yield* topicFor(cluster, `${transport}-batched`),
      yield* topicFor(cluster, `${transport}-latency`)
    ]
    report[transport] = {
      produced: yield* produce(cluster, single, false),
      producedBatched: yield* produce(cluster, batched, true),
      exclusive: yield* consume(cluster, single, "exclusive"),
      exclusiveBatched: yield* consume(cluster, batched, "exclusive"),
      shared: yield* consume(cluster, single, "shared"),
      keyShared: yield* consume(cluster, single, "keyShared"),
      latencyMs: yield* latency(cluster, slow)
    }
  }
  const cluster = yield* connect(native)
  const topic = topicName(native, yield* topicFor(cluster, "plain"))
  report["plain"] = yield* Effect.promise(() => plain(native.url, native.client, topic))
  yield* Effect.sync(() => process.stdout.write(`${JSON.stringify(report)}\n`))
}).pipe(Effect.scoped)

await Effect.runPromise(main)
