// The load of a run: writes records of all kinds on both sides, for a few keys, until it is told to end, whatever fails meanwhile.
import * as Effect from "effect/Effect"
import { partitionOf } from "../../../src/model/partitioner.ts"
import { type BothSides, full, publish, recordOf } from "../../support/bridge.ts"
import type { Random } from "../../support/random.ts"

/** Partitions of the topic, on Kafka and on Pulsar. */
export const partitions = { kafka: 4, pulsar: 3 } as const
/** The limit of Kafka's topic for a record, in bytes. Larger ones from Pulsar must become dead letters. */
export const kafkaBytes = 20_000
/** The rules leave records with this header out. */
export const skipped = "skip"
/** In a patched copy the rules' filter throws for records with this header. */
export const throws = "throws"

const keys = 12
const pauseMs = 100

interface Generated {
  readonly key: string | null
  readonly value: string
  readonly headers: Record<string, string>
  readonly traceparent: string
  readonly eventTime: number
}
const hex = (random: Random, digits: number) =>
  Array.from({ length: digits }, () => random.int(0, 15).toString(16)).join("")

/**
 * Ways to make a record odd. A lone U+DCXX stands for the byte XX, which is not UTF-8. Values of a version or with a name twice are mirrored as
 * they are; the others become dead letters. `throwing`: the rules' filter is patched.
 */
const odd = (
  side: "kafka" | "pulsar",
  throwing: boolean
): ReadonlyArray<Partial<Pick<Generated, "key" | "value" | "headers">>> => [
  { headers: { schema_version: "abc" } },
  { value: '{"a":1,"a":2}' },
  ...(throwing ? ["bare", "strange"].map((what) => ({ headers: { [throws]: what } })) : []),
  ...(side === "pulsar"
    ? [{ value: '{"a":"\udcff"}' }]
    : [
        { key: `kafka-\0` },
        { key: "kafka-\udcff" },
        { headers: { colour: "a\0b" } },
        { headers: { colour: "\udcff\udcfe" } },
        { headers: { "col\0our": "red" } }
      ])
]

/** Generates a record; sometimes one without a key, a deletion, an empty one, one that the rules leave out, or one that the other side refuses. */
const generate = (random: Random, side: "kafka" | "pulsar", i: number, throwing: boolean): Generated => {
  const kind = random.int(1, 150)
  const text = JSON.stringify({ side, i })
  // rare, because it takes the bridge several sessions to find one that is too large
  const refused = side === "kafka" ? JSON.stringify("\ufffd") : random.chance(0.1) ? "x".repeat(kafkaBytes * 2) : text
  const usual = {
    key: kind <= 5 ? null : `${side}-${random.int(0, keys - 1)}`,
    value: kind === 6 ? "" : kind === 7 ? refused : text,
    headers: { ...(kind <= 12 && kind >= 8 && { [skipped]: "yes" }), colour: `ü${i}` },
    traceparent: `00-${hex(random, 31)}1-${hex(random, 15)}1-01`,
    eventTime: 1_357_000_000_000 + i
  }
  const change = kind > 12 && kind <= 24 ? odd(side, throwing)[kind - 13] : undefined
  return change === undefined ? usual : { ...usual, ...change, headers: { ...usual.headers, ...change.headers } }
}
const partitionFor = (key: string | null, count: number, i: number) =>
  key === null ? i % count : partitionOf(key, count)

/** Writes on both sides at the same time until `isOver`, sometimes a burst, so that there are batches. Ignores writes that fail. */
export const writing = (
  sides: BothSides,
  topic: string,
  random: Random,
  isOver: () => boolean,
  isPaused: () => boolean,
  throwing: boolean
): Effect.Effect<void> => {
  let i = 0
  const few = () => (random.chance(0.04) ? random.int(100, 300) : random.int(1, 12))
  const toKafka = () => {
    const records = Array.from({ length: few() }, () => {
      const { value, ...one } = generate(random, "kafka", ++i, throwing)
      const partition = partitionFor(one.key, partitions.kafka, i)
      // a deletion needs a key
      return recordOf(one.key, value === "" && one.key !== null && i % 2 === 0 ? null : value, {
        ...one,
        partition,
        eventId: `e${i}`,
        tenant: "acme"
      })
    })
    return sides.log.append(topic, records)
  }
  const toPulsar = () => {
    const all = Array.from({ length: few() }, () => {
      const { eventTime, headers, key, traceparent, value } = generate(random, "pulsar", ++i, throwing)
      const properties = {
        ...headers,
        traceparent,
        trace_id: traceparent.slice(3, 35),
        event_id: `e${i}`,
        tenant: "acme"
      }
      return {
        part: partitionFor(key, partitions.pulsar, i),
        message: { key: key ?? "", value, eventTime, properties }
      }
    })
    const batching = random.chance(0.5)
    return Effect.forEach(
      Map.groupBy(all, ({ part }) => part),
      ([part, some]) =>
        publish(
          sides,
          `${full(topic)}-partition-${part}`,
          some.map(({ message }) => message),
          batching
        )
    )
  }
  const loop = (write: () => Effect.Effect<unknown, unknown>) =>
    Effect.gen(function* () {
      while (!isOver()) {
        if (!isPaused()) yield* Effect.exit(Effect.timeout(Effect.suspend(write), 5_000))
        yield* Effect.sleep(pauseMs)
      }
    })
  return Effect.all([loop(toKafka), loop(toPulsar)], { concurrency: 2, discard: true })
}
