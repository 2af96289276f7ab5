// Measures how many records per second the bridge mirrors in each direction and on each transport, and its latency at a steady rate. One process of the
// bridge, one Kafka and one Pulsar beside it, and this process, which writes and reads.
//
// node bench/bridge.ts [--records N] [--partitions N] [--rate N] [--seconds N] [--json]
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as References from "effect/References"
import { mirrorOnce } from "../src/bridge/bridge.ts"
import {
  type BothSides,
  openBothSides,
  declare,
  eventually,
  full,
  partitioned,
  sideOptionsOf,
  publish,
  recordOf,
  unique
} from "../test/support/bridge.ts"
import { bridgeProcess, rulesFile } from "../test/support/bridge-process.ts"
import { transports } from "../test/support/pulsar.ts"
import type { Endpoints } from "../stack/service.ts"
import { services } from "./services.ts"

const { values } = parseArgs({
  options: {
    records: { type: "string", default: "100000" },
    partitions: { type: "string", default: "4" },
    rate: { type: "string", default: "1000" },
    seconds: { type: "string", default: "10" },
    json: { type: "boolean", default: false }
  }
})
const records = Number(values.records)
const partitions = Number(values.partitions)
const rate = Number(values.rate)
const seconds = Number(values.seconds)
const value = (i: number) => JSON.stringify({ event_id: `e${i}`, score: (i * 31) % 1_000, text: "x".repeat(60) })

/** Measures records per second, and the CPU time per record of this process, in which the bridge runs. */
const timed = Effect.fnUntraced(function* <A, E, R>(effect: Effect.Effect<A, E, R>) {
  const [from, before] = [performance.now(), process.cpuUsage()]
  yield* effect
  const { system, user } = process.cpuUsage(before)
  const per_second = Math.round((records / (performance.now() - from)) * 1_000)
  return { per_second, cpu_us: Math.round(((system + user) / records) * 10) / 10 }
})

const tickMs = 20
/** Records of this first time do not count, because connections are still being opened. */
const warmMs = 2_000
const now = () => performance.timeOrigin + performance.now()

/** Writes at the given rate for the given time. Each record contains the time at which it was written. */
const steadily = Effect.fnUntraced(function* (
  write: (texts: ReadonlyArray<string>) => Effect.Effect<unknown, unknown>
) {
  const from = performance.now()
  let made = 0
  while (performance.now() - from < warmMs + seconds * 1_000) {
    const due = Math.floor(((performance.now() - from) * rate) / 1_000) - made
    made += due
    if (due > 0) yield* write(Array.from({ length: due }, () => JSON.stringify({ at: now(), text: "x".repeat(90) })))
    yield* Effect.sleep(tickMs)
  }
  return made
})
/** The latencies of records that arrived, in milliseconds, without those of the warm-up. */
class Latencies {
  count = 0
  private readonly first = now()
  private readonly all: Array<number> = []
  add(text: string) {
    this.count++
    const { at } = JSON.parse(text) as { readonly at: number }
    if (at > this.first + warmMs) this.all.push(now() - at)
  }
  get figures() {
    const sorted = this.all.toSorted((a, b) => a - b)
    const of = (part: number) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))]!)
    return { p50_ms: of(0.5), p99_ms: of(0.99), most_ms: of(1) }
  }
}

/** Measures from the append on Kafka until a reader on Pulsar has the record. */
const latencyOut = Effect.fnUntraced(function* (sides: BothSides, topic: string) {
  const parts = yield* sides.pulsar.partitionsOf(full(topic))
  const readers = yield* Effect.promise(() =>
    Promise.all(parts.map((part) => sides.cluster.transport.read({ topic: part, from: "latest" })))
  )
  const seen = new Latencies()
  const state = { over: false }
  const reading = Promise.all(
    readers.map(async (reader) => {
      while (!state.over) {
        const message = await reader.next(100)
        if (message !== undefined) seen.add(message.value)
      }
      await reader.close()
    })
  )
  let next = 0
  const write = (texts: ReadonlyArray<string>) =>
    sides.log.append(
      topic,
      texts.map((text) => recordOf(`k${next}`, text, { partition: next++ % partitions }))
    )
  const made = yield* steadily(write)
  yield* eventually(Effect.sync(() => seen.count >= made))
  state.over = true
  yield* Effect.promise(() => reading)
  return seen.figures
})
/** Measures from the send to Pulsar until a reader of committed records on Kafka has the record. */
const latencyBack = Effect.fnUntraced(function* (sides: BothSides, topic: string) {
  const seen = new Latencies()
  const reading = yield* Effect.forkChild(
    Effect.forEach(
      yield* sides.log.bounds(topic),
      ({ end, partition }) =>
        Effect.scoped(
          Effect.gen(function* () {
            const reader = yield* sides.log.open(topic, partition, end)
            while (true) for (const { value } of (yield* reader.take).records) seen.add(value!)
          })
        ),
      { concurrency: "unbounded" }
    )
  )
  const producers = yield* Effect.promise(() =>
    Promise.all(
      Array.from({ length: partitions }, (_, i) =>
        sides.cluster.transport.produce({ topic: `${full(topic)}-partition-${i}`, batching: true, maxPending: 10_000 })
      )
    )
  )
  let next = 0
  const write = (texts: ReadonlyArray<string>) =>
    Effect.promise(() =>
      Promise.all(
        texts.map((text) =>
          producers[next % partitions]!.send({ key: `k${next++}`, value: text, eventTime: 1, properties: {} })
        )
      )
    )
  const made = yield* steadily(write)
  yield* eventually(Effect.sync(() => seen.count >= made))
  yield* Fiber.interrupt(reading)
  yield* Effect.promise(() => Promise.all(producers.map((producer) => producer.close())))
  return seen.figures
})
/** Measures the latency in both directions, one after the other, through a bridge in a process of its own. */
const latencies = Effect.fnUntraced(function* (sides: BothSides) {
  const [name, topic] = [unique("bench"), unique("latency")]
  for (const one of [topic, `${topic}-back`]) {
    yield* declare(sides.log, one, partitions)
    yield* partitioned(sides, full(one), partitions)
  }
  const file = yield* rulesFile({
    name,
    rules: [
      { name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` },
      { name: "in", from: `pulsar:${full(`${topic}-back`)}`, to: `kafka:${topic}-back` }
    ]
  })
  const process = yield* bridgeProcess(sides.options, file)
  yield* eventually(Effect.sync(() => process.url() !== undefined))
  // until its groups are formed
  yield* Effect.sleep(5_000)
  return { to_pulsar: yield* latencyOut(sides, topic), to_kafka: yield* latencyBack(sides, `${topic}-back`) }
}, Effect.scoped)

const measure = Effect.fnUntraced(function* (transport: (typeof transports)[number], endpoints: Endpoints) {
  const sides = yield* openBothSides(sideOptionsOf(endpoints, transport))
  const [name, topic] = [unique("bench"), unique("bench")]
  yield* declare(sides.log, topic, partitions)
  yield* declare(sides.log, `${topic}-back`, partitions)
  yield* partitioned(sides, full(topic), partitions)
  yield* partitioned(sides, full(`${topic}-back`), partitions)
  for (let i = 0; i < records; i += 5_000) {
    const some = Array.from({ length: Math.min(5_000, records - i) }, (_, n) =>
      recordOf(`k${(i + n) % 1_000}`, value(i + n), { partition: n % partitions, eventId: `e${i + n}`, tenant: "acme" })
    )
    yield* sides.log.append(topic, some)
  }
  for (let partition = 0; partition < partitions; partition++) {
    for (let i = 0; i < records / partitions; i += 5_000) {
      const count = Math.min(5_000, records / partitions - i)
      const some = Array.from({ length: count }, (_, n) => ({
        key: `k${(i + n) % 1_000}`,
        value: value(i + n),
        properties: { event_id: `e${i + n}`, tenant: "acme" }
      }))
      yield* publish(sides, `${full(`${topic}-back`)}-partition-${partition}`, some, true)
    }
  }
  const out = { name, rules: [{ name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` }] }
  const back = { name, rules: [{ name: "in", from: `pulsar:${full(`${topic}-back`)}`, to: `kafka:${topic}-back` }] }
  return {
    transport,
    to_pulsar: yield* timed(mirrorOnce(yield* sides.bridge(out))),
    to_kafka: yield* timed(mirrorOnce(yield* sides.bridge(back))),
    latency: yield* latencies(sides)
  }
})

const results = await Effect.runPromise(
  services("kafka", "pulsar").pipe(
    Effect.flatMap((endpoints) => Effect.forEach(transports, (transport) => measure(transport, endpoints))),
    Effect.scoped,
    Effect.provideService(References.MinimumLogLevel, "Error")
  )
)
if (values.json) process.stdout.write(`${JSON.stringify({ records, partitions, rate, seconds, results })}\n`)
else
  for (const { latency, to_kafka, to_pulsar, transport } of results)
    process.stdout.write(
      `${transport}: ${to_pulsar.per_second} records/s Kafka → Pulsar (${to_pulsar.cpu_us} µs of CPU each), ` +
        `${to_kafka.per_second} records/s Pulsar → Kafka (${to_kafka.cpu_us} µs); ` +
        `at ${rate}/s p50 and p99 ${latency.to_pulsar.p50_ms} and ${latency.to_pulsar.p99_ms} ms, ` +
        `${latency.to_kafka.p50_ms} and ${latency.to_kafka.p99_ms} ms\n`
    )
process.exit(0)
