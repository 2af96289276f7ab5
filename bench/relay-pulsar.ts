// Measures how fast the relay publishes the outbox to Pulsar on both transports, and the time from commit to a subscription's handler.
// Uses the PostgreSQL and the broker of the environment, or starts its own, and prints one line of JSON at the end.
//
// node bench/relay-pulsar.ts [--messages N] [--streams N] [--segment N] [--batching] [--rate N] [--seconds N] [--type keyShared] [--only TRANSPORT]
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import { FanOut, type SubscriptionType } from "../src/subscription/fanout.ts"
import type { Sql } from "../src/postgres/client/client.ts"
import * as PostgresOnce from "../src/postgres/subscription/once.ts"
import * as PostgresOutbox from "../src/postgres/relay/outbox.ts"
import { type Cluster, connect } from "../src/pulsar/client/cluster.ts"
import { fromCluster } from "../src/pulsar/subscription/fanout.ts"
import * as PulsarRelay from "../src/pulsar/relay/relay.ts"
import * as Relay from "../src/relay/relay.ts"
import type { RelayTarget } from "../src/relay/target.ts"
import { Subscription } from "../src/subscription/subscription.ts"
import { Topic } from "../src/model/topic.ts"
import { database, databaseOn } from "../test/support/postgres.ts"
import { optionsOf, type TransportName, transports } from "../test/support/pulsar.ts"
import { makeTenant, publish, rounds } from "../test/support/relay-pulsar.ts"
import { percentile } from "./percentile.ts"
import type { Endpoints } from "../stack/service.ts"
import { services } from "./services.ts"

const { values } = parseArgs({
  options: {
    messages: { type: "string", default: "100000" },
    streams: { type: "string", default: "12" },
    segment: { type: "string", default: "1000" },
    batching: { type: "boolean", default: false },
    rate: { type: "string", default: "500" },
    seconds: { type: "string", default: "10" },
    type: { type: "string", default: "keyShared" },
    only: { type: "string" }
  }
})
const streams = Number(values.streams)
const perSegment = Number(values.segment)
const rate = Number(values.rate)
const seconds = Number(values.seconds)
const type = values.type as SubscriptionType
/** Each takes a transaction, and more of them do not change the result. */
const onceAtMost = 20_000

const fields = {
  event_id: Schema.String,
  entity_id: Schema.String,
  score: Schema.Int,
  occurred_at: Schema.Int
}
const scores = Topic.records("scores", { key: "entity_id", value: fields })
const alerts = Topic.records("alerts", { key: "entity_id", value: fields })
const insert = (sql: Sql, tenant: string, partition: number, firstSeq: number, messages: number, target: string) =>
  publish(sql, {
    tenant,
    partition,
    firstSeq,
    messages,
    target,
    record: (seq) => {
      const n = seq * streams + partition
      const key = `N${(n * 7919) % 3322}`
      const occurred_at = 1_357_000_000_000 + n
      const value = JSON.stringify({ event_id: `e${n}`, entity_id: key, score: (n * 31) % 1000, occurred_at })
      return { key, value, eventTime: occurred_at, eventId: `e${n}` }
    }
  })
const rounded = (value: number) => Math.round(value * 10) / 10

interface Case {
  readonly sql: Sql
  readonly cluster: Cluster
  readonly tenant: string
  readonly target: RelayTarget
  /** The last sequence of each stream. */
  readonly seqs: Array<number>
}

/** Publishes a filled outbox and measures it. A call before the measured one opens the connections. */
const throughput = Effect.fnUntraced(function* ({ seqs, sql, target, tenant }: Case, messages: number) {
  for (let i = 0; i < messages / perSegment; i++) {
    const stream = i % streams
    yield* insert(sql, tenant, stream, seqs[stream]! + 1, perSegment, "scores")
    seqs[stream]! += perSegment
  }
  const cpu = process.cpuUsage()
  const from = performance.now()
  let shipped = 0
  yield* rounds(target, (shipment, lag) => {
    if (shipment.halted.length > 0) throw new Error(shipment.halted[0]!.reason)
    shipped += shipment.messages
    return lag === 0 && shipped >= messages
  })
  const took = (performance.now() - from) / 1000
  const { system, user } = process.cpuUsage(cpu)
  return {
    messagesPerSecond: Math.round(shipped / took),
    cpuMicrosPerMessage: rounded((user + system) / shipped),
    rssMb: Math.round(process.memoryUsage().rss / 2 ** 20)
  }
})

/** The first messages of what was shipped, through a subscription's handlers. */
const handled = Effect.fnUntraced(function* ({ cluster, sql }: Case, messages: number, once: boolean) {
  const from = performance.now()
  const all = Latch.makeUnsafe(false)
  let count = 0
  const options = { topic: scores, name: once ? "once" : "plain", type, from: "earliest" as const, receiveQueue: 2_000 }
  const handle = () => Effect.sync(() => void (++count === messages && all.openUnsafe()))
  const run = once
    ? Subscription.run(Subscription.make(options), handle, { once: yield* PostgresOnce.make(sql) })
    : Subscription.run(Subscription.make(options), handle)
  yield* Effect.forkScoped(Effect.provideService(run, FanOut, fromCluster(cluster)))
  yield* all.await
  return Math.round((messages / (performance.now() - from)) * 1000)
}, Effect.scoped)

/** Single messages at a steady rate, from their commit until a handler has them. */
const latency = Effect.fnUntraced(function* ({ cluster, seqs, sql, target, tenant }: Case) {
  yield* Effect.forkScoped(Relay.run(target))
  const sent = new Map<string, number>()
  const latencies: Array<number> = []
  const subscription = Subscription.make({ topic: alerts, name: "latency", type, from: "earliest" })
  const handle = (_: unknown, { seq, stream }: { seq: number | undefined; stream: string | undefined }) =>
    Effect.sync(() => {
      const at = sent.get(`${stream}:${seq}`)
      // the reply of the commit may come after the message
      latencies.push(at === undefined ? 0 : performance.now() - at)
    })
  yield* Effect.forkScoped(Effect.provideService(Subscription.run(subscription, handle), FanOut, fromCluster(cluster)))
  const last: Array<Fiber.Fiber<void, unknown> | undefined> = []
  const warm = rate * 2
  const count = warm + rate * seconds
  const from = performance.now()
  for (let i = 0; i < count; i++) {
    const due = from + (i * 1000) / rate
    if (due > performance.now()) yield* Effect.sleep(due - performance.now())
    const stream = i % streams
    const seq = ++seqs[stream]!
    // commits of one stream follow one another, those of several overlap
    const before = last[stream]
    last[stream] = yield* Effect.forkChild(
      Effect.gen(function* () {
        if (before !== undefined) yield* Fiber.join(before)
        yield* insert(sql, tenant, stream, seq, 1, "alerts")
        sent.set(`p/events/${stream}:${seq}`, performance.now())
        target.signal()
      })
    )
  }
  while (latencies.length < count) yield* Effect.sleep(20)
  // the first ones meet connections that are being made
  const sorted = latencies.slice(warm).toSorted((a, b) => a - b)
  return { rate, type, p50Ms: percentile(sorted, 0.5), p99Ms: percentile(sorted, 0.99), maxMs: percentile(sorted, 1) }
}, Effect.scoped)

const measure = Effect.fnUntraced(function* (transport: TransportName, endpoints: Endpoints) {
  const given = process.env["MILLRACE_DATABASE_URL"]
  const { sql } = yield* given === undefined ? database : databaseOn(given, 20)
  const tenant = `bench-${process.pid}-${transport}`
  const options = { ...optionsOf(transport, endpoints), namespace: "alerts", tenant }
  const cluster = yield* connect(options)
  yield* Effect.promise(() => makeTenant(cluster, tenant))
  for (const topic of ["scores", "alerts"])
    yield* Effect.promise(() => cluster.admin!.create(`persistent://${tenant}/alerts/${topic}`))
  const target = yield* PulsarRelay.fromCluster(cluster, PostgresOutbox.make(sql), {
    prefix: `bench-${process.pid}`,
    batched: values.batching ? ["scores", "alerts"] : []
  })
  const one: Case = { sql, cluster, tenant, target, seqs: Array.from({ length: streams }, () => 0) }
  const warm = streams * perSegment
  yield* throughput(one, warm)
  const messages = Math.ceil(Number(values.messages) / perSegment) * perSegment
  return {
    relay: yield* throughput(one, messages),
    handledPerSecond: yield* handled(one, warm + messages, false),
    handledOncePerSecond: yield* handled(one, Math.min(warm + messages, onceAtMost), true),
    commitToHandler: yield* latency(one)
  }
}, Effect.scoped)

const main = Effect.gen(function* () {
  const report: Record<string, unknown> = {
    messages: Number(values.messages),
    streams,
    segment: perSegment,
    batching: values.batching
  }
  const endpoints = yield* services("pulsar")
  for (const transport of transports)
    if (values.only === undefined || values.only === transport) report[transport] = yield* measure(transport, endpoints)
  yield* Effect.sync(() => process.stdout.write(`${JSON.stringify(report)}\n`))
}).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "Error"))
await Effect.runPromise(main)
