// One lane of the relay to Kafka: a transactional producer that publishes its share of the streams, at most one transaction in a round.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type { LaneRound, RelayLane } from "../../relay/lanes.ts"
import {
  type ReadLimits,
  type MirroredPosition,
  overtaken,
  streamName,
  type Outbox,
  type OutboxPosition
} from "../../relay/outbox.ts"
import { type StreamHalt, RelayError, type OutboxStream } from "../../relay/target.ts"
import {
  failureOf,
  type GroupOffset,
  isFenced,
  isMoved,
  type KafkaOptions,
  needsPerson,
  TransactionalProducer
} from "../protocol/protocol.ts"
import type { BufferPool } from "./buffer-pool.ts"
import { adoptionProblem, groupOf, type HaltReason, positionMismatch, positionOf } from "./position.ts"
import { type Transaction, TransactionBuilder } from "./transaction-builder.ts"

/** What all lanes of a relay share. */
export interface LaneSettings {
  readonly target: string
  /** The start of the names of consumer groups and transactional ids. */
  readonly prefix: string
  readonly kafka: KafkaOptions
  readonly outbox: Outbox["Service"]
  readonly accepts: (topic: string) => boolean
  readonly bounds: ReadLimits
  /** The buffers that batches are encoded in. */
  readonly pool: BufferPool
  /** How long an unchanged offset may go without being written again, in milliseconds. */
  readonly refreshMs: number
}

/** How long a position that does not fit is left alone before it is read again, in milliseconds. */
const mismatchMs = 1_000
/** How long positions may wait that only moved past segments of other targets, in milliseconds. */
const passMs = 1_000
/** A stream of this lane. Times are on the clock of `performance.now()`. */
interface StreamState {
  position: OutboxPosition
  /** The sequence number that Kafka has stored. */
  kept: number
  /** When it was stored. */
  keptAt: number
  /** Why the position itself does not fit; undefined if it does. */
  mismatch: HaltReason | undefined
  /** When to read a position that does not fit again. */
  mismatchUntil: number
}
/** A lane. Its rounds must not overlap. */
export class KafkaLane implements RelayLane {
  private readonly settings: LaneSettings
  private readonly id: string
  /** Fails if the number of lanes was changed since this lane was created. */
  private readonly current: Effect.Effect<void, RelayError>
  private producer: TransactionalProducer | undefined
  private readonly states = new Map<string, StreamState>()
  /** The next transaction, if it was built while the last one was sent. */
  private prepared: Transaction | undefined
  private readonly builder: TransactionBuilder
  /** The reasons that are stored in the database, by the stream's name. */
  private readonly marked = new Map<string, string>()
  private reasons: ReadonlyMap<string, string> = new Map()
  /** Whether another process took the transactional id over. */
  fenced = false

  constructor(settings: LaneSettings, id: string, current: Effect.Effect<void, RelayError>) {
    this.settings = settings
    this.id = id
    this.current = current
    this.builder = new TransactionBuilder(settings.accepts, settings.kafka.compression ?? "zstd", settings.pool)
  }

  /** The streams that are halted, and why. */
  get halted(): ReadonlyArray<StreamHalt> {
    return [...this.reasons].flatMap(([name, reason]) => {
      const state = this.states.get(name)
      if (state === undefined) return []
      const { partition, projection, source } = state.position
      return [{ projection, source, partition, reason }]
    })
  }
  /** Closes the producer, whose open transaction will be aborted. The next round starts with a new one. */
  close(): void {
    this.producer?.close()
    this.producer = undefined
    this.prepared = undefined
    this.states.clear()
  }

  /** Sends at most one transaction, with the messages that follow the streams' positions. After a failure the next round starts over. */
  readonly round = (streams: ReadonlyArray<MirroredPosition>): Effect.Effect<LaneRound, RelayError> =>
    this.step(streams).pipe(Effect.tapError(() => Effect.sync(() => this.close())))

  private attempt<A>(run: () => Promise<A>): Effect.Effect<A, RelayError> {
    return Effect.tryPromise({ try: run, catch: (cause) => this.failure(cause) })
  }
  private failure(cause: unknown): RelayError {
    if (cause instanceof RelayError) return cause
    const failure = failureOf(cause)
    const fenced = failure.kind === "fenced"
    this.fenced ||= fenced
    const retryable = fenced || failure.retryable
    const reason = fenced ? `another relay took ${this.id} over, or the transaction took too long` : failure.message
    // a new producer may succeed where the same request would not, unless a person must correct something
    const mayRetry = retryable || (failure.code !== "" && failure.kind !== "closed" && !needsPerson(failure))
    return new RelayError({ target: this.settings.target, operation: "publish", retryable: mayRetry, reason, cause })
  }

  private readonly step = Effect.fnUntraced(function* (
    this: KafkaLane,
    streams: ReadonlyArray<MirroredPosition>
  ): Effect.fn.Return<LaneRound, RelayError> {
    const producer = (this.producer ??= yield* this.start())
    yield* this.admit(producer, streams)
    const ready = this.prepared
    this.prepared = undefined
    // a prepared transaction without batches is out of date by now
    const transaction =
      ready !== undefined && ready.batches.length > 0 ? ready : yield* this.prepare(producer, new Map())
    yield* this.mark(transaction.halted)
    const due = this.due(transaction)
    if (due.length === 0 && transaction.batches.length === 0) {
      this.advance(transaction.after)
      return { messages: 0, more: transaction.more }
    }
    const ahead = transaction.more ? yield* Effect.forkChild(this.prepare(producer, transaction.after)) : undefined
    const sent = yield* Effect.exit(this.attempt(() => this.send(producer, transaction, due)))
    if (Exit.isFailure(sent) || sent.value) {
      // it uses the producer, which is closed now
      if (ahead !== undefined) yield* Fiber.await(ahead)
      this.close()
      yield* sent
      return { messages: 0, more: true }
    }
    this.advance(transaction.after)
    const keptAt = performance.now()
    for (const position of due) Object.assign(this.states.get(streamName(position))!, { kept: position.seq, keptAt })
    const { outbox, target } = this.settings
    yield* outbox.move(target, due)
    for (const position of due) this.marked.delete(streamName(position))
    if (ahead !== undefined) this.prepared = yield* Fiber.join(ahead)
    return { messages: transaction.messages, more: transaction.more }
  })

  /** Opens a new producer, which ends its predecessor's transaction. Positions may be read only after that. */
  private readonly start = Effect.fnUntraced(function* (
    this: KafkaLane
  ): Effect.fn.Return<TransactionalProducer, RelayError> {
    this.close()
    const producer = yield* this.attempt(() => TransactionalProducer.take(this.settings.kafka, this.id))
    this.fenced = false
    // checked after the id was taken over: a process that changes the number of lanes later will take it over later
    yield* this.current.pipe(Effect.tapError(() => Effect.sync(() => producer.close())))
    return producer
  })

  /** Reads the positions of streams that are new to this lane, and of those whose position did not fit. */
  private readonly admit = Effect.fnUntraced(function* (
    this: KafkaLane,
    producer: TransactionalProducer,
    streams: ReadonlyArray<MirroredPosition>
  ): Effect.fn.Return<void, RelayError> {
    const now = performance.now()
    const unknown = new Set<string>()
    for (const stream of streams) {
      const state = this.states.get(streamName(stream))
      const reason = overtaken(stream)
      if (state !== undefined && state.mismatch === undefined && reason !== undefined) {
        Object.assign(state, { mismatch: { reason }, mismatchUntil: now + mismatchMs })
        this.prepared = undefined
      }
      if (state === undefined || (state.mismatch !== undefined && state.mismatchUntil < now))
        unknown.add(streamName(stream))
    }
    if (unknown.size === 0) return
    const { outbox, prefix, target } = this.settings
    // read before Kafka's offset, so that it cannot be ahead of that: only this lane writes it now
    const mirror = (yield* outbox.streams(target)).filter((stream) => unknown.has(streamName(stream)))
    yield* this.adopt(
      producer,
      mirror.filter(({ adopt }) => adopt)
    )
    for (const [projection, of] of Map.groupBy(
      mirror.filter(({ adopt }) => !adopt),
      (one) => one.projection
    )) {
      const group = groupOf(prefix, projection)
      const asked = of.map(({ partition, source }) => ({ topic: source, partition }))
      const found = yield* this.attempt(() => producer.offsets(group, asked))
      const offsets = new Map(found.map((offset) => [`${offset.topic}/${offset.partition}`, offset]))
      for (const mirrored of of) {
        const { partition, source } = mirrored
        this.admitted(mirrored, positionOf(mirrored, group, offsets.get(`${source}/${partition}`)))
      }
    }
  })
  private admitted(mirrored: MirroredPosition, position: OutboxPosition | HaltReason) {
    const name = streamName(mirrored)
    const reason = overtaken(mirrored)
    const mismatch = "reason" in position ? position : reason === undefined ? undefined : { reason }
    if (mirrored.halted !== undefined) this.marked.set(name, mirrored.halted)
    this.states.set(name, {
      position: "reason" in position ? mirrored : position,
      kept: ("reason" in position ? mirrored : position).seq,
      // not known, so it is written with the first transaction
      keptAt: -Infinity,
      mismatch,
      mismatchUntil: performance.now() + mismatchMs
    })
  }
  /**
   * Writes positions that a person set to Kafka, in a transaction of their own: whatever its outcome, it may be repeated as long as nothing
   * was published after it.
   */
  private readonly adopt = Effect.fnUntraced(function* (
    this: KafkaLane,
    producer: TransactionalProducer,
    mirror: ReadonlyArray<MirroredPosition>
  ): Effect.fn.Return<void, RelayError> {
    if (mirror.length === 0) return
    const { outbox, target } = this.settings
    const following = yield* outbox.read(target, mirror, { segments: 1, streamBytes: 1, bytes: 1 }, [])
    const positions: Array<OutboxPosition> = []
    for (const [i, { place: position, there }] of following.entries()) {
      const { partition, projection, seq, source } = position
      const found = adoptionProblem(position, there) ?? { projection, source, partition, seq, incarnation: there }
      this.admitted(mirror[i]!, found)
      if (!("reason" in found)) positions.push(found)
    }
    if (positions.length === 0) return
    yield* this.attempt(() => producer.commit([], this.offsetsOf(positions)))
    yield* outbox.move(target, positions)
  })

  /** Reads the segments that follow and builds a transaction. `ahead` has the positions of streams after the transaction that is being sent. */
  private readonly prepare = Effect.fnUntraced(function* (
    this: KafkaLane,
    producer: TransactionalProducer,
    ahead: ReadonlyMap<string, OutboxPosition>
  ): Effect.fn.Return<Transaction, RelayError> {
    const { bounds, outbox, target } = this.settings
    const halted = new Map<string, string>()
    const positions: Array<OutboxPosition> = []
    for (const [name, { mismatch, position }] of this.states) {
      if (mismatch === undefined) positions.push(ahead.get(name) ?? position)
      else halted.set(name, mismatch.reason)
    }
    const following = yield* outbox.read(target, positions, bounds, this.builder.ignoredTopics)
    for (const one of following) {
      const mismatch = positionMismatch(one)
      if (mismatch === undefined) continue
      halted.set(streamName(one.place), mismatch.reason)
      const mismatchUntil = performance.now() + mismatchMs
      Object.assign(this.states.get(streamName(one.place))!, { mismatch, mismatchUntil })
    }
    const fitting = following.filter((one) => !halted.has(streamName(one.place)))
    const transaction = yield* this.attempt(() => this.builder.build(producer.client, fitting))
    return { ...transaction, halted: new Map([...halted, ...transaction.halted]) }
  })

  /** Positions that go into the transaction: those that moved, if it has records or they waited long enough, and those not written for long. */
  private due(transaction: Transaction): ReadonlyArray<OutboxPosition> {
    const now = performance.now()
    const due: Array<OutboxPosition> = []
    for (const [name, state] of this.states) {
      if (state.mismatch !== undefined || (transaction.halted.has(name) && !transaction.after.has(name))) continue
      const position = transaction.after.get(name) ?? state.position
      if (position.incarnation === undefined) continue
      const waited = now - state.keptAt
      const moved = position.seq > state.kept
      if (moved ? transaction.batches.length > 0 || waited > passMs : waited > this.settings.refreshMs)
        due.push(position)
    }
    return due
  }
  private advance(after: ReadonlyMap<string, OutboxPosition>) {
    for (const [name, position] of after) this.states.get(name)!.position = position
  }

  /** Positions as offsets, by consumer group. */
  private offsetsOf(positions: ReadonlyArray<OutboxPosition>): ReadonlyMap<string, ReadonlyArray<GroupOffset>> {
    const offsets = new Map<string, Array<GroupOffset>>()
    for (const { incarnation = "", partition, projection, seq, source } of positions) {
      const group = groupOf(this.settings.prefix, projection)
      const offset = { topic: source, partition, offset: seq, metadata: incarnation }
      const list = offsets.get(group)
      if (list === undefined) offsets.set(group, [offset])
      else list.push(offset)
    }
    return offsets
  }
  /** Commits. Returns whether a broker refused a batch because of its content; the next round leaves that out. */
  private async send(
    producer: TransactionalProducer,
    transaction: Transaction,
    due: ReadonlyArray<OutboxPosition>
  ): Promise<boolean> {
    try {
      await producer.commit(transaction.batches, this.offsetsOf(due))
      return false
    } catch (cause) {
      const failure = failureOf(cause)
      if (failure.partition === undefined || isMoved(failure) || isFenced(failure)) throw cause
      this.builder.refused(transaction, failure)
      return true
    }
  }
  /** Stores which streams are halted, and which go on, since it was last stored. */
  private readonly mark = Effect.fnUntraced(function* (
    this: KafkaLane,
    halted: ReadonlyMap<string, string>
  ): Effect.fn.Return<void, RelayError> {
    this.reasons = halted
    const { outbox, target } = this.settings
    const news: Array<OutboxStream & { reason: string | undefined }> = this.halted.filter(
      (halt) => this.marked.get(streamName(halt)) !== halt.reason
    )
    for (const name of this.marked.keys()) {
      const state = this.states.get(name)
      if (state !== undefined && !halted.has(name)) news.push({ ...state.position, reason: undefined })
    }
    if (news.length === 0) return
    yield* outbox.halt(target, news)
    for (const { reason, ...stream } of news) {
      if (reason === undefined) this.marked.delete(streamName(stream))
      else this.marked.set(streamName(stream), reason)
    }
  })
}
