// How fast subscriptions on PostgreSQL deliver and acknowledge, by type, and how long a committed message takes through the relay.
//
// node bench/fanout.ts [--messages N] [--rate N] [--seconds N] [--batch N]
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { FanOut, type SubscriptionType } from "../src/subscription/fanout.ts"
import { Log } from "../src/log/log.ts"
import { query, type Sql } from "../src/postgres/client/client.ts"
import { pack } from "../src/postgres/log/batch-codec.ts"
import * as PostgresFanOut from "../src/postgres/subscription/fanout.ts"
import * as PostgresLog from "../src/postgres/log/log.ts"
import * as PostgresRelay from "../src/postgres/relay/to-log.ts"
import * as Relay from "../src/relay/relay.ts"
import { incarnation } from "../test/support/outbox.ts"
import { database } from "../test/support/postgres.ts"

const { values } = parseArgs({
  options: {
    messages: { type: "string", default: "200000" },
    rate: { type: "string", default: "500" },
    seconds: { type: "string", default: "10" },
    batch: { type: "string", default: "500" }
  }
})
const partitions = 12
const batch = Number(values.batch)
const recordOf = (i: number) => {
  const key = `N${(i * 7919) % 3322}`
  return {
    partition: i % partitions,
    key,
    value: JSON.stringify({
      alert_id: `e${i}`,
      entity_id: key,
      score: (i * 31) % 1000,
      threshold: 900,
      segment: "unknown",
      occurred_at: 1_357_000_000_000 + i
    }),
    eventTime: 1_357_000_000_000 + i,
    eventId: `e${i}`,
    tenant: "AA",
    traceparent: `00-0af7651916cd43dd8448eb211c80319c-${String(i).padStart(16, "0")}-01`,
    schemaVersion: 1,
    headers: {}
  }
}
const percentile = (sorted: ReadonlyArray<number>, p: number) =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? 0

const throughput = Effect.fnUntraced(function* (type: SubscriptionType, consumers: number, total: number) {
  const fanOut = yield* FanOut
  const name = `${type}-${consumers}`
  const from = performance.now()
  let left = total
  yield* Effect.all(
    Array.from({ length: consumers }, () =>
      Effect.gen(function* () {
        const consumer = yield* fanOut.subscribe({
          topic: "bulk",
          name,
          type,
          from: "earliest",
          receiveQueue: batch * 4
        })
        while (left > 0) {
          const messages = yield* Effect.timeoutOption(consumer.receive(batch), 1_000)
          if (messages._tag === "None") continue
          left -= messages.value.length
          yield* consumer.acknowledge(messages.value)
        }
      })
    ),
    { concurrency: "unbounded" }
  )
  const seconds = (performance.now() - from) / 1000
  return { type, consumers, batch, seconds, messagesPerSecond: Math.round(total / seconds) }
}, Effect.scoped)

const latency = Effect.fnUntraced(function* (sql: Sql, type: SubscriptionType, rate: number, seconds: number) {
  const [fanOut, log] = [yield* FanOut, yield* Log]
  const topic = `alerts-${type}`
  yield* log.declare([{ name: topic, partitions, compacted: false, retentionMs: undefined }])
  const target = yield* PostgresRelay.make(sql)
  yield* Effect.forkScoped(Relay.run(target))
  const sent = new Map<string, number>()
  const latencies: Array<number> = []
  const consumer = yield* fanOut.subscribe({ topic, name: "s", type, from: "earliest" })
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.gen(function* () {
        const messages = yield* consumer.receive(100)
        const now = performance.now()
        for (const { seq, stream } of messages) latencies.push(now - sent.get(`${stream}:${seq}`)!)
        yield* consumer.acknowledge(messages)
      })
    )
  )
  yield* Effect.sleep(500)
  const seqs = Array.from({ length: partitions }, () => 0)
  const from = performance.now()
  for (let i = 0; i < rate * seconds; i++) {
    const due = from + (i * 1000) / rate
    if (due > performance.now()) yield* Effect.sleep(due - performance.now())
    const partition = i % partitions
    const seq = ++seqs[partition]!
    const { meta, vals } = pack([recordOf(i)])
    yield* Effect.forkChild(
      Effect.gen(function* () {
        yield* query(
          "publish",
          () => sql`
          insert into millrace.outbox (projection, source, partition, first_seq, messages, incarnation, target, target_partition, meta, vals)
          values (${type}, 'events', ${partition}, ${seq}, 1, ${incarnation}, ${topic}, ${partition}, ${meta}, ${vals})`
        )
        sent.set(`${type}/events/${partition}:${seq}`, performance.now())
        target.signal()
      })
    )
  }
  yield* Effect.sleep(1_000)
  const sorted = latencies.toSorted((a, b) => a - b)
  return {
    type,
    messages: sorted.length,
    p50Ms: percentile(sorted, 0.5),
    p99Ms: percentile(sorted, 0.99),
    maxMs: sorted.at(-1)
  }
}, Effect.scoped)

const main = Effect.gen(function* () {
  const { sql } = yield* database
  const layer = PostgresFanOut.layer(sql).pipe(Layer.provideMerge(PostgresLog.layer(sql)))
  yield* Effect.gen(function* () {
    const log = yield* Log
    const total = Number(values.messages)
    yield* log.declare([{ name: "bulk", partitions, compacted: false, retentionMs: undefined }])
    for (let at = 0; at < total; at += 5_000) {
      yield* log.append(
        "bulk",
        Array.from({ length: Math.min(5_000, total - at) }, (_, i) => recordOf(at + i))
      )
    }
    const throughputs: Array<object> = []
    const latencies: Array<object> = []
    for (const [type, consumers] of [
      ["exclusive", 1],
      ["shared", 1],
      ["shared", 3],
      ["keyShared", 1],
      ["keyShared", 3]
    ] as const) {
      throughputs.push({ of: `${type}, ${consumers}`, ...(yield* throughput(type, consumers, total)) })
    }
    for (const type of ["exclusive", "shared", "keyShared"] as const) {
      latencies.push(yield* latency(sql, type, Number(values.rate), Number(values.seconds)))
    }
    process.stdout.write(`${JSON.stringify({ throughput: throughputs, latency: latencies })}\n`)
  }).pipe(Effect.provide(layer))
})
await Effect.runPromise(Effect.scoped(main))
