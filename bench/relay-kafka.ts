// Measures how fast the relay publishes the outbox to Kafka, and the time from a commit until a reader of committed records has the message. Starts
// a broker and a PostgreSQL of its own, or uses those of the environment, and prints one line of JSON last.
//
// node bench/relay-kafka.ts [--messages N] [--rate N] [--seconds N] [--lanes N] [--partitions N] [--split] [--compression zstd]
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as KafkaLog from "../src/kafka/log/log.ts"
import type { Compression } from "../src/kafka/protocol/options.ts"
import * as KafkaRelay from "../src/kafka/relay/relay.ts"
import { Log } from "../src/log/log.ts"
import { query, type Sql } from "../src/postgres/client/client.ts"
import { pack } from "../src/postgres/log/batch-codec.ts"
import * as PostgresOutbox from "../src/postgres/relay/outbox.ts"
import * as Relay from "../src/relay/relay.ts"
import type { RelayTarget } from "../src/relay/target.ts"
import { services } from "./services.ts"
import { incarnation } from "../test/support/outbox.ts"
import { database, databaseOn } from "../test/support/postgres.ts"
import { percentile } from "./percentile.ts"

const { values } = parseArgs({
  options: {
    messages: { type: "string", default: "600000" },
    rate: { type: "string", default: "500" },
    seconds: { type: "string", default: "10" },
    lanes: { type: "string", default: "1" },
    partitions: { type: "string", default: "12" },
    segment: { type: "string", default: "1000" },
    split: { type: "boolean", default: false },
    compression: { type: "string", default: "none" }
  }
})
const partitions = Number(values.partitions)
const perSegment = Number(values.segment)

const segmentOf = (firstSeq: number, messages: number) =>
  pack(
    Array.from({ length: messages }, (_, i) => ({
      partition: 0,
      key: `N${((firstSeq + i) * 7919) % 3322}`,
      value: JSON.stringify({
        event_id: `e${firstSeq + i}`,
        entity_id: `N${((firstSeq + i) * 7919) % 3322}`,
        score: ((firstSeq + i) * 31) % 1000,
        occurred_at: 1_357_000_000_000 + firstSeq + i
      }),
      eventTime: 1_357_000_000_000 + firstSeq + i,
      eventId: `e${firstSeq + i}`,
      tenant: "AA",
      traceparent: `00-${"0af7651916cd43dd8448eb211c80319c"}-${String(firstSeq + i).padStart(16, "0")}-01`,
      schemaVersion: 1,
      headers: {}
    }))
  )
const insert = (sql: Sql, partition: number, firstSeq: number, messages: number, topic: string) => {
  const { meta, vals } = segmentOf(firstSeq, messages)
  return query(
    "publish",
    () => sql`
    insert into millrace.outbox (projection, source, partition, first_seq, messages, incarnation, target, target_partition, meta, vals)
    values ('p', 'events', ${partition}, ${firstSeq}, ${messages}, ${incarnation}, ${topic}, ${values.split ? null : partition}, ${meta}, ${vals})`
  )
}

/** Publishes a filled outbox. */
const throughput = Effect.fnUntraced(function* (sql: Sql, target: RelayTarget, seqs: Array<number>) {
  for (let i = 0; i < Number(values.messages) / perSegment; i++) {
    const partition = i % partitions
    yield* insert(sql, partition, seqs[partition]! + 1, perSegment, "scores")
    seqs[partition]! += perSegment
  }
  const cpu = process.cpuUsage()
  const from = performance.now()
  let shipped = 0
  for (let more = true; more;) {
    const shipment = yield* target.publish
    if (shipment.halted.length > 0) throw new Error(shipment.halted[0]!.reason)
    shipped += shipment.messages
    more = shipment.more
  }
  const seconds = (performance.now() - from) / 1000
  const { system, user } = process.cpuUsage(cpu)
  const cpuSeconds = (user + system) / 1e6
  return {
    messages: shipped,
    seconds,
    messagesPerSecond: Math.round(shipped / seconds),
    cpuSecondsPerMillion: Math.round((cpuSeconds / shipped) * 1e8) / 100,
    rssMb: Math.round(process.memoryUsage().rss / 2 ** 20)
  }
})
/** Single messages at a steady rate, from their commit until a reader of the topic has them. */
const latency = Effect.fnUntraced(function* (sql: Sql, log: Log["Service"], target: RelayTarget, seqs: Array<number>) {
  const rate = Number(values.rate)
  yield* Effect.forkScoped(Relay.run(target))
  const sent = new Map<string, number>()
  const latencies: Array<number> = []
  for (let partition = 0; partition < partitions; partition++) {
    const reader = yield* log.open("alerts", partition, 0)
    yield* Effect.forkScoped(
      Effect.forever(
        Effect.map(reader.take, ({ records }) => {
          for (const { headers } of records)
            latencies.push(performance.now() - sent.get(`${headers["millrace-stream"]}:${headers["millrace-seq"]}`)!)
        })
      )
    )
  }
  const last: Array<Fiber.Fiber<void, unknown> | undefined> = []
  const from = performance.now()
  const count = rate * Number(values.seconds)
  for (let i = 0; i < count; i++) {
    const due = from + (i * 1000) / rate
    if (due > performance.now()) yield* Effect.sleep(due - performance.now())
    const partition = i % partitions
    const seq = ++seqs[partition]!
    // commits of one partition follow one another; those of different partitions overlap
    const before = last[partition]
    last[partition] = yield* Effect.forkChild(
      Effect.gen(function* () {
        if (before !== undefined) yield* Fiber.join(before)
        yield* insert(sql, partition, seq, 1, "alerts")
        sent.set(`p/events/${partition}:${seq}`, performance.now())
        target.signal()
      })
    )
  }
  while (latencies.length < count) yield* Effect.sleep(20)
  const sorted = latencies.toSorted((a, b) => a - b)
  return {
    messages: count,
    p50Ms: percentile(sorted, 0.5),
    p99Ms: percentile(sorted, 0.99),
    maxMs: percentile(sorted, 1)
  }
}, Effect.scoped)

const main = Effect.gen(function* () {
  const given = process.env["MILLRACE_DATABASE_URL"]
  const { sql } = yield* given === undefined ? database : databaseOn(given)
  const brokers = (yield* services("kafka")).MILLRACE_KAFKA_BROKERS!.split(",")
  const options = { brokers, compression: values.compression as Compression }
  const log = yield* KafkaLog.make(options)
  for (const name of ["events", "scores", "alerts"])
    yield* log.declare([{ name, partitions, compacted: false, retentionMs: undefined }])
  const target = yield* KafkaRelay.make(options, PostgresOutbox.make(sql), {
    lanes: Number(values.lanes),
    prefix: `bench-${process.pid}`
  })
  const seqs = Array.from({ length: partitions }, () => 0)
  const results = {
    throughput: yield* throughput(sql, target, seqs),
    latency: yield* latency(sql, log, target, seqs)
  }
  console.log(JSON.stringify({ lanes: Number(values.lanes), partitions, ...results }))
})
await Effect.runPromise(Effect.scoped(main))
