// A stream from Kafka to Pulsar: one partition's records, in order, each there once. The position is a group's offset on Kafka, written after Pulsar has everything before it.
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { addEnvelope, envelopeHeaders } from "../log/envelope.ts"
import { type BridgeRecord, type BridgeRule, errorsSuffix } from "./rules.ts"
import type { AddressedRecord, GroupPartition, KafkaWriter } from "./kafka-side.ts"
import type { BridgeError } from "./errors.ts"
import type { NumberedRecord } from "./pulsar-side.ts"
import { PulsarProducers } from "./pulsar-producers.ts"
import { deadLetter } from "./dead-letter.ts"
import { route, type RouteContext } from "./route.ts"
import type { Counts, StreamState } from "./status.ts"
import {
  type BridgeContext,
  lostBecause,
  parseMetadata,
  persist,
  placesText,
  readFailure,
  type StreamError
} from "./stream.ts"
import type { Batch, LogRecord, OutOfRange, Position, Reader, ReadError } from "../log/log.ts"
import { partitionOf } from "../model/partitioner.ts"

/** Positions are written so often while records flow, and when none has come for so long. */
const positionMs = 200
/** Kafka forgets a position after 7 days: it is written again before, though nothing came. */
const refreshMs = 86_400_000

/** A partition to mirror. */
export interface Outward {
  readonly rule: BridgeRule
  readonly topic: string
  readonly words: Readonly<Record<string, string>>
  readonly partition: number
  readonly open: (from: Position) => Effect.Effect<Reader, ReadError, Scope.Scope>
  /** Ends where everything before this position is mirrored; undefined: never. */
  readonly until: Position | undefined
}

/** The headers of a record as Kafka has them, by the envelope's names on Kafka; event time apart. */
export const recordOf = (record: LogRecord) => {
  const { eventTime, headers, key, value } = record
  const all: Record<string, string> = Object.assign(Object.create(null), headers) as Record<string, string>
  addEnvelope(all, record)
  // another producer's trace id, which its traceparent contradicts
  const traceId = headers[envelopeHeaders.traceId]
  if (traceId !== undefined) all[envelopeHeaders.traceId] = traceId
  return { key, value, eventTime, headers: all } satisfies BridgeRecord
}

/** One session: from taking the transactional id to the first failure. */
class Session {
  private readonly joined: BridgeContext
  private readonly outward: Outward
  private readonly state: StreamState
  private readonly writer: KafkaWriter
  private readonly held: GroupPartition
  private readonly way: RouteContext
  private readonly identity: string | undefined
  private readonly lanes: PulsarProducers
  private position: Position
  /** What is not written down yet. */
  private dirty = false
  private writtenAt = -Infinity
  private counts: Record<keyof Counts, number> = { mirrored: 0, filtered: 0, returned: 0, dead: 0 }
  private errorsMade = false

  constructor(
    joined: BridgeContext,
    outward: Outward,
    state: StreamState,
    writer: KafkaWriter,
    begin: {
      readonly held: GroupPartition
      readonly way: RouteContext
      readonly identity: string | undefined
      readonly lanes: PulsarProducers
      readonly position: Position
    }
  ) {
    this.joined = joined
    this.outward = outward
    this.state = state
    this.writer = writer
    this.held = begin.held
    this.way = begin.way
    this.identity = begin.identity
    this.lanes = begin.lanes
    this.position = begin.position
  }

  readonly run = Effect.fnUntraced(function* (this: Session, reader: Reader) {
    const { until = Infinity } = this.outward
    while (!(this.position >= until)) {
      const take = Effect.mapError(reader.take, readFailure)
      this.state.waits = performance.now()
      const batch = this.dirty
        ? yield* Effect.timeoutOption(take, positionMs)
        : Option.some(yield* this.patiently(take))
      this.state.waits = undefined
      if (Option.isSome(batch)) yield* this.mirror(batch.value)
      else yield* this.write([])
    }
    yield* this.write([])
  })
  /** Waits for records, and writes an old position again meanwhile. */
  private readonly patiently = Effect.fnUntraced(function* <E>(this: Session, take: Effect.Effect<Batch, E>) {
    while (true) {
      const batch = yield* Effect.timeoutOption(take, refreshMs)
      if (Option.isSome(batch)) return batch.value
      yield* this.write([])
    }
  })

  private readonly mirror = Effect.fnUntraced(function* (this: Session, batch: Batch) {
    const byTopic = new Map<string, Array<NumberedRecord>>()
    const dead = new Map<number, string>()
    const originals = new Map<number, BridgeRecord>()
    for (const read of batch.records) {
      const record = recordOf(read)
      const routed = route(this.way, record, String(read.position))
      if (routed.kind === "send" || routed.kind === "dead") originals.set(read.position, record)
      if (routed.kind === "dead") dead.set(read.position, routed.reason)
      else if (routed.kind !== "send") this.counts[routed.kind]++
      else {
        const list = byTopic.get(routed.topic)
        const message = { record: routed.record, sequenceId: read.position }
        if (list === undefined) byTopic.set(routed.topic, [message])
        else list.push(message)
      }
    }
    const sending = [...byTopic].map(([topic, messages]) => this.send(topic, messages, dead))
    yield* Effect.all(sending, { concurrency: 8, discard: true })
    this.counts.dead += dead.size
    this.counts.mirrored += originals.size - dead.size
    this.position = batch.next
    this.state.position = batch.next
    this.dirty = true
    yield* this.state.behind(Math.max(0, batch.end - batch.next))
    if (dead.size > 0) yield* this.bury(dead, originals)
    else if (performance.now() - this.writtenAt > positionMs) yield* this.write([])
  })
  private readonly send = Effect.fnUntraced(function* (
    this: Session,
    topic: string,
    messages: ReadonlyArray<NumberedRecord>,
    dead: Map<number, string>
  ) {
    const parts = yield* this.lanes.parts(topic)
    if ("reason" in parts) {
      for (const { sequenceId } of messages) dead.set(sequenceId, `${topic}: ${parts.reason}`)
      return
    }
    const { partition } = this.outward
    const byPart = Map.groupBy(messages, ({ record: { key } }) =>
      key === null ? partition % parts.length : partitionOf(key, parts.length)
    )
    const sending = [...byPart].map(([part, some]) =>
      Effect.map(this.lanes.send(parts[part]!, some), (refused) => {
        for (const [offset, reason] of refused) dead.set(offset, `${topic}: ${reason}`)
      })
    )
    yield* Effect.all(sending, { concurrency: 8, discard: true })
  })

  /** Dead letters go with the position, in one transaction. */
  private readonly bury = Effect.fnUntraced(function* (
    this: Session,
    dead: ReadonlyMap<number, string>,
    originals: ReadonlyMap<number, BridgeRecord>
  ) {
    const { rule, topic } = this.outward
    const errors = rule.errors ?? `${topic}${errorsSuffix}`
    if (!this.errorsMade) yield* this.makeErrors(errors)
    this.errorsMade = true
    const letters = [...dead]
      .toSorted(([a], [b]) => a - b)
      .map(([offset, reason]): AddressedRecord => {
        const record = deadLetter(this.way, originals.get(offset)!, String(offset), reason)
        return { topic: errors, partition: 0, record }
      })
    const [offset, reason] = dead.entries().next().value!
    yield* Effect.logError(
      `bridge: ${rule.name} ${topic}/${this.outward.partition}: ${dead.size} to ${errors}; ${offset}: ${reason}`
    )
    yield* this.write(letters)
  })
  private makeErrors(name: string) {
    const declare = this.joined.log.declare([{ name, partitions: 1, compacted: false, retentionMs: undefined }])
    return this.writer.partitionCount(name).pipe(
      Effect.asVoid,
      Effect.catch((error) => (error.kind === "refused" ? Effect.mapError(declare, readFailure) : Effect.fail(error)))
    )
  }
  private readonly write = Effect.fnUntraced(function* (
    this: Session,
    letters: ReadonlyArray<AddressedRecord>
  ): Effect.fn.Return<void, BridgeError> {
    const metadata = JSON.stringify({ topic: this.identity, places: placesText(this.lanes.places) })
    yield* this.writer.commit(letters, [{ ...this.held, offset: this.position, metadata }])
    yield* this.state.count(this.counts)
    this.counts = { mirrored: 0, filtered: 0, returned: 0, dead: 0 }
    this.dirty = false
    this.writtenAt = performance.now()
    this.state.moves()
  })
}

/** Where to begin, and from what. */
const begin = Effect.fnUntraced(function* (
  joined: BridgeContext,
  outward: Outward,
  state: StreamState,
  writer: KafkaWriter
) {
  const { bridge, clusters, log, pulsar } = joined
  const { partition, rule, topic, words } = outward
  const held: GroupPartition = { group: `${bridge.name}/${rule.name}`, topic, partition }
  const identity = yield* Effect.mapError(log.identity(topic), readFailure)
  const stored = yield* writer.committedPosition(held)
  state.position = stored?.offset
  const metadata = parseMetadata(stored?.metadata ?? "")
  const anew = typeof metadata["topic"] === "string" && identity !== undefined && metadata["topic"] !== identity
  if (anew && rule.lost !== "continue")
    return yield* lostBecause("kafka", topic, `the topic ${topic} was deleted and made anew since it was mirrored`)
  const bounds = yield* Effect.mapError(log.bounds(topic), readFailure)
  const { end, start } = bounds[partition] ?? { start: 0, end: 0 }
  const first = rule.start === "latest" && stored === undefined ? end : start
  const position = stored === undefined || anew ? first : stored.offset
  // a topic that was made anew counts from 0 again, which the broker would take for duplicates under the name before
  const stream = `${bridge.name}/${rule.name}/${topic}/${partition}${identity === undefined ? "" : `#${identity.slice(0, 8)}`}`
  const way: RouteContext = {
    rule,
    words,
    bridge: bridge.name,
    source: clusters.kafka,
    target: clusters.pulsar,
    stream
  }
  const places = (anew ? {} : (metadata["places"] ?? {})) as Readonly<Record<string, unknown>>
  const lanes = new PulsarProducers({ pulsar, stream, batching: rule.batching !== false, position, places })
  return { held, identity, way, lanes, position, behind: Math.max(0, end - Math.max(start, position)) }
})

const session = Effect.fnUntraced(function* (
  joined: BridgeContext,
  outward: Outward,
  state: StreamState
): Effect.fn.Return<void, StreamError, Scope.Scope> {
  const { bridge, kafka } = joined
  const { open, partition, rule, topic } = outward
  const writer = yield* kafka.openWriter(`${bridge.name}/${rule.name}/${topic}/${partition}`)
  let from = yield* begin(joined, outward, state, writer)
  state.position = from.position
  // where no record comes nothing else tells it
  yield* state.behind(from.behind)
  const lost = (error: OutOfRange): Effect.Effect<Reader, BridgeError, Scope.Scope> => {
    if (rule.lost !== "continue") return Effect.fail(lostBecause("kafka", topic, error.message))
    from = { ...from, position: error.start }
    return Effect.mapError(open(error.start), readFailure)
  }
  const reader = yield* open(from.position).pipe(
    Effect.catch((error) => (error._tag === "OutOfRange" ? lost(error) : Effect.fail(readFailure(error))))
  )
  yield* new Session(joined, outward, state, writer, from).run(reader)
})

/** Mirrors one partition until interrupted, or until `until`; begins anew after every failure. */
export const toPulsar = (joined: BridgeContext, outward: Outward): Effect.Effect<void, StreamError> => {
  const { partition, rule, topic, until } = outward
  const state = joined.board.of(rule.name, topic, partition)
  const behind = joined.log.bounds(topic).pipe(
    Effect.map((bounds) => {
      const { end, start } = bounds[partition] ?? { end: 0, start: 0 }
      return end - Math.max(start, state.position ?? start)
    }),
    Effect.orElseSucceed(() => undefined)
  )
  // batches tell it by themselves while they come
  const lag = Effect.suspend(() => (state.waits === undefined ? behind : Effect.succeed(undefined)))
  return persist(joined, state, session(joined, outward, state), { once: until !== undefined, lag })
}
