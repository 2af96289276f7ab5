// How fast the bridge mirrors what is there, each way, on both transports. One process, one broker each beside it.
//
// node bench/bridge.ts [--records N] [--partitions N] [--json]
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import { once } from "../src/bridge-run.ts"
import { shared } from "../stack/testing.ts"
import { both, declare, full, partitioned, placesOf, publish, recordOf, unique } from "../test/support/bridge.ts"
import { transports } from "../test/support/pulsar.ts"

const { values } = parseArgs({
  options: {
    records: { type: "string", default: "100000" },
    partitions: { type: "string", default: "4" },
    json: { type: "boolean", default: false }
  }
})
const records = Number(values.records)
const partitions = Number(values.partitions)
const value = (i: number) => JSON.stringify({ event_id: `e${i}`, score: (i * 31) % 1_000, text: "x".repeat(60) })

const timed = Effect.fnUntraced(function* <A, E, R>(effect: Effect.Effect<A, E, R>) {
  const from = performance.now()
  yield* effect
  return Math.round((records / (performance.now() - from)) * 1_000)
})

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
    to_pulsar_per_second: yield* timed(once(yield* ends.bridge(out))),
    to_kafka_per_second: yield* timed(once(yield* ends.bridge(back)))
  }
})

const results = await Effect.runPromise(
  Effect.forEach(transports, measure).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "Error"))
)
if (values.json) process.stdout.write(`${JSON.stringify({ records, partitions, results })}\n`)
else
  for (const { to_kafka_per_second, to_pulsar_per_second, transport } of results)
    process.stdout.write(
      `${transport}: ${to_pulsar_per_second} records/s Kafka → Pulsar, ${to_kafka_per_second} records/s Pulsar → Kafka\n`
    )
process.exit(0)
