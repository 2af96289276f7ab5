// Dead letters of a bridge, read from its topics of errors, and sent through their rules to where they belong. It decides about none.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type Bridge, type BridgeRecord, errorsSuffix } from "./rules.ts"
import { BridgeError } from "./errors.ts"
import type { KafkaSide, KafkaWriter } from "./kafka-side.ts"
import type { PulsarSide } from "./pulsar-side.ts"
import { type BridgeDeadLetter, letterOf } from "./dead-letter.ts"
import { matchTopic, sideNames } from "./topic-pattern.ts"
import { offsetHeader, originHeader, route, streamHeader, type RouteContext } from "./route.ts"
import { topicsAround } from "./bridge.ts"
import { type BridgeContext, readFailure } from "./stream.ts"
import { recordOf } from "./to-pulsar.ts"
import type { Log } from "../log/log.ts"
import { partitionOf } from "../model/partitioner.ts"
import {
  DeadLetterRejected,
  type ResendAttempt,
  type DeadLetterSender,
  type ResendTarget
} from "../dead-letter/resend.ts"
import { orRefused, PulsarResender } from "./pulsar-resender.ts"

/** The systems whose topics of errors are read; one may be missing. */
export interface Sources {
  readonly kafka: { readonly log: Log["Service"]; readonly end: KafkaSide } | undefined
  readonly pulsar:
    | { readonly end: PulsarSide; readonly tenant: string | undefined; readonly namespace: string | undefined }
    | undefined
}

/** Topics of errors: those of the rules; without rules all that are named so, on Pulsar in one namespace. Those on a system that is missing are left out. */
export const errorTopics = Effect.fnUntraced(function* (
  { kafka, pulsar }: Sources,
  bridge: Bridge | undefined
): Effect.fn.Return<ReadonlyArray<string>, BridgeError> {
  const ends = { kafka: kafka?.end, pulsar: pulsar?.end }
  if (bridge === undefined) {
    const onKafka = ends.kafka === undefined ? [] : yield* ends.kafka.topics
    const onPulsar = pulsar === undefined ? [] : yield* pulsar.end.topics(pulsar.tenant, pulsar.namespace)
    return [...onKafka, ...onPulsar].filter((topic) => topic.endsWith(errorsSuffix)).toSorted()
  }
  const found = new Set<string>()
  for (const rule of bridge.rules) {
    const { errors, source } = rule
    if (ends[source.side] === undefined) continue
    if (errors !== undefined) found.add(errors)
    else if (source.words.length === 0) found.add(`${source.literals[0]}${errorsSuffix}`)
    else
      for (const topic of yield* topicsAround(ends, rule))
        if (topic.endsWith(errorsSuffix) && matchTopic(source, topic.slice(0, -errorsSuffix.length)) !== undefined)
          found.add(topic)
  }
  return [...found]
})

/** Hands over a topic's letters from the first to the last that is there now; nothing of a topic that is not there. */
export const readDeadLetters = Effect.fnUntraced(function* (
  { kafka, pulsar }: Sources,
  topic: string,
  take: (letter: BridgeDeadLetter) => void
): Effect.fn.Return<void, BridgeError> {
  const side = topic.includes("://") ? "pulsar" : "kafka"
  const show = (record: BridgeRecord, failedAt: number) => {
    const letter = letterOf(side, topic, record, failedAt)
    if (letter !== undefined) take(letter)
  }
  if (side === "kafka" && kafka !== undefined) yield* eachRecord(kafka.log, topic, show)
  if (side === "kafka" || pulsar === undefined) return
  for (const part of yield* pulsar.end.partitionsOf(topic))
    if ((yield* pulsar.end.lastPosition(part)) !== undefined)
      yield* pulsar.end.scan(part, undefined, ({ publishTime, record }) => show(record, publishTime))
})
const eachRecord = (log: Log["Service"], topic: string, show: (record: BridgeRecord, takenAt: number) => void) =>
  Effect.gen(function* () {
    for (const { end, partition, start } of yield* log.bounds(topic)) {
      for (let position = start; position < end;) {
        const { next, records } = yield* log.read(topic, partition, position)
        for (const record of records) show(recordOf(record), record.appendedAt)
        position = next
      }
    }
  }).pipe(
    Effect.catchTag("UnknownTopic", () => Effect.void),
    Effect.mapError(readFailure)
  )

/** What a letter's record becomes, and where it goes. */
interface RouteResult {
  readonly topic: string
  readonly record: BridgeRecord
}
const routed = (joined: BridgeContext, letter: BridgeDeadLetter): RouteResult | DeadLetterRejected => {
  const { bridge, clusters } = joined
  const { offset, partition: _, record, side, stream, topic } = letter
  const refused = (reason: string) => new DeadLetterRejected({ reason })
  const rule = bridge.rules.find(({ name }) => bridge.name === letter.bridge && name === letter.rule)
  if (rule === undefined)
    return refused(`the rules have no rule ${letter.rule} of a bridge ${letter.bridge}: name its file with --rules`)
  const words = rule.source.side === side ? matchTopic(rule.source, topic) : undefined
  if (words === undefined) return refused(`rule ${rule.name} does not mirror ${topic} on ${sideNames[side]} any more`)
  const other = side === "kafka" ? "pulsar" : "kafka"
  const way: RouteContext = {
    rule,
    words,
    bridge: bridge.name,
    source: clusters[side],
    target: clusters[other],
    stream
  }
  const found = route(way, record, offset)
  if (found.kind === "send") return found
  if (found.kind === "dead") return refused(found.reason)
  return refused(
    found.kind === "filtered"
      ? `rule ${rule.name} leaves it out by now: discard it`
      : "it came from where it would go: discard it"
  )
}

/** Sends letters of a bridge as the bridge would have sent them: the same key, headers, tenant and partition. */
export class BridgeDeadLetterSender implements DeadLetterSender<BridgeDeadLetter, BridgeError> {
  private readonly joined: BridgeContext
  private readonly routes = new Map<BridgeDeadLetter, RouteResult>()
  private readonly resenders = new Map<string, PulsarResender>()
  private readonly writers = new Map<string, KafkaWriter>()

  constructor(joined: BridgeContext) {
    this.joined = joined
  }
  /** By which whoever sent before is fenced: a producer's name, or a transactional id. */
  private nameOf({ rule }: BridgeDeadLetter): string {
    return `${this.joined.bridge.name}/${rule}/letters`
  }
  private resenderOf(letter: BridgeDeadLetter): PulsarResender {
    const name = this.nameOf(letter)
    const there = this.resenders.get(name)
    if (there !== undefined) return there
    const made = new PulsarResender(this.joined.pulsar, name)
    this.resenders.set(name, made)
    return made
  }
  private readonly writerOf = Effect.fnUntraced(function* (
    this: BridgeDeadLetterSender,
    letter: BridgeDeadLetter
  ): Effect.fn.Return<KafkaWriter, BridgeError, Scope.Scope> {
    const name = this.nameOf(letter)
    const there = this.writers.get(name)
    if (there !== undefined) return there
    const made = yield* this.joined.kafka.openWriter(name)
    this.writers.set(name, made)
    return made
  })

  readonly aim = (
    letter: BridgeDeadLetter
  ): Effect.Effect<ResendTarget, BridgeError | DeadLetterRejected, Scope.Scope> => {
    const found = routed(this.joined, letter)
    if (found instanceof DeadLetterRejected) return Effect.fail(found)
    this.routes.set(letter, found)
    return letter.side === "kafka" ? this.aimAtPulsar(letter, found) : this.aimAtKafka(letter, found)
  }
  private readonly aimAtPulsar = Effect.fnUntraced(function* (
    this: BridgeDeadLetterSender,
    letter: BridgeDeadLetter,
    { record, topic }: RouteResult
  ) {
    const parts = yield* orRefused(this.joined.pulsar.partitionsOf(topic))
    return yield* this.resenderOf(letter).aim(parts[partOf(letter, record, parts.length)]!)
  })
  private readonly aimAtKafka = Effect.fnUntraced(function* (
    this: BridgeDeadLetterSender,
    letter: BridgeDeadLetter,
    { record, topic }: RouteResult
  ) {
    const writer = yield* this.writerOf(letter)
    const partition = partOf(letter, record, yield* orRefused(writer.partitionCount(topic)))
    const bounds = yield* orRefused(Effect.mapError(this.joined.log.bounds(topic), readFailure))
    return { part: `${topic}/${partition}`, after: String(bounds[partition]?.end ?? 0) }
  })

  readonly isThere = (letter: BridgeDeadLetter, target: ResendTarget): Effect.Effect<boolean, BridgeError> => {
    const { headers: wanted } = this.routes.get(letter)!.record
    const is = (headers: BridgeRecord["headers"]) =>
      [streamHeader, offsetHeader, originHeader].every((name) => headers[name] === wanted[name])
    return letter.side === "kafka" ? this.resenderOf(letter).find(target, is) : this.findOnKafka(letter, target, is)
  }
  private readonly findOnKafka = Effect.fnUntraced(function* (
    this: BridgeDeadLetterSender,
    letter: BridgeDeadLetter,
    { after, part }: ResendTarget,
    is: (headers: BridgeRecord["headers"]) => boolean
  ): Effect.fn.Return<boolean, BridgeError> {
    const { partition, topic } = placed(part)
    const { log } = this.joined
    const none = () => Effect.succeed([])
    const bounds = yield* log.bounds(topic).pipe(Effect.catchTag("UnknownTopic", none), Effect.mapError(readFailure))
    const there = bounds[partition]
    // nothing is in a topic that was deleted since
    if (there === undefined) return false
    // a message that is committed is held back with what a transaction of others wrote before it
    const end = yield* this.writers.get(this.nameOf(letter))!.endOffset(topic, partition)
    const until = performance.now() + patienceMs
    for (let position = Math.max(there.start, Number(after)); position < end;) {
      const { next, records } = yield* Effect.mapError(log.read(topic, partition, position), readFailure)
      if (records.some(({ headers }) => is(headers))) return true
      if (next === position && performance.now() >= until) return yield* heldBack(topic, partition)
      if (next === position) yield* Effect.sleep(lookAgainMs)
      position = next
    }
    return false
  })

  readonly send = (
    letter: BridgeDeadLetter,
    to: ResendAttempt
  ): Effect.Effect<boolean, BridgeError | DeadLetterRejected, Scope.Scope> => {
    const { record } = this.routes.get(letter)!
    return letter.side === "kafka" ? this.resenderOf(letter).send(to, record) : this.write(letter, to, record)
  }
  private readonly write = Effect.fnUntraced(function* (
    this: BridgeDeadLetterSender,
    letter: BridgeDeadLetter,
    { part }: ResendAttempt,
    record: BridgeRecord
  ): Effect.fn.Return<boolean, BridgeError | DeadLetterRejected, Scope.Scope> {
    const writer = yield* this.writerOf(letter)
    // after a failure a writer is of no more use
    const forget = () => Effect.sync(() => void this.writers.delete(this.nameOf(letter)))
    yield* Effect.onError(orRefused(writer.commit([{ ...placed(part), record }], [])), forget)
    return true
  })
}

/** How long a transaction of others may hold back what is looked for, and how often that is looked at, in milliseconds. */
const patienceMs = 10_000
const lookAgainMs = 100
const heldBack = (topic: string, partition: number) =>
  new BridgeError({
    side: "kafka",
    operation: "look for a letter's record",
    kind: "other",
    topic,
    retryable: true,
    reason: `a transaction of others holds back what was written to partition ${partition} of ${topic}. try: the same command again when it has ended`
  })

/** As the bridge chooses it. */
const partOf = ({ partition }: BridgeDeadLetter, { key }: BridgeRecord, count: number) =>
  key === null ? partition % count : partitionOf(key, count)
/** A part of Kafka. */
const placed = (part: string) => {
  const at = part.lastIndexOf("/")
  return { topic: part.slice(0, at), partition: Number(part.slice(at + 1)) }
}
