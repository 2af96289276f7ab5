// The bridge under faults, as processes of its own: killed at random, several at once, brokers killed. Every record is on the other side once.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as References from "effect/References"
import * as Stack from "../../stack/testing.ts"
import type { BridgeOptions } from "../../src/bridge.ts"
import {
  both,
  type Both,
  bridgeProcess,
  declare,
  eventually,
  full,
  messagesOf,
  type Places,
  placesOf,
  progressOf,
  publish,
  recordOf,
  rulesFile,
  unique
} from "../support/bridge.ts"
import type { TransportName } from "../support/pulsar.ts"
import { recordsOf } from "../support/relay-kafka.ts"
import { needing, owning } from "../support/stack.ts"

const suite = await needing("kafka", "pulsar")
const own = await owning("kafka", "pulsar")
const quietly = Effect.provideService(References.MinimumLogLevel, "Fatal")
/** How many processes are killed in a test. */
const kills = Number(process.env["MILLRACE_FAULT_CYCLES"] ?? 4)

interface Mirror {
  readonly name: string
  readonly topic: string
  readonly options: BridgeOptions
}
const mirrorOf = (text: string): Mirror => {
  const [name, topic] = [unique("bridge"), unique(text)]
  const rules = [
    { name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` },
    { name: "back", from: `pulsar:${full(topic)}`, to: `kafka:${topic}` }
  ]
  return { name, topic, options: { name, rules } }
}

/** Writes on both sides until told to stop; how many there are by then. */
const writing = Effect.fnUntraced(function* (ends: Both, topic: string, isOver: () => boolean) {
  const counts = { kafka: 0, pulsar: 0 }
  const keys = 5
  const toKafka = Effect.gen(function* () {
    while (!isOver()) {
      const records = Array.from({ length: 40 }, () => {
        const i = counts.kafka++
        return recordOf(`k${i % keys}`, `{"side":"kafka","i":${i}}`, { partition: (i % keys) % 2 })
      })
      yield* Effect.retry(ends.log.append(topic, records), { while: () => false })
      yield* Effect.sleep(100)
    }
  })
  const toPulsar = Effect.gen(function* () {
    while (!isOver()) {
      const messages = Array.from({ length: 40 }, () => {
        const i = counts.pulsar++
        return { key: `p${i % keys}`, value: `{"side":"pulsar","i":${i}}` }
      })
      yield* publish(ends, full(topic), messages, Math.random() < 0.5)
      yield* Effect.sleep(100)
    }
  })
  yield* Effect.all([toKafka, toPulsar], { concurrency: 2 })
  return counts
})

/** What a side has, by key in order: exactly what was written, whether here or there. */
const check = (
  found: ReadonlyArray<{ readonly key: string | null; readonly value: string | null }>,
  counts: { readonly kafka: number; readonly pulsar: number },
  where: string
) => {
  for (const side of ["kafka", "pulsar"] as const) {
    const numbers = found.flatMap(({ value }) => {
      const one = JSON.parse(value!) as { readonly side: string; readonly i: number }
      return one.side === side ? [one.i] : []
    })
    const distinct = new Set(numbers)
    const missing = Array.from({ length: counts[side] }, (_, i) => i).filter((i) => !distinct.has(i))
    assert.deepStrictEqual(
      { missing: missing.slice(0, 10), twice: numbers.length - distinct.size },
      { missing: [], twice: 0 },
      `${where} of ${side}'s`
    )
  }
  for (const [key, some] of Map.groupBy(found, ({ key }) => key)) {
    const numbers = some.map(({ value }) => (JSON.parse(value!) as { readonly i: number }).i)
    assert.deepStrictEqual(
      numbers,
      numbers.toSorted((a, b) => a - b),
      `${where}: order of ${key}`
    )
  }
}
const settled = Effect.fnUntraced(function* (ends: Both, topic: string, total: number) {
  yield* eventually(
    Effect.gen(function* () {
      const onKafka = yield* recordsOf(ends.kafkaOptions, ends.log, topic)
      const onPulsar = yield* messagesOf(ends, full(topic))
      yield* Effect.sleep(500)
      return onKafka.length >= total && onPulsar.length >= total
    })
  )
  // what came twice would come by now: every stream is asked once more
  const onKafka = yield* recordsOf(ends.kafkaOptions, ends.log, topic)
  return { onKafka, onPulsar: yield* messagesOf(ends, full(topic)) }
})

const killing = Effect.fnUntraced(function* (places: Places, transport: TransportName) {
  const ends = yield* both(places)
  const { name, options, topic } = mirrorOf(`kill-${transport}`)
  yield* declare(ends.log, topic, 2)
  const file = yield* rulesFile(options)
  let over = false
  const writer = yield* Effect.forkChild(writing(ends, topic, () => over))
  let processes = [yield* bridgeProcess(places, file), yield* bridgeProcess(places, file)]
  let mirrored = 0
  for (let i = 0; i < kills; i++) {
    // it has done something since, so that there is something to break
    yield* eventually(
      Effect.map(
        Effect.promise(() => progressOf(places.kafka, `${name}/out`, topic)),
        (now) => {
          const moved = now > mirrored
          mirrored = Math.max(mirrored, now)
          return moved
        }
      )
    )
    yield* Effect.sleep(Math.random() * 400)
    const victim = i % 2
    processes[victim]!.kill()
    processes = processes.with(victim, yield* bridgeProcess(places, file))
  }
  over = true
  const counts = yield* Fiber.join(writer)
  const { onKafka, onPulsar } = yield* settled(ends, topic, counts.kafka + counts.pulsar)
  check(onKafka, counts, "on Kafka")
  check(onPulsar, counts, "on Pulsar")
  for (const one of processes) assert.isTrue(one.isAlive(), one.said())
})

suite("bridge, killed", () => {
  for (const transport of ["native", "websocket"] as const) {
    it.live(
      `kill -9 of two bridges in turn while both directions flow: everything once, in the order of keys (${transport})`,
      () =>
        Effect.gen(function* () {
          yield* killing(placesOf(yield* Stack.shared("kafka", "pulsar"), transport), transport)
        }).pipe(Effect.scoped, quietly) as Effect.Effect<void>,
      400_000
    )
  }
})

own("bridge, with brokers that die", () => {
  it.live(
    "brokers of both sides are killed and come back while both directions flow: everything once",
    () =>
      Effect.gen(function* () {
        const [kafka, pulsar] = yield* Effect.all([Stack.kafka(), Stack.pulsar()], { concurrency: 2 })
        const places = placesOf({ ...kafka.endpoints, ...pulsar.endpoints })
        const ends = yield* both(places)
        const { options, topic } = mirrorOf("brokers")
        yield* declare(ends.log, topic, 2)
        const file = yield* rulesFile(options)
        const one = yield* bridgeProcess(places, file)
        const counts = { kafka: 0, pulsar: 0 }
        for (const service of [kafka, pulsar, kafka, pulsar]) {
          let over = false
          const writer = yield* Effect.forkChild(writing(ends, topic, () => over))
          yield* Effect.sleep(1_500)
          over = true
          const some = yield* Fiber.join(writer)
          counts.kafka += some.kafka
          counts.pulsar += some.pulsar
          // it is in the middle of mirroring these
          yield* service.kill
          yield* service.start
        }
        const texts = (found: ReadonlyArray<{ readonly value: string | null }>) => found.length
        const { onKafka, onPulsar } = yield* settled(ends, topic, counts.kafka + counts.pulsar)
        assert.deepStrictEqual(
          [texts(onKafka), texts(onPulsar)],
          [counts.kafka + counts.pulsar, counts.kafka + counts.pulsar]
        )
        assert.isTrue(one.isAlive(), one.said())
      }).pipe(Effect.scoped, quietly) as Effect.Effect<void>,
    400_000
  )
})
