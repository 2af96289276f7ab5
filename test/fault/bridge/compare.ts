// Whether the other side has every record once, as it was and in the order of its key; and every dead letter once. It knows no fault.
import * as Effect from "effect/Effect"
import { errorTopicSuffix } from "../../../src/bridge/rule.ts"
import { formatPosition } from "../../../src/bridge/pulsar-position.ts"
import { type Both, full, messagesOf } from "../../support/bridge.ts"
import { recordsOf } from "../../support/relay-kafka.ts"
import { kafkaBytes, skipped } from "./load.ts"

/** A record as both sides have it. */
interface Seen {
  /** Its partition and place there, which say where its copies came from. */
  readonly id: string
  readonly partition: string
  readonly key: string | null
  readonly value: string
  readonly eventTime: number
  readonly headers: Readonly<Record<string, string>>
}
/** What is not as it must be. */
export interface Differences {
  /** Records that were to be mirrored, and those that came. */
  readonly mirrored: number
  readonly letters: number
  readonly lost: number
  readonly doubled: number
  readonly disordered: number
  readonly wrong: number
  readonly examples: ReadonlyArray<string>
}

const origin = "millrace-bridge-origin"
const own = "millrace-bridge-"

const onKafka = Effect.fnUntraced(function* (ends: Both, topic: string) {
  const found = yield* recordsOf(ends.kafkaOptions, ends.log, topic)
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
const onPulsar = Effect.fnUntraced(function* (ends: Both, topic: string) {
  const all: Array<Seen> = []
  for (const part of yield* ends.pulsar.partitionsOf(topic))
    for (const { eventTime, id, key, properties, value } of yield* messagesOf(ends, part))
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
/** Of which record it is the copy. A stream from Kafka is named after its rule and its topic, too. */
const sourceOf = ({ headers }: Seen) => {
  const stream = headers[`${own}stream`] ?? ""
  const partition = stream.startsWith("persistent:") ? stream : (/\/(\d+)(#\w+)?$/.exec(stream)?.[1] ?? stream)
  return `${partition} ${headers[`${own}offset`]}`
}
const same = (original: Seen, copy: Seen) =>
  original.key === copy.key &&
  original.value === copy.value &&
  original.eventTime === copy.eventTime &&
  Object.entries(original.headers).every(([name, text]) => copy.headers[name] === text)

class Found {
  mirrored = 0
  letters = 0
  lost = 0
  doubled = 0
  disordered = 0
  wrong = 0
  readonly examples: Array<string> = []
  note(kind: "lost" | "doubled" | "disordered" | "wrong", what: string, seen: Seen) {
    if (this[kind]++ < 4) this.examples.push(`${kind}: ${what}: ${JSON.stringify(seen).slice(0, 600)}`)
  }
  /** Each original has one copy and no more, and no copy is another's. */
  each(what: string, originals: ReadonlyArray<Seen>, copies: ReadonlyArray<Seen>) {
    const bySource = Map.groupBy(copies, sourceOf)
    for (const original of originals) {
      const [copy, ...more] = bySource.get(original.id) ?? []
      bySource.delete(original.id)
      if (copy === undefined) this.note("lost", what, original)
      else if (!same(original, copy)) this.note("wrong", `${what}, of ${JSON.stringify(original).slice(0, 400)}`, copy)
      for (const one of more) this.note("doubled", what, one)
    }
    for (const [stray = copies[0]!] of bySource.values()) this.note("wrong", `${what}, of nothing`, stray)
    return originals.length
  }
  /** Copies of one key from one partition lie in one partition, in the order of their originals. */
  order(what: string, originals: ReadonlyArray<Seen>, copies: ReadonlyArray<Seen>) {
    const rank = new Map(originals.map(({ id }, i) => [id, i]))
    const last = new Map<string, { readonly rank: number; readonly partition: string }>()
    for (const copy of copies) {
      const source = sourceOf(copy)
      const from = `${copy.key} ${source.slice(0, source.lastIndexOf(" "))}`
      const now = { rank: rank.get(source) ?? -1, partition: copy.partition }
      const before = last.get(from)
      if (before !== undefined && (now.rank <= before.rank || now.partition !== before.partition))
        this.note("disordered", what, copy)
      last.set(from, now)
    }
  }
}

/** Compares both sides. Letters are those of the rules `out` and `back`, one topic's mirror. */
export const compare = Effect.fnUntraced(function* (ends: Both, topic: string): Effect.fn.Return<Differences, unknown> {
  const kafka = yield* onKafka(ends, topic)
  const pulsar = yield* onPulsar(ends, full(topic))
  const letters = {
    // there is no such topic before the first one
    out: yield* onKafka(ends, `${topic}${errorTopicSuffix}`).pipe(Effect.catchCause(() => Effect.succeed([]))),
    back: yield* onPulsar(ends, `${full(topic)}${errorTopicSuffix}`)
  }
  const found = new Found()
  const native = (seen: Seen) => seen.headers[origin] === undefined
  const goes = (seen: Seen) => native(seen) && seen.headers[skipped] === undefined
  const sides = [
    ["Kafka → Pulsar", kafka, pulsar, letters.out, ({ value }: Seen) => value.includes("\ufffd")],
    ["Pulsar → Kafka", pulsar, kafka, letters.back, ({ value }: Seen) => value.length > kafkaBytes]
  ] as const
  for (const [what, source, target, dead, refused] of sides) {
    const originals = source.filter(goes)
    const copies = target.filter((seen) => !native(seen))
    found.mirrored += found.each(
      what,
      originals.filter((seen) => !refused(seen)),
      copies
    )
    found.order(what, originals, copies)
    found.letters += found.each(`letters of ${what}`, originals.filter(refused), dead)
  }
  return found
})
