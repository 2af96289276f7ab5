// Measures how fast messages go through Pulsar on both transports: published, received and acknowledged, compared with the plain native client.
//
// node bench/pulsar.ts [--messages N] [--bytes N] [--only native|websocket|plain]. Uses the broker of MILLRACE_PULSAR_URL, or starts one.
import { createRequire } from "node:module"
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import { type Cluster, connect } from "../src/pulsar/client/cluster.ts"
import { fromCluster } from "../src/pulsar/subscription/fanout.ts"
import type * as Native from "../src/pulsar/client/native-types.ts"
import { topicName } from "../src/pulsar/client/topic-names.ts"
import {
  makeNamespace,
  type NumberedMessage,
  openProducer,
  optionsOf,
  sendAll,
  transports
} from "../test/support/pulsar.ts"
import { percentile } from "./percentile.ts"
import { services } from "./services.ts"

const { values } = parseArgs({
  options: {
    messages: { type: "string", default: "20000" },
    bytes: { type: "string", default: "100" },
    only: { type: "string" }
  }
})
const messages = Number(values.messages)
const value = JSON.stringify("x".repeat(Number(values.bytes)))
const keys = 1_000
const numbered = (from: number, to: number): ReadonlyArray<NumberedMessage> =>
  Array.from({ length: to - from + 1 }, (_, i) => ({
    key: `N${(from + i) % keys}`,
    value,
    eventTime: 1_357_000_000_000,
    // the properties of the relay's messages: each costs the native client some microseconds
    properties: {
      trace_id: "0af7651916cd43dd8448eb211c80319c",
      traceparent: `00-0af7651916cd43dd8448eb211c80319c-${String(from + i).padStart(16, "0")}-01`,
      event_id: `e${from + i}`,
      tenant: "acme",
      schema_version: "1",
      "millrace-stream": "s",
      "millrace-seq": String(from + i),
      "millrace-incarnation": "00000000-0000-4000-8000-000000000001",
      "millrace-sent": String(from + i)
    },
    sequenceId: from + i
  }))
const perSecond = (count: number, from: number) => Math.round(count / ((performance.now() - from) / 1_000))

const topicFor = Effect.fnUntraced(function* (cluster: Cluster, name: string) {
  const topic = `bench-${process.pid}-${name}`
  yield* Effect.promise(() => cluster.admin!.create(topicName(cluster.options, topic)))
  return topic
})

/** Messages a second, sent in thousands. */
const produce = Effect.fnUntraced(function* (cluster: Cluster, topic: string, batching: boolean) {
  const producer = yield* openProducer(cluster, topic, { initialSequenceId: 0, batching })
  const from = performance.now()
  for (let at = 1; at <= messages; at += 1_000) yield* sendAll(producer, numbered(at, Math.min(at + 999, messages)))
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

/** The time from sending a message to receiving it, in milliseconds. */
const latency = Effect.fnUntraced(function* (cluster: Cluster, topic: string) {
  const producer = yield* openProducer(cluster, topic, { initialSequenceId: 0 })
  const consumer = yield* fromCluster(cluster).subscribe({ topic, name: "latency", type: "keyShared" })
  const times: Array<number> = []
  for (let i = 1; i <= 300; i++) {
    const from = performance.now()
    yield* sendAll(producer, numbered(i, i))
    yield* consumer.acknowledge(yield* consumer.receive(1))
    times.push(performance.now() - from)
  }
  const sorted = times.toSorted((a, b) => a - b)
  return { p50: percentile(sorted, 0.5), p99: percentile(sorted, 0.99) }
}, Effect.scoped)

// The native client alone, with the same messages: the best that the adapters could reach.
const plainClient = (url: string, client: string | undefined): Native.Client => {
  const module = createRequire(import.meta.url)(client ?? "pulsar-client") as Native.Module
  return new module.Client({
    serviceUrl: url,
    operationTimeoutSeconds: 30,
    connectionTimeoutMs: 10_000,
    logLevel: module.LogLevel.ERROR,
    log: () => {},
    tlsValidateHostname: false
  })
}
const plainProducer = (client: Native.Client, topic: string, batchingEnabled: boolean) =>
  client.createProducer({
    topic,
    batchingEnabled,
    batchingMaxPublishDelayMs: 1,
    batchingMaxMessages: 1_000,
    maxPendingMessages: 1_000,
    blockIfQueueFull: false,
    sendTimeoutMs: 30_000
  })
const plainConsumer = (client: Native.Client, topic: string, from: "Earliest" | "Latest") =>
  client.subscribe({
    topic,
    subscription: `plain-${from}`,
    subscriptionType: "Exclusive",
    subscriptionInitialPosition: from,
    consumerName: "plain",
    receiverQueueSize: 1_000,
    nAckRedeliverTimeoutMs: 1_000,
    batchIndexAckEnabled: true,
    batchReceivePolicy: { maxNumMessages: 200, maxNumBytes: -1, timeoutMs: 1 }
  })
const plainMessage = ({ eventTime, key, properties, value }: NumberedMessage) => ({
  data: Buffer.from(value),
  partitionKey: key,
  eventTimestamp: eventTime,
  properties
})
const plainRead = (message: Native.Message) => ({
  key: message.getPartitionKey(),
  value: message.getData().toString(),
  eventTime: message.getEventTimestamp(),
  properties: message.getProperties()
})

const plainProduce = async (client: Native.Client, topic: string, batching: boolean) => {
  const producer = await plainProducer(client, topic, batching)
  const from = performance.now()
  for (let at = 1; at <= messages; at += 1_000)
    await Promise.all(numbered(at, Math.min(at + 999, messages)).map((one) => producer.send(plainMessage(one))))
  return perSecond(messages, from)
}
const plainConsume = async (client: Native.Client, topic: string) => {
  const consumer = await plainConsumer(client, topic, "Earliest")
  const from = performance.now()
  for (let got = 0; got < messages;) {
    const some = await consumer.batchReceive()
    got += some.length
    for (const message of some) plainRead(message)
    await Promise.all(some.map((message) => consumer.acknowledgeId(message.getMessageId())))
  }
  return perSecond(messages, from)
}
const plainLatency = async (client: Native.Client, topic: string) => {
  const consumer = await plainConsumer(client, topic, "Latest")
  const producer = await plainProducer(client, topic, false)
  const times: Array<number> = []
  for (const one of numbered(1, 300)) {
    const from = performance.now()
    await producer.send(plainMessage(one))
    await consumer.acknowledgeId((await consumer.receive()).getMessageId())
    times.push(performance.now() - from)
  }
  const sorted = times.toSorted((a, b) => a - b)
  return { p50: percentile(sorted, 0.5), p99: percentile(sorted, 0.99) }
}

/** Three topics, one for each way to send. */
const topicsFor = Effect.fnUntraced(function* (cluster: Cluster, name: string) {
  return {
    single: yield* topicFor(cluster, `${name}-single`),
    batched: yield* topicFor(cluster, `${name}-batched`),
    slow: yield* topicFor(cluster, `${name}-latency`)
  }
})
const byAdapter = Effect.fnUntraced(function* (cluster: Cluster, name: string) {
  const { batched, single, slow } = yield* topicsFor(cluster, name)
  return {
    produced: yield* produce(cluster, single, false),
    producedBatched: yield* produce(cluster, batched, true),
    exclusive: yield* consume(cluster, single, "exclusive"),
    exclusiveBatched: yield* consume(cluster, batched, "exclusive"),
    shared: yield* consume(cluster, single, "shared"),
    keyShared: yield* consume(cluster, single, "keyShared"),
    latencyMs: yield* latency(cluster, slow)
  }
})
const byPlainClient = Effect.fnUntraced(function* (cluster: Cluster) {
  const { batched, single, slow } = yield* topicsFor(cluster, "plain")
  const nameOf = (topic: string) => topicName(cluster.options, topic)
  return yield* Effect.promise(async () => {
    const client = plainClient(cluster.options.url, cluster.options.client)
    const figures = {
      produced: await plainProduce(client, nameOf(single), false),
      producedBatched: await plainProduce(client, nameOf(batched), true),
      exclusive: await plainConsume(client, nameOf(single)),
      exclusiveBatched: await plainConsume(client, nameOf(batched)),
      latencyMs: await plainLatency(client, nameOf(slow))
    }
    await client.close()
    return figures
  })
})

const rounds = ["warm-up", ...transports, "plain"] as const
const main = Effect.gen(function* () {
  const endpoints = yield* services("pulsar")
  yield* Effect.promise(() => makeNamespace(optionsOf("native", endpoints)))
  const report: Record<string, unknown> = { messages, bytes: Number(values.bytes) }
  for (const round of rounds) {
    if (values.only !== undefined && round !== "warm-up" && round !== values.only) continue
    const cluster = yield* connect(optionsOf(round === "websocket" ? round : "native", endpoints))
    const cpu = process.cpuUsage()
    const figures = yield* round === "plain" ? byPlainClient(cluster) : byAdapter(cluster, round)
    const { system, user } = process.cpuUsage(cpu)
    // a broker is slow after its start
    if (round !== "warm-up") report[round] = { ...figures, cpuSeconds: Math.round((system + user) / 1e4) / 100 }
  }
  yield* Effect.sync(() => process.stdout.write(`${JSON.stringify(report)}\n`))
}).pipe(Effect.scoped)

await Effect.runPromise(main)
