// How fast the bridge mirrors what is there, each way, on both transports, and how soon a record is on the other side at a steady rate.
// One process of the bridge, one broker each beside it, and this process, which writes and reads.
//
// node bench/bridge.ts [--records N] [--partitions N] [--rate N] [--seconds N] [--json]
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as References from "effect/References"
import { mirrorOnce } from "../src/bridge/bridge.ts"
import { shared } from "../stack/testing.ts"
import {
  type Both,
  both,
  declare,
  eventually,
  full,
  partitioned,
  placesOf,
  publish,
  recordOf,
  unique
} from "../test/support/bridge.ts"
import { bridgeProcess, rulesFile } from "../test/support/bridge-process.ts"
import { transports } from "../test/support/pulsar.ts"

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

/** Records a second, and what one of them costs this process, in which the bridge runs. */
const timed = Effect.fnUntraced(function* <A, E, R>(effect: Effect.Effect<A, E, R>) {
  const [from, before] = [performance.now(), process.cpuUsage()]
  yield* effect
  const { system, user } = process.cpuUsage(before)
  const per_second = Math.round((records / (performance.now() - from)) * 1_000)
  return { per_second, cpu_us: Math.round(((system + user) / records) * 10) / 10 }
})

const tickMs = 20
/** The first records meet connections that are being made. */
const warmMs = 2_000
const now = () => performance.timeOrigin + performance.now()

/** Writes at the rate for the time; a write has some records, each with when it was made. */
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
/** Latencies of what arrived, in milliseconds, without those of the beginning. */
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

/** From the append on Kafka until a reader on Pulsar has it. */
const latencyOut = Effect.fnUntraced(function* (ends: Both, topic: string) {
  const parts = yield* ends.pulsar.partitionsOf(full(topic))
  const readers = yield* Effect.promise(() =>
    Promise.all(parts.map((part) => ends.cluster.transport.read({ topic: part, from: "latest" })))
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
    ends.log.append(
      topic,
      texts.map((text) => recordOf(`k${next}`, text, { partition: next++ % partitions }))
    )
  const made = yield* steadily(write)
  yield* eventually(Effect.sync(() => seen.count >= made))
  state.over = true
  yield* Effect.promise(() => reading)
  return seen.figures
})
/** From the send to Pulsar until a reader of committed records on Kafka has it. */
const latencyBack = Effect.fnUntraced(function* (ends: Both, topic: string) {
  const seen = new Latencies()
  const reading = yield* Effect.forkChild(
    Effect.forEach(
      yield* ends.log.bounds(topic),
      ({ end, partition }) =>
        Effect.scoped(
          Effect.gen(function* () {
            const reader = yield* ends.log.open(topic, partition, end)
            while (true) for (const { value } of (yield* reader.take).records) seen.add(value!)
          })
        ),
      { concurrency: "unbounded" }
    )
  )
  const producers = yield* Effect.promise(() =>
    Promise.all(
      Array.from({ length: partitions }, (_, i) =>
        ends.cluster.transport.produce({ topic: `${full(topic)}-partition-${i}`, batching: true, maxPending: 10_000 })
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
/** Latencies both ways, one way after the other, through a process of its own. */
const latencies = Effect.fnUntraced(function* (ends: Both) {
  const [name, topic] = [unique("bench"), unique("latency")]
  for (const one of [topic, `${topic}-back`]) {
    yield* declare(ends.log, one, partitions)
    yield* partitioned(ends, full(one), partitions)
  }
  const file = yield* rulesFile({
    name,
    rules: [
      { name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` },
      { name: "in", from: `pulsar:${full(`${topic}-back`)}`, to: `kafka:${topic}-back` }
    ]
  })
  const process = yield* bridgeProcess(ends.places, file)
  yield* eventually(Effect.sync(() => process.url() !== undefined))
  // its groups have come together
  yield* Effect.sleep(5_000)
  return { to_pulsar: yield* latencyOut(ends, topic), to_kafka: yield* latencyBack(ends, `${topic}-back`) }
}, Effect.scoped)

const measure = Effect.fnUntraced(function* (transport: (typeof transports)[number]) {
  const ends = yield* both(placesOf(yield* shared("kafka", "pulsar"), transport))
  const [name, topic] = [unique("bench"), unique("bench")]
  yield* declare(ends.log, topic, partitions)
  yield* declare(ends.log, `${topic}-back`, partitions)
  yield* partitioned(ends, full(topic), partitions)
  yield* partitioned(ends, full(`${topic}-back`), partitions)
  for (let i = 0; i < records; i += 5_000) {
    const some = Array.from({ length: Math.min(5_000, records - i) }, (_, n) =>
      recordOf(`k${(i + n) % 1_000}`, value(i + n), { partition: n % partitions, eventId: `e${i + n}`, tenant: "acme" })
    )
    yield* ends.log.append(topic, some)
  }
  for (let partition = 0; partition < partitions; partition++) {
    for (let i = 0; i < records / partitions; i += 5_000) {
      const count = Math.min(5_000, records / partitions - i)
      const some = Array.from({ length: count }, (_, n) => ({
        key: `k${(i + n) % 1_000}`,
        value: value(i + n),
        properties: { event_id: `e${i + n}`, tenant: "acme" }
      }))
      yield* publish(ends, `${full(`${topic}-back`)}-partition-${partition}`, some, true)
    }
  }
  const out = { name, rules: [{ name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` }] }
  const back = { name, rules: [{ name: "in", from: `pulsar:${full(`${topic}-back`)}`, to: `kafka:${topic}-back` }] }
  return {
    transport,
    to_pulsar: yield* timed(mirrorOnce(yield* ends.bridge(out))),
    to_kafka: yield* timed(mirrorOnce(yield* ends.bridge(back))),
    latency: yield* latencies(ends)
  }
})

const results = await Effect.runPromise(
  Effect.forEach(transports, measure).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "Error"))
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
