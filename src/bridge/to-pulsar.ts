// A bridge stream from Kafka to Pulsar: mirrors the records of one partition in order, each once. Its position is a group's offset on Kafka, which
// is committed after Pulsar has everything before it.
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { BridgeContext } from "./context.ts"
import { toDeadLetter } from "./dead-letter.ts"
import { type BridgeError, readFailure, recordsLost } from "./errors.ts"
import type { AddressedRecord, GroupPartition, KafkaWriter } from "./kafka-side.ts"
import { formatPositions, parseMetadata } from "./position-metadata.ts"
import { PulsarProducers } from "./pulsar-producers.ts"
import type { NumberedRecord } from "./pulsar-side.ts"
import { type BridgeRecord, fromLogRecord } from "./record.ts"
import { route, type RouteContext, targetPartition } from "./route.ts"
import { type CheckedRule, errorTopicOf } from "./rule.ts"
import { runSessions, type StreamError } from "./sessions.ts"
import { type StreamState, zeroCounts } from "./status.ts"
import type { Batch, OutOfRange, Position, Reader, ReadError } from "../log/log.ts"
import { isTimeMark } from "../log/time-mark.ts"
import { counted } from "../text/counted.ts"

/** How often the position is committed while records flow, and how long after the last one. */
const commitMs = 200
/** Kafka forgets a position after 7 days, so it is committed again earlier even if no record came. */
const refreshMs = 86_400_000

/** A partition on Kafka to mirror. */
export interface KafkaSource {
  readonly rule: CheckedRule
  readonly topic: string
  readonly words: Readonly<Record<string, string>>
  readonly partition: number
  readonly open: (from: Position) => Effect.Effect<Reader, ReadError, Scope.Scope>
  /** Stop once everything before this position is mirrored; undefined means never. */
  readonly until: Position | undefined
}
/** Where a session starts, and what it needs. */
interface Start {
  readonly positionOf: GroupPartition
  readonly routeContext: RouteContext
  /** The topic's identity, which changes if it is deleted and created again; undefined if the log has none. */
  readonly identity: string | undefined
  readonly producers: PulsarProducers
  readonly position: Position
  readonly lag: number
}
/** Dead records of a batch by offset, with the reason, and the records that they were. */
interface DeadRecords {
  readonly reasons: Map<number, string>
  readonly originals: Map<number, BridgeRecord>
}

/** One session: from opening the transactional id to the first failure. */
class Session {
  private readonly context: BridgeContext
  private readonly source: KafkaSource
  private readonly state: StreamState
  private readonly writer: KafkaWriter
  private readonly start: Start
  private position: Position
  /** Whether there is anything that the committed position does not include. */
  private isDirty = false
  private committedAt = -Infinity
  private counts = zeroCounts()
  private hasErrorTopic = false

  constructor(context: BridgeContext, source: KafkaSource, state: StreamState, writer: KafkaWriter, start: Start) {
    this.context = context
    this.source = source
    this.state = state
    this.writer = writer
    this.start = start
    this.position = start.position
  }

  readonly run = Effect.fnUntraced(function* (this: Session, reader: Reader) {
    const { until = Infinity } = this.source
    while (!(this.position >= until)) {
      const take = Effect.mapError(reader.take, readFailure)
      this.state.idleSince = performance.now()
      const batch = this.isDirty
        ? yield* Effect.timeoutOption(take, commitMs)
        : Option.some(yield* this.takeRefreshing(take))
      this.state.idleSince = undefined
      if (Option.isSome(batch)) yield* this.mirror(batch.value)
      else yield* this.commit([])
    }
    yield* this.commit([])
  })
  /** Waits for records, and commits the old position again meanwhile. */
  private readonly takeRefreshing = Effect.fnUntraced(function* <E>(this: Session, take: Effect.Effect<Batch, E>) {
    while (true) {
      const batch = yield* Effect.timeoutOption(take, refreshMs)
      if (Option.isSome(batch)) return batch.value
      yield* this.commit([])
    }
  })

  private readonly mirror = Effect.fnUntraced(function* (this: Session, batch: Batch) {
    const byTopic = new Map<string, Array<NumberedRecord>>()
    const dead: DeadRecords = { reasons: new Map(), originals: new Map() }
    for (const read of batch.records) {
      if (isTimeMark(read)) {
        this.counts.filtered++
        continue
      }
      const record = fromLogRecord(read)
      const routed = route(this.start.routeContext, record, String(read.position))
      if (routed.kind === "send" || routed.kind === "dead") dead.originals.set(read.position, record)
      if (routed.kind === "dead") dead.reasons.set(read.position, routed.reason)
      else if (routed.kind !== "send") this.counts[routed.kind]++
      else {
        const list = byTopic.get(routed.topic)
        const numbered = { record: routed.record, sequenceId: read.position }
        if (list === undefined) byTopic.set(routed.topic, [numbered])
        else list.push(numbered)
      }
    }
    const sending = [...byTopic].map(([topic, records]) => this.send(topic, records, dead.reasons))
    yield* Effect.all(sending, { concurrency: 8, discard: true })
    this.counts.dead += dead.reasons.size
    this.counts.mirrored += dead.originals.size - dead.reasons.size
    this.position = batch.next
    this.state.position = batch.next
    this.isDirty = true
    yield* this.state.setLag(Math.max(0, batch.end - batch.next))
    if (dead.reasons.size > 0) yield* this.commitDeadLetters(dead)
    else if (performance.now() - this.committedAt > commitMs) yield* this.commit([])
  })
  /** Sends records to one topic. Adds those that are refused to `dead`. */
  private readonly send = Effect.fnUntraced(function* (
    this: Session,
    topic: string,
    records: ReadonlyArray<NumberedRecord>,
    dead: Map<number, string>
  ) {
    const { producers } = this.start
    const partitions = yield* producers.partitionsOf(topic)
    if ("reason" in partitions) {
      for (const { sequenceId } of records) dead.set(sequenceId, `${topic}: ${partitions.reason}`)
      return
    }
    const byPartition = Map.groupBy(records, ({ record }) =>
      targetPartition(this.source.partition, record, partitions.length)
    )
    const sending = [...byPartition].map(([partition, some]) =>
      Effect.map(producers.send(partitions[partition]!, some), (refused) => {
        for (const [offset, reason] of refused) dead.set(offset, `${topic}: ${reason}`)
      })
    )
    yield* Effect.all(sending, { concurrency: 8, discard: true })
  })

  /** Commits dead letters together with the position, in one transaction. */
  private readonly commitDeadLetters = Effect.fnUntraced(function* (
    this: Session,
    { originals, reasons }: DeadRecords
  ) {
    const { partition, rule, topic } = this.source
    const errorTopic = errorTopicOf(rule, topic)
    if (!this.hasErrorTopic) yield* this.createErrorTopic(errorTopic)
    this.hasErrorTopic = true
    const deadLetters = [...reasons]
      .toSorted(([a], [b]) => a - b)
      .map(([offset, reason]): AddressedRecord => {
        const record = toDeadLetter(this.start.routeContext, originals.get(offset)!, String(offset), reason)
        return { topic: errorTopic, partition: 0, record }
      })
    const [offset, reason] = reasons.entries().next().value!
    const first = `the first one, at ${offset}: ${reason}`
    yield* Effect.logError(
      `bridge: ${rule.name} ${topic}/${partition}: ${counted(reasons.size, "dead letter")} to ${errorTopic}; ${first}`
    )
    yield* this.commit(deadLetters)
  })
  private createErrorTopic(name: string) {
    const declare = this.context.log.declare([{ name, partitions: 1, compacted: false, retentionMs: undefined }])
    return this.writer.partitionCount(name).pipe(
      Effect.asVoid,
      Effect.catch((error) => (error.kind === "refused" ? Effect.mapError(declare, readFailure) : Effect.fail(error)))
    )
  }
  private readonly commit = Effect.fnUntraced(function* (
    this: Session,
    deadLetters: ReadonlyArray<AddressedRecord>
  ): Effect.fn.Return<void, BridgeError> {
    const { identity, positionOf, producers } = this.start
    const metadata = JSON.stringify({ topic: identity, places: formatPositions(producers.ends) })
    yield* this.writer.commit(deadLetters, [{ ...positionOf, offset: this.position, metadata }])
    yield* this.state.count(this.counts)
    this.counts = zeroCounts()
    this.isDirty = false
    this.committedAt = performance.now()
    this.state.markProgress()
  })
}

/** Reads where to start. Fails with `lost` if the topic was deleted and created again, unless the rule says to continue. */
const startOf = Effect.fnUntraced(function* (
  { bridge, clusters, log, pulsar }: BridgeContext,
  { partition, rule, topic, words }: KafkaSource,
  state: StreamState,
  writer: KafkaWriter
): Effect.fn.Return<Start, BridgeError> {
  const positionOf: GroupPartition = { group: `${bridge.name}/${rule.name}`, topic, partition }
  const identity = yield* Effect.mapError(log.identity(topic), readFailure)
  const committed = yield* writer.committedPosition(positionOf)
  state.position = committed?.offset
  const metadata = parseMetadata(committed?.metadata ?? "")
  const before = metadata["topic"]
  const isRecreated = typeof before === "string" && identity !== undefined && before !== identity
  if (isRecreated && rule.lost !== "continue")
    return yield* recordsLost("kafka", topic, `topic ${topic} was deleted and created again since it was mirrored`)
  const bounds = yield* Effect.mapError(log.bounds(topic), readFailure)
  const { end, start } = bounds[partition] ?? { start: 0, end: 0 }
  const first = rule.start === "latest" && committed === undefined ? end : start
  const position = committed === undefined || isRecreated ? first : committed.offset
  // offsets of a recreated topic begin at 0 again, and under the former name the broker would take them for duplicates
  const suffix = identity === undefined ? "" : `#${identity.slice(0, 8)}`
  const stream = `${bridge.name}/${rule.name}/${topic}/${partition}${suffix}`
  const routeContext: RouteContext = {
    rule,
    words,
    bridge: bridge.name,
    sourceCluster: clusters.kafka,
    targetCluster: clusters.pulsar,
    stream
  }
  const ends = (isRecreated ? {} : (metadata["places"] ?? {})) as Readonly<Record<string, unknown>>
  const producers = new PulsarProducers({ pulsar, stream, batching: rule.batching !== false, position, ends })
  return { positionOf, identity, routeContext, producers, position, lag: Math.max(0, end - Math.max(start, position)) }
})

const session = Effect.fnUntraced(function* (
  context: BridgeContext,
  source: KafkaSource,
  state: StreamState
): Effect.fn.Return<void, StreamError, Scope.Scope> {
  const { bridge, kafka } = context
  const { open, partition, rule, topic } = source
  const writer = yield* kafka.openWriter(`${bridge.name}/${rule.name}/${topic}/${partition}`)
  let start = yield* startOf(context, source, state, writer)
  state.position = start.position
  // if no record comes, nothing else sets it
  yield* state.setLag(start.lag)
  const skipLost = (error: OutOfRange): Effect.Effect<Reader, BridgeError, Scope.Scope> => {
    if (rule.lost !== "continue") return Effect.fail(recordsLost("kafka", topic, error.message))
    start = { ...start, position: error.start }
    return Effect.mapError(open(error.start), readFailure)
  }
  const reader = yield* open(start.position).pipe(
    Effect.catch((error) => (error._tag === "OutOfRange" ? skipLost(error) : Effect.fail(readFailure(error))))
  )
  yield* new Session(context, source, state, writer, start).run(reader)
})

/** Mirrors one partition until interrupted, or up to `until`. After every failure it starts again from the committed position. */
export const toPulsar = (context: BridgeContext, source: KafkaSource): Effect.Effect<void, StreamError> => {
  const { partition, rule, topic, until } = source
  const state = context.status.stream(rule.name, topic, partition)
  const measured = context.log.bounds(topic).pipe(
    Effect.map((bounds) => {
      const { end, start } = bounds[partition] ?? { end: 0, start: 0 }
      return end - Math.max(start, state.position ?? start)
    }),
    Effect.orElseSucceed(() => undefined)
  )
  // while batches come, they set it
  const lag = Effect.suspend(() => (state.idleSince === undefined ? measured : Effect.succeed(undefined)))
  const policy = { once: until !== undefined, lag }
  return runSessions(context.availability, state, session(context, source, state), policy)
}
