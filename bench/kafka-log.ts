// Measures the log on Kafka: appending and reading records of some 200 bytes, by codec. Uses the
// broker of MILLRACE_KAFKA_BROKERS, or starts one. Prints JSON last.
import * as Effect from "effect/Effect"
import { parseArgs } from "node:util"
import * as KafkaLog from "../src/kafka/log/log.ts"
import type { Log, NewRecord } from "../src/log/log.ts"
import { services } from "./services.ts"

const { values } = parseArgs({
  options: { records: { type: "string", default: "400000" }, batch: { type: "string", default: "2000" } }
})
const total = Number(values.records)
const size = Number(values.batch)
const partitions = 8

const recordOf = (i: number): NewRecord => ({
  partition: i % partitions,
  key: `entity-${i % 5_000}`,
  value: `{"event_id":"0192f7a0-0000-7000-8000-${String(i).padStart(12, "0")}","entity_id":"entity-${i % 5_000}","amount":${i % 1_000}.25,"kind":"payment"}`,
  eventTime: 1_357_000_000_000 + i,
  eventId: `0192f7a0-0000-7000-8000-${String(i).padStart(12, "0")}`,
  tenant: "acme",
  traceparent: undefined,
  schemaVersion: 1,
  headers: {}
})
const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const cpu = process.cpuUsage()
    const began = performance.now()
    yield* effect
    const seconds = (performance.now() - began) / 1000
    const { system, user } = process.cpuUsage(cpu)
    return { perSecond: Math.round(total / seconds), cpuSeconds: (user + system) / 1e6 }
  })

const append = (log: Log["Service"], topic: string) =>
  Effect.forEach(
    Array.from({ length: Math.ceil(total / size) }, (_, i) => i * size),
    (from) =>
      log.append(
        topic,
        Array.from({ length: Math.min(size, total - from) }, (_, i) => recordOf(from + i))
      ),
    { concurrency: 8, discard: true }
  )
const follow = (log: Log["Service"], topic: string) =>
  Effect.forEach(
    Array.from({ length: partitions }, (_, partition) => partition),
    (partition) =>
      Effect.scoped(
        Effect.gen(function* () {
          const reader = yield* log.open(topic, partition, 0)
          let left = Math.ceil((total - partition) / partitions)
          while (left > 0) left -= (yield* reader.take).records.length
        })
      ),
    { concurrency: "unbounded", discard: true }
  )
/** The time from an append until a reader has the record, one record at a time. */
const latency = (log: Log["Service"], topic: string, from: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const reader = yield* log.open(topic, 0, from)
      const times: Array<number> = []
      for (let i = 0; i < 300; i++) {
        const began = performance.now()
        yield* log.append(topic, [recordOf(0)])
        yield* reader.take
        times.push(performance.now() - began)
      }
      const sorted = times.toSorted((a, b) => a - b)
      return { p50: sorted[150], p99: sorted[296] }
    })
  )

const main = Effect.gen(function* () {
  const brokers = (yield* services("kafka")).MILLRACE_KAFKA_BROKERS!.split(",")
  const results: Record<string, unknown> = {}
  for (const compression of ["none", "zstd", "lz4", "snappy", "gzip"] as const) {
    const log = yield* KafkaLog.make({ brokers, compression })
    const topic = `bench-${compression}-${process.pid}`
    yield* log.declare([{ name: topic, partitions, compacted: false, retentionMs: 3_600_000 }])
    const appended = yield* timed(append(log, topic))
    const read = yield* timed(follow(log, topic))
    const { end } = (yield* log.bounds(topic))[0]!
    results[compression] = { append: appended, read, roundTripMs: yield* latency(log, topic, end) }
    console.error(compression, JSON.stringify(results[compression]))
  }
  console.log(JSON.stringify(results))
})
await Effect.runPromise(Effect.scoped(main))
