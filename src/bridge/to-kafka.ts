// A bridge stream from Pulsar to Kafka: mirrors the messages of one partition in order, each once. Each transaction on Kafka contains the records
// and the position on Pulsar up to which they reach.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { BridgeContext } from "./context.ts"
import { toDeadLetter } from "./dead-letter.ts"
import { DeadLetterWriter } from "./dead-letter-writer.ts"
import type { Bridge } from "./definition.ts"
import { type BridgeError, recordsLost } from "./errors.ts"
import type { AddressedRecord, GroupPartition, KafkaWriter } from "./kafka-side.ts"
import { parseMetadata } from "./position-metadata.ts"
import { comparePositions, formatPosition, parsePosition, type PulsarPosition } from "./pulsar-position.ts"
import type { PulsarConsumer, PulsarMessage } from "./pulsar-side.ts"
import { RejectionSearch } from "./rejection-search.ts"
import { route, type RouteContext, targetPartition } from "./route.ts"
import { type CheckedRule, errorTopicOf } from "./rule.ts"
import { runSessions, type StreamError } from "./sessions.ts"
import { type Counts, type StreamState, zeroCounts } from "./status.ts"
import { counted } from "../text/counted.ts"

/** How long the number of a topic's partitions is taken as known. */
const partitionCountMs = 5_000
/** Clocks of brokers and bridges differ by less than this. */
const clockSkewMs = 60_000

/** A partition on Pulsar to mirror. */
export interface PulsarSource {
  readonly rule: CheckedRule
  /** The topic's name without its partition. */
  readonly topic: string
  readonly words: Readonly<Record<string, string>>
  /** The partition's name in full, and its number. */
  readonly partitionName: string
  readonly partition: number
  /** Whose offset on Kafka stores the position. */
  readonly positionOf: GroupPartition
  /** Stop once everything is mirrored that was there at the start. */
  readonly once: boolean
}
/** What becomes of messages that were taken together. */
interface Prepared {
  readonly records: ReadonlyArray<AddressedRecord>
  /** The message of each record. */
  readonly messages: ReadonlyArray<PulsarMessage>
  readonly dead: ReadonlyMap<PulsarMessage, string>
  readonly counts: Counts
}
/** What all sessions of a stream share. */
interface StreamContext {
  readonly context: BridgeContext
  readonly source: PulsarSource
  readonly state: StreamState
  readonly search: RejectionSearch
}
/** What a session has opened, and where it starts. */
interface Opened {
  readonly writer: KafkaWriter
  readonly consumer: PulsarConsumer
  readonly routeContext: RouteContext
  readonly deadLetters: DeadLetterWriter
  readonly position: PulsarPosition | undefined
  /** How many messages were mirrored before: the offset that is stored. */
  readonly mirrored: number
  /** When the position was committed, in epoch milliseconds; infinite if unknown. */
  readonly committedAt: number
}

/** One session: from subscribing to the first failure. */
class Session {
  private readonly context: BridgeContext
  private readonly source: PulsarSource
  private readonly state: StreamState
  private readonly search: RejectionSearch
  private readonly writer: KafkaWriter
  private readonly consumer: PulsarConsumer
  private readonly routeContext: RouteContext
  private readonly deadLetters: DeadLetterWriter
  private readonly partitionCounts = new Map<string, { readonly count: number; readonly until: number }>()
  /** Kafka has everything up to here. */
  private position: PulsarPosition | undefined
  private mirrored: number
  private committedAt: number

  constructor({ context, search, source, state }: StreamContext, opened: Opened) {
    this.context = context
    this.source = source
    this.state = state
    this.search = search
    this.writer = opened.writer
    this.consumer = opened.consumer
    this.routeContext = opened.routeContext
    this.deadLetters = opened.deadLetters
    this.position = opened.position
    this.mirrored = opened.mirrored
    this.committedAt = opened.committedAt
  }

  /** Mirrors messages as they come; never succeeds. */
  readonly run = Effect.fnUntraced(function* (this: Session) {
    let seen = this.position
    while (true) {
      this.state.idleSince = performance.now()
      const taken = yield* this.consumer.take(this.search.maxMessages)
      this.state.idleSince = undefined
      const fresh = taken.filter(({ position }) => seen === undefined || comparePositions(position, seen) > 0)
      // messages that Kafka has: their acknowledgement got lost
      const known = taken.filter(
        ({ position }) => this.position !== undefined && comparePositions(position, this.position) <= 0
      )
      yield* this.checkSource(known)
      if (known.length > 0) yield* this.consumer.acknowledge(known)
      if (fresh.length === 0) continue
      seen = fresh.at(-1)!.position
      for (const some of this.search.split(fresh)) {
        yield* this.mirror(some)
        yield* this.consumer.acknowledge(some)
      }
      this.search.grow()
    }
  })
  /** A message published after the position was committed lies behind it. If it does not, the topic is not the one that was mirrored. */
  private checkSource(known: ReadonlyArray<PulsarMessage>): Effect.Effect<void, BridgeError> {
    const wrong = known.find(({ publishTime }) => publishTime > this.committedAt + clockSkewMs)
    if (wrong === undefined || this.source.rule.lost === "continue") return Effect.void
    const { partitionName } = this.source
    return Effect.fail(
      recordsLost(
        "pulsar",
        partitionName,
        `${partitionName} has a new message at ${formatPosition(wrong.position)}, before the position that was mirrored ` +
          "last, so this is another cluster, or one that was restored to an older state"
      )
    )
  }

  /** How many partitions a topic has, or why it is refused. */
  private readonly partitionCount = Effect.fnUntraced(function* (this: Session, topic: string) {
    const known = this.partitionCounts.get(topic)
    if (known !== undefined && known.until > performance.now()) return known.count
    const found = yield* this.writer
      .partitionCount(topic)
      .pipe(Effect.catch((error) => (error.kind === "refused" ? Effect.succeed(error.reason) : Effect.fail(error))))
    if (typeof found === "number")
      this.partitionCounts.set(topic, { count: found, until: performance.now() + partitionCountMs })
    return found
  })
  private readonly prepare = Effect.fnUntraced(function* (this: Session, taken: ReadonlyArray<PulsarMessage>) {
    const records: Array<AddressedRecord> = []
    const messages: Array<PulsarMessage> = []
    const dead = new Map<PulsarMessage, string>()
    const counts = zeroCounts()
    for (const message of taken) {
      const rejected = this.search.reasonFor(message)
      const routed =
        rejected === undefined
          ? route(this.routeContext, message.record, formatPosition(message.position))
          : { kind: "dead" as const, reason: rejected }
      if (routed.kind === "dead") dead.set(message, routed.reason)
      else if (routed.kind !== "send") counts[routed.kind]++
      else {
        const count = yield* this.partitionCount(routed.topic)
        if (typeof count === "string") dead.set(message, `${routed.topic}: ${count}`)
        else {
          const partition = targetPartition(this.source.partition, routed.record, count)
          records.push({ topic: routed.topic, partition, record: routed.record })
          messages.push(message)
        }
      }
    }
    return { records, messages, dead, counts: { ...counts, mirrored: records.length, dead: dead.size } } as Prepared
  })
  private readonly mirror = Effect.fnUntraced(function* (this: Session, messages: ReadonlyArray<PulsarMessage>) {
    const prepared = yield* this.prepare(messages)
    if (prepared.dead.size > 0) yield* this.writeDeadLetters(prepared.dead)
    const position = messages.at(-1)!.position
    const offset = this.mirrored + messages.length
    const errors = this.deadLetters.endFor(position)
    const metadata = JSON.stringify({
      place: formatPosition(position),
      at: Date.now(),
      ...(errors !== undefined && { errors: formatPosition(errors) })
    })
    yield* this.writer
      .commit(prepared.records, [{ ...this.source.positionOf, offset, metadata }])
      .pipe(
        Effect.tapError((error) => Effect.sync(() => this.search.learn(error, prepared.records, prepared.messages)))
      )
    this.position = position
    this.mirrored = offset
    this.committedAt = Date.now()
    this.search.committed()
    this.state.markProgress()
    yield* this.state.count(prepared.counts)
  })
  private readonly writeDeadLetters = Effect.fnUntraced(function* (
    this: Session,
    dead: ReadonlyMap<PulsarMessage, string>
  ) {
    const { partitionName, rule } = this.source
    const [message, reason] = dead.entries().next().value!
    const first = `the first one, at ${formatPosition(message.position)}: ${reason}`
    yield* Effect.logError(
      `bridge: ${rule.name} ${partitionName}: ${counted(dead.size, "dead letter")} to ${this.deadLetters.topic}; ${first}`
    )
    yield* this.deadLetters.write(
      [...dead].map(([{ position, record }, why]) => [
        position,
        toDeadLetter(this.routeContext, record, formatPosition(position), why)
      ])
    )
  })

  /** Whether everything up to a position is mirrored, or the subscription has nothing left to deliver. */
  readonly hasReached = Effect.fnUntraced(function* (
    this: Session,
    end: PulsarPosition | undefined,
    subscription: string
  ) {
    if (end === undefined) return true
    const { position } = this
    if (position !== undefined) {
      const { batch, batchSize, entry, ledger } = position
      if (ledger > end.ledger || (ledger === end.ledger && entry > end.entry)) return true
      const isLastOfEntry = batch < 0 || batch === batchSize - 1
      if (ledger === end.ledger && entry === end.entry && isLastOfEntry) return true
    }
    return (yield* this.context.pulsar.backlog(this.source.partitionName, subscription)) === 0
  })
}

const subscriptionOf = (bridge: Bridge, rule: CheckedRule) => `${bridge.name}/${rule.name}`

/** Subscribes, opens the writer, and reads where to start. */
const open = Effect.fnUntraced(function* (
  { bridge, clusters, kafka, pulsar }: BridgeContext,
  { partitionName, positionOf, rule, topic, words }: PulsarSource
): Effect.fn.Return<Opened, BridgeError, Scope.Scope> {
  const name = `${bridge.name}/${rule.name}/${partitionName}`
  // first the subscription, which one process has: otherwise a waiting process would fence the one that works
  const consumer = yield* pulsar.consume(partitionName, subscriptionOf(bridge, rule), rule.start ?? "earliest")
  const writer = yield* kafka.openWriter(name)
  const committed = yield* writer.committedPosition(positionOf)
  const { at, errors, place } = parseMetadata(committed?.metadata ?? "")
  const parse = (text: unknown) => (typeof text === "string" ? parsePosition(text) : undefined)
  const routeContext: RouteContext = {
    rule,
    words,
    bridge: bridge.name,
    sourceCluster: clusters.pulsar,
    targetCluster: clusters.kafka,
    stream: partitionName
  }
  const deadLetters = new DeadLetterWriter({
    pulsar,
    topic: errorTopicOf(rule, topic),
    owner: { bridge: bridge.name, rule: rule.name, stream: partitionName },
    name,
    after: parse(errors)
  })
  return {
    writer,
    consumer,
    routeContext,
    deadLetters,
    position: parse(place),
    mirrored: committed?.offset ?? 0,
    committedAt: typeof at === "number" ? at : Infinity
  }
})
const session = Effect.fnUntraced(function* (stream: StreamContext): Effect.fn.Return<void, StreamError, Scope.Scope> {
  const { context, source, state } = stream
  const end = source.once ? yield* context.pulsar.lastPosition(source.partitionName) : undefined
  const one = new Session(stream, yield* open(context, source))
  const reachEnd = Effect.gen(function* () {
    while (!(yield* one.hasReached(end, subscriptionOf(context.bridge, source.rule)))) yield* Effect.sleep(50)
    yield* state.setLag(0)
  })
  yield* Effect.raceAllFirst<Effect.Effect<void, BridgeError, Scope.Scope>>([
    one.run(),
    source.once ? reachEnd : Effect.never
  ])
})

/** Mirrors one partition until interrupted, or once. After every failure it starts again from the committed position. */
export const toKafka = (context: BridgeContext, source: PulsarSource): Effect.Effect<void, StreamError> => {
  const { once, partition, partitionName, rule, topic } = source
  const state = context.status.stream(rule.name, topic, partition)
  const search = new RejectionSearch()
  const lag = context.pulsar
    .backlog(partitionName, subscriptionOf(context.bridge, rule))
    .pipe(Effect.orElseSucceed(() => undefined))
  const policy = { once, hasLearned: search.takeLearned, lag }
  return runSessions(context.availability, state, session({ context, source, state, search }), policy)
}
