// Compares both sides after a run: each record must be on the other side once, unchanged and in the order of its key, and each dead letter once.
import * as Effect from "effect/Effect"
import { errorTopicSuffix } from "../../../src/bridge/rule.ts"
import { formatPosition } from "../../../src/bridge/pulsar-position.ts"
import { type BothSides, full, messagesOf } from "../../support/bridge.ts"
import { recordsOf } from "../../support/relay-kafka.ts"
import { Differences } from "../harness/differences.ts"
import { kafkaBytes, skipped, throws } from "./load.ts"

/** A record as it is on either side. */
interface Seen {
  /** Its partition and position: what the bridge's headers of its copies name. */
  readonly id: string
  readonly partition: string
  readonly key: string | null
  readonly value: string
  readonly eventTime: number
  readonly headers: Readonly<Record<string, string>>
}
/** The result of a comparison. */
export interface Comparison {
  /** How many records had to be mirrored. */
  readonly mirrored: number
  /** How many records had to become dead letters. */
  readonly deadLetters: number
  readonly differences: Differences
}

// written here once more, so that a mistake in the source does not hide itself
const originHeader = "millrace-bridge-origin"
const streamHeader = "millrace-bridge-stream"
const offsetHeader = "millrace-bridge-offset"

const onKafka = Effect.fnUntraced(function* (sides: BothSides, topic: string) {
  const found = yield* recordsOf(sides.kafkaOptions, sides.log, topic)
  return found.map(({ eventId, eventTime, headers, key, partition, position, tenant, traceparent, value }): Seen => {
    const all: Record<string, string> = { ...headers }
    if (eventId !== undefined) all["event_id"] = eventId
    if (tenant !== undefined) all["tenant"] = tenant
    if (traceparent !== undefined) {
      all["traceparent"] = traceparent
      all["trace_id"] ??= traceparent.slice(3, 35)
    }
    return {
      id: `${partition} ${position}`,
      partition: String(partition),
      key,
      value: value ?? "",
      eventTime,
      headers: all
    }
  })
})
const onPulsar = Effect.fnUntraced(function* (sides: BothSides, topic: string) {
  const all: Array<Seen> = []
  for (const part of yield* sides.pulsar.partitionsOf(topic))
    for (const { eventTime, id, key, properties, value } of yield* messagesOf(sides, part))
      all.push({
        id: `${part} ${formatPosition(id)}`,
        partition: part,
        key: key === "" ? null : key,
        value,
        eventTime,
        headers: properties
      })
  return all
})
/** The id of the record that it is the copy of, from its headers. The name of a stream from Kafka also contains its rule and topic. */
const sourceOf = ({ headers }: Seen) => {
  const stream = headers[streamHeader] ?? ""
  const partition = stream.startsWith("persistent:") ? stream : (/\/(\d+)(#\w+)?$/.exec(stream)?.[1] ?? stream)
  return `${partition} ${headers[offsetHeader]}`
}
const isSame = (original: Seen, copy: Seen) =>
  original.key === copy.key &&
  original.value === copy.value &&
  original.eventTime === copy.eventTime &&
  Object.entries(original.headers).every(([name, text]) => copy.headers[name] === text)

const text = (seen: Seen) => JSON.stringify(seen).slice(0, 500)

/** Adds what is wrong with the copies of originals: each has one copy and no more, and each copy is of an original. */
const compareEach = (
  differences: Differences,
  what: string,
  originals: ReadonlyArray<Seen>,
  copies: ReadonlyArray<Seen>
): void => {
  const bySource = Map.groupBy(copies, sourceOf)
  for (const original of originals) {
    const [copy, ...more] = bySource.get(original.id) ?? []
    bySource.delete(original.id)
    if (copy === undefined) differences.add("lost", `${what}: ${text(original)}`)
    else if (!isSame(original, copy))
      differences.add("wrong", `${what}: ${text(copy)} is the copy of ${text(original)}`)
    for (const one of more) differences.add("doubled", `${what}: ${text(one)}`)
  }
  for (const [stray = copies[0]!] of bySource.values())
    differences.add("wrong", `${what}: ${text(stray)} is the copy of no record`)
}
/** Adds what is wrong with the order of copies: those of one key from one partition are in one partition, in the order of their originals. */
const compareOrder = (
  differences: Differences,
  what: string,
  originals: ReadonlyArray<Seen>,
  copies: ReadonlyArray<Seen>
): void => {
  const rank = new Map(originals.map(({ id }, i) => [id, i]))
  const last = new Map<string, { readonly rank: number; readonly partition: string }>()
  for (const copy of copies) {
    const source = sourceOf(copy)
    const from = `${copy.key} ${source.slice(0, source.lastIndexOf(" "))}`
    const now = { rank: rank.get(source) ?? -1, partition: copy.partition }
    const before = last.get(from)
    if (before !== undefined && (now.rank <= before.rank || now.partition !== before.partition))
      differences.add("order", `${what}: ${text(copy)}`)
    last.set(from, now)
  }
}

/** Compares both sides. The dead letters are those of the rules `out` and `back`, which mirror one topic. */
export const compare = Effect.fnUntraced(function* (
  sides: BothSides,
  topic: string
): Effect.fn.Return<Comparison, unknown> {
  const kafka = yield* onKafka(sides, topic)
  const pulsar = yield* onPulsar(sides, full(topic))
  const errorTopics = {
    // the topic does not exist before the first dead letter
    out: yield* onKafka(sides, `${topic}${errorTopicSuffix}`).pipe(Effect.catchCause(() => Effect.succeed([]))),
    back: yield* onPulsar(sides, `${full(topic)}${errorTopicSuffix}`)
  }
  const differences = new Differences()
  let [mirrored, deadLetters] = [0, 0]
  const isNative = (seen: Seen) => seen.headers[originHeader] === undefined
  const isMirrored = (seen: Seen) => isNative(seen) && seen.headers[skipped] === undefined
  const isText = (one: string) => one.isWellFormed() && !one.includes("\ufffd")
  const texts = ({ headers, key, value }: Seen) => [key ?? "", value, ...Object.entries(headers).flat()]
  const isOdd = (seen: Seen) => !texts(seen).every(isText) || seen.headers[throws] !== undefined
  const hasNul = ({ headers, key }: Seen) => [key ?? "", ...Object.entries(headers).flat()].join().includes("\0")
  const directions = [
    ["Kafka → Pulsar", kafka, pulsar, errorTopics.out, (seen: Seen) => isOdd(seen) || hasNul(seen)],
    ["Pulsar → Kafka", pulsar, kafka, errorTopics.back, (seen: Seen) => isOdd(seen) || seen.value.length > kafkaBytes]
  ] as const
  for (const [what, source, target, dead, isRefused] of directions) {
    const originals = source.filter(isMirrored)
    const [refused, accepted] = [originals.filter(isRefused), originals.filter((seen) => !isRefused(seen))]
    const copies = target.filter((seen) => !isNative(seen))
    compareEach(differences, what, accepted, copies)
    compareOrder(differences, what, originals, copies)
    compareEach(differences, `dead letters of ${what}`, refused, dead)
    mirrored += accepted.length
    deadLetters += refused.length
  }
  return { mirrored, deadLetters, differences }
})
