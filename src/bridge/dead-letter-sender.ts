// Sends dead letters of a bridge again, through their rules to the other side, each once. The steps of a resend are those of `dead-letter/resend.ts`.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { BridgeContext } from "./context.ts"
import type { BridgeDeadLetter } from "./dead-letter.ts"
import { BridgeError, readFailure } from "./errors.ts"
import { offsetHeader, originHeader, streamHeader } from "./headers.ts"
import type { KafkaWriter } from "./kafka-side.ts"
import { orRejected, PulsarResender } from "./pulsar-resender.ts"
import type { BridgeRecord } from "./record.ts"
import { route, type RouteContext, targetPartition } from "./route.ts"
import { matchTopic, sideNames } from "./topic-pattern.ts"
import {
  DeadLetterRejected,
  type DeadLetterSender,
  type ResendAttempt,
  type ResendTarget
} from "../dead-letter/resend.ts"

/** What a dead letter's record becomes, and the topic that it goes to. */
interface Routed {
  readonly topic: string
  readonly record: BridgeRecord
}
const routed = (context: BridgeContext, deadLetter: BridgeDeadLetter): Routed | DeadLetterRejected => {
  const { bridge, clusters } = context
  const { offset, record, side, stream, topic } = deadLetter
  const rejected = (reason: string) => new DeadLetterRejected({ reason })
  const rule = bridge.rules.find(({ name }) => bridge.name === deadLetter.bridge && name === deadLetter.rule)
  if (rule === undefined)
    return rejected(
      `the rules have no rule ${deadLetter.rule} of a bridge ${deadLetter.bridge}; name the file that has it with --rules`
    )
  const words = rule.source.side === side ? matchTopic(rule.source, topic) : undefined
  if (words === undefined)
    return rejected(`rule ${rule.name} no longer mirrors ${topic} on ${sideNames[side]}; discard the dead letter`)
  const routeContext: RouteContext = {
    rule,
    words,
    bridge: bridge.name,
    sourceCluster: clusters[side],
    targetCluster: clusters[side === "kafka" ? "pulsar" : "kafka"],
    stream
  }
  const found = route(routeContext, record, offset)
  if (found.kind === "send") return found
  if (found.kind === "dead") return rejected(found.reason)
  return rejected(
    found.kind === "filtered"
      ? `rule ${rule.name} now leaves the record out; discard the dead letter`
      : "the record came from the cluster that it would go to; discard the dead letter"
  )
}

/** Sends dead letters as the bridge would have sent their records: with the same key, headers, tenant and partition. */
export class BridgeDeadLetterSender implements DeadLetterSender<BridgeDeadLetter, BridgeError> {
  private readonly context: BridgeContext
  private readonly routes = new Map<BridgeDeadLetter, Routed>()
  private readonly resenders = new Map<string, PulsarResender>()
  private readonly writers = new Map<string, KafkaWriter>()

  constructor(context: BridgeContext) {
    this.context = context
  }
  /** The producer's name, or the transactional id, of all senders of a rule: each sender that opens it fences the one before. */
  private nameOf({ rule }: BridgeDeadLetter): string {
    return `${this.context.bridge.name}/${rule}/letters`
  }
  private resenderOf(deadLetter: BridgeDeadLetter): PulsarResender {
    const name = this.nameOf(deadLetter)
    const known = this.resenders.get(name)
    if (known !== undefined) return known
    const created = new PulsarResender(this.context.pulsar, name)
    this.resenders.set(name, created)
    return created
  }
  private readonly writerOf = Effect.fnUntraced(function* (
    this: BridgeDeadLetterSender,
    deadLetter: BridgeDeadLetter
  ): Effect.fn.Return<KafkaWriter, BridgeError, Scope.Scope> {
    const name = this.nameOf(deadLetter)
    const known = this.writers.get(name)
    if (known !== undefined) return known
    const opened = yield* this.context.kafka.openWriter(name)
    this.writers.set(name, opened)
    return opened
  })

  readonly aim = (
    deadLetter: BridgeDeadLetter
  ): Effect.Effect<ResendTarget, BridgeError | DeadLetterRejected, Scope.Scope> => {
    const found = routed(this.context, deadLetter)
    if (found instanceof DeadLetterRejected) return Effect.fail(found)
    this.routes.set(deadLetter, found)
    return deadLetter.side === "kafka" ? this.aimAtPulsar(deadLetter, found) : this.aimAtKafka(deadLetter, found)
  }
  private readonly aimAtPulsar = Effect.fnUntraced(function* (
    this: BridgeDeadLetterSender,
    deadLetter: BridgeDeadLetter,
    { record, topic }: Routed
  ) {
    const partitions = yield* orRejected(this.context.pulsar.partitionsOf(topic))
    const partition = targetPartition(deadLetter.partition, record, partitions.length)
    return yield* this.resenderOf(deadLetter).aim(partitions[partition]!)
  })
  private readonly aimAtKafka = Effect.fnUntraced(function* (
    this: BridgeDeadLetterSender,
    deadLetter: BridgeDeadLetter,
    { record, topic }: Routed
  ) {
    const writer = yield* this.writerOf(deadLetter)
    const count = yield* orRejected(writer.partitionCount(topic))
    const partition = targetPartition(deadLetter.partition, record, count)
    const bounds = yield* orRejected(Effect.mapError(this.context.log.bounds(topic), readFailure))
    return { part: `${topic}/${partition}`, after: String(bounds[partition]?.end ?? 0) }
  })

  readonly isThere = (deadLetter: BridgeDeadLetter, target: ResendTarget): Effect.Effect<boolean, BridgeError> => {
    const { headers: wanted } = this.routes.get(deadLetter)!.record
    const is = (headers: BridgeRecord["headers"]) =>
      [streamHeader, offsetHeader, originHeader].every((name) => headers[name] === wanted[name])
    return deadLetter.side === "kafka"
      ? this.resenderOf(deadLetter).find(target, is)
      : this.findOnKafka(deadLetter, target, is)
  }
  private readonly findOnKafka = Effect.fnUntraced(function* (
    this: BridgeDeadLetterSender,
    deadLetter: BridgeDeadLetter,
    { after, part }: ResendTarget,
    is: (headers: BridgeRecord["headers"]) => boolean
  ): Effect.fn.Return<boolean, BridgeError> {
    const { partition, topic } = kafkaPartition(part)
    const { log } = this.context
    const none = () => Effect.succeed([])
    const bounds = yield* log.bounds(topic).pipe(Effect.catchTag("UnknownTopic", none), Effect.mapError(readFailure))
    const found = bounds[partition]
    // the topic was deleted since
    if (found === undefined) return false
    // a committed record can be hidden behind an open transaction of another process, so the end counts open transactions
    const end = yield* this.writers.get(this.nameOf(deadLetter))!.endOffset(topic, partition)
    const until = performance.now() + hiddenMs
    for (let position = Math.max(found.start, Number(after)); position < end;) {
      const { next, records } = yield* Effect.mapError(log.read(topic, partition, position), readFailure)
      if (records.some(({ headers }) => is(headers))) return true
      if (next === position && performance.now() >= until) return yield* hiddenByTransaction(topic, partition)
      if (next === position) yield* Effect.sleep(lookAgainMs)
      position = next
    }
    return false
  })

  readonly send = (
    deadLetter: BridgeDeadLetter,
    to: ResendAttempt
  ): Effect.Effect<boolean, BridgeError | DeadLetterRejected, Scope.Scope> => {
    const { record } = this.routes.get(deadLetter)!
    return deadLetter.side === "kafka"
      ? this.resenderOf(deadLetter).send(to, record)
      : this.sendToKafka(deadLetter, to, record)
  }
  private readonly sendToKafka = Effect.fnUntraced(function* (
    this: BridgeDeadLetterSender,
    deadLetter: BridgeDeadLetter,
    { part }: ResendAttempt,
    record: BridgeRecord
  ): Effect.fn.Return<boolean, BridgeError | DeadLetterRejected, Scope.Scope> {
    const writer = yield* this.writerOf(deadLetter)
    // a writer that failed cannot be used again
    const forget = () => Effect.sync(() => void this.writers.delete(this.nameOf(deadLetter)))
    yield* Effect.onError(orRejected(writer.commit([{ ...kafkaPartition(part), record }], [])), forget)
    return true
  })
}

/** How long an open transaction may hide the record that is looked for, and how often that is checked. */
const hiddenMs = 10_000
const lookAgainMs = 100
const hiddenByTransaction = (topic: string, partition: number) =>
  new BridgeError({
    side: "kafka",
    operation: "look for the record of a dead letter",
    kind: "other",
    topic,
    retryable: true,
    reason:
      `a transaction of another process hides what was written to partition ${partition} of ${topic}. ` +
      "try: the same command again once it has ended"
  })

/** Topic and partition of a resend target on Kafka, `TOPIC/PARTITION`. */
const kafkaPartition = (text: string) => {
  const at = text.lastIndexOf("/")
  return { topic: text.slice(0, at), partition: Number(text.slice(at + 1)) }
}
