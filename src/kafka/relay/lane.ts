// One lane of the relay to Kafka: a producer, and the streams that it brings there, a transaction a round. Which lanes run is decided by `relay/lanes.ts`.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type { LaneRound, RelayLane } from "../../relay/lanes.ts"
import {
  type ReadLimits,
  type MirroredPosition,
  streamName,
  type Outbox,
  type OutboxPosition
} from "../../relay/outbox.ts"
import { type StreamHalt, RelayError, type OutboxStream } from "../../relay/target.ts"
import { isMoved } from "../protocol/client.ts"
import { KafkaFailure, reasonOf, typeOf } from "../protocol/errors.ts"
import type { Options } from "../protocol/options.ts"
import { groupOf, type Halted, misfit, placeOf, unadoptable } from "./position.ts"
import { Press, type Work } from "./transaction-builder.ts"
import { isFenced, type Offset, PartitionRefused, TransactionalProducer } from "../protocol/transactional-producer.ts"

/** What all lanes of a relay share. */
export interface Setting {
  readonly target: string
  /** Of groups and transactional ids. */
  readonly prefix: string
  readonly kafka: Options
  readonly outbox: Outbox["Service"]
  readonly accepts: (topic: string) => boolean
  readonly bounds: ReadLimits
  /** How long an offset may go unwritten, in milliseconds. */
  readonly refreshMs: number
}

/** How often a position that does not fit is looked at again. */
const wrongMs = 1_000
/** How long positions may wait that only passed over segments of other targets. */
const passMs = 1_000
/** What a person must set right. */
const fatal =
  /^(SASL_.*|.*_AUTHORIZATION_FAILED|UNSUPPORTED_.*|ILLEGAL_SASL_STATE|INVALID_TRANSACTION_TIMEOUT|ENOTFOUND|CERT_.*|DEPTH_.*|SELF_SIGNED.*|UNABLE_TO_.*|ERR_.*|EPROTO)$/

/** A stream while a lane has it. */
interface State {
  place: OutboxPosition
  /** The sequence that Kafka has. */
  kept: number
  /** When it was written there. */
  keptAt: number
  /** Where the position itself is wrong, until it is looked at again. */
  wrong: Halted | undefined
  wrongUntil: number
}
/** A lane. Rounds are made one after another. */
export class Lane implements RelayLane {
  private readonly setting: Setting
  private readonly id: string
  /** Fails where the grouping is not the one that this lane belongs to any more. */
  private readonly current: Effect.Effect<void, RelayError>
  private producer: TransactionalProducer | undefined
  private readonly states = new Map<string, State>()
  private prepared: Work | undefined
  private readonly press: Press
  /** Reasons as the database has them. */
  private readonly marked = new Map<string, string>()
  private reasons: ReadonlyMap<string, string> = new Map()
  /** Whether somebody else has taken the id over. */
  fenced = false

  constructor(setting: Setting, id: string, current: Effect.Effect<void, RelayError>) {
    this.setting = setting
    this.id = id
    this.current = current
    this.press = new Press(setting.accepts, setting.kafka.compression ?? "none")
  }

  /** The streams that stand still. */
  get halted(): ReadonlyArray<StreamHalt> {
    return [...this.reasons].flatMap(([name, reason]) => {
      const state = this.states.get(name)
      if (state === undefined) return []
      const { partition, projection, source } = state.place
      return [{ projection, source, partition, reason }]
    })
  }
  /** Gives the producer up, with what it has under way; the next round begins with another one. */
  close(): void {
    this.producer?.close()
    this.producer = undefined
    this.prepared = undefined
    this.states.clear()
  }

  /** One transaction at most, with what follows the lane's streams. After a failure everything begins anew. */
  readonly round = (streams: ReadonlyArray<MirroredPosition>): Effect.Effect<LaneRound, RelayError> =>
    this.step(streams).pipe(Effect.tapError(() => Effect.sync(() => this.close())))

  private attempt<A>(run: () => Promise<A>): Effect.Effect<A, RelayError> {
    return Effect.tryPromise({ try: run, catch: (cause) => this.failure(cause) })
  }
  private failure(cause: unknown): RelayError {
    if (cause instanceof RelayError) return cause
    const fenced = isFenced(cause)
    this.fenced ||= fenced
    const [retryable, reason] = fenced
      ? [true, `another relay took ${this.id} over, or the transaction took too long`]
      : reasonOf(cause)
    // a new producer may succeed where nothing has to be set right by hand
    const again = retryable || (!(cause instanceof KafkaFailure) && typeOf(cause) !== "" && !fatal.test(typeOf(cause)))
    return new RelayError({ target: this.setting.target, operation: "publish", retryable: again, reason, cause })
  }

  private readonly step = Effect.fnUntraced(function* (
    this: Lane,
    streams: ReadonlyArray<MirroredPosition>
  ): Effect.fn.Return<LaneRound, RelayError> {
    const producer = (this.producer ??= yield* this.start())
    yield* this.admit(producer, streams)
    const ready = this.prepared
    this.prepared = undefined
    // what found nothing is old by now
    const work = ready !== undefined && ready.batches.length > 0 ? ready : yield* this.prepare(producer, new Map())
    yield* this.mark(work.halted)
    const due = this.due(work)
    if (due.length === 0 && work.batches.length === 0) {
      this.advance(work.after)
      return { messages: 0, more: work.more }
    }
    const ahead = work.more ? yield* Effect.forkChild(this.prepare(producer, work.after)) : undefined
    const sent = yield* Effect.exit(this.attempt(() => this.send(producer, work, due)))
    if (Exit.isFailure(sent) || sent.value) {
      // it uses what is given up now
      if (ahead !== undefined) yield* Fiber.await(ahead)
      this.close()
      yield* sent
      return { messages: 0, more: true }
    }
    this.advance(work.after)
    const keptAt = performance.now()
    for (const place of due) Object.assign(this.states.get(streamName(place))!, { kept: place.seq, keptAt })
    const { outbox, target } = this.setting
    yield* outbox.move(target, due)
    for (const place of due) this.marked.delete(streamName(place))
    if (ahead !== undefined) this.prepared = yield* Fiber.join(ahead)
    return { messages: work.messages, more: work.more }
  })

  /** A new producer, which ends what its predecessor had under way. Only then are positions read. */
  private readonly start = Effect.fnUntraced(function* (
    this: Lane
  ): Effect.fn.Return<TransactionalProducer, RelayError> {
    this.close()
    const producer = yield* this.attempt(() => TransactionalProducer.take(this.setting.kafka, this.id))
    this.fenced = false
    // read after the id was taken: whoever changes the grouping later takes the id over later
    yield* this.current.pipe(Effect.tapError(() => Effect.sync(() => producer.close())))
    return producer
  })

  /** Reads the positions of streams that are new here, and of those whose position is wrong. */
  private readonly admit = Effect.fnUntraced(function* (
    this: Lane,
    producer: TransactionalProducer,
    streams: ReadonlyArray<MirroredPosition>
  ): Effect.fn.Return<void, RelayError> {
    const now = performance.now()
    const unknown = new Set<string>()
    for (const stream of streams) {
      const state = this.states.get(streamName(stream))
      if (state === undefined || (state.wrong !== undefined && state.wrongUntil < now)) unknown.add(streamName(stream))
    }
    if (unknown.size === 0) return
    const { outbox, prefix, target } = this.setting
    // read anew, and before Kafka's, which it cannot be ahead of: the id is this lane's
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
        this.admitted(mirrored, placeOf(mirrored, group, offsets.get(`${source}/${partition}`)))
      }
    }
  })
  private admitted(mirrored: MirroredPosition, place: OutboxPosition | Halted) {
    const name = streamName(mirrored)
    const wrong = "reason" in place ? place : undefined
    if (mirrored.halted !== undefined) this.marked.set(name, mirrored.halted)
    this.states.set(name, {
      place: "reason" in place ? mirrored : place,
      kept: ("reason" in place ? mirrored : place).seq,
      // not known: written with the first transaction
      keptAt: -Infinity,
      wrong,
      wrongUntil: performance.now() + wrongMs
    })
  }
  /**
   * Takes positions over to Kafka at a person's word, in a transaction that has nothing else: whatever becomes of it, it may be done
   * again as long as nothing was shipped after it.
   */
  private readonly adopt = Effect.fnUntraced(function* (
    this: Lane,
    producer: TransactionalProducer,
    mirror: ReadonlyArray<MirroredPosition>
  ): Effect.fn.Return<void, RelayError> {
    if (mirror.length === 0) return
    const { outbox, target } = this.setting
    const following = yield* outbox.read(target, mirror, { segments: 1, streamBytes: 1, bytes: 1 }, [])
    const places: Array<OutboxPosition> = []
    for (const [i, { place, there }] of following.entries()) {
      const { partition, projection, seq, source } = place
      const found = unadoptable(place, there) ?? { projection, source, partition, seq, incarnation: there }
      this.admitted(mirror[i]!, found)
      if (!("reason" in found)) places.push(found)
    }
    if (places.length === 0) return
    yield* this.attempt(() => producer.commit([], this.offsetsOf(places)))
    yield* outbox.move(target, places)
  })

  /** Reads what follows and encodes it. `ahead`: where streams will stand that are under way. */
  private readonly prepare = Effect.fnUntraced(function* (
    this: Lane,
    producer: TransactionalProducer,
    ahead: ReadonlyMap<string, OutboxPosition>
  ): Effect.fn.Return<Work, RelayError> {
    const { bounds, outbox, target } = this.setting
    const halted = new Map<string, string>()
    const places: Array<OutboxPosition> = []
    for (const [name, { place, wrong }] of this.states) {
      if (wrong === undefined) places.push(ahead.get(name) ?? place)
      else halted.set(name, wrong.reason)
    }
    const following = yield* outbox.read(target, places, bounds, this.press.passed)
    for (const one of following) {
      const wrong = misfit(one)
      if (wrong === undefined) continue
      halted.set(streamName(one.place), wrong.reason)
      Object.assign(this.states.get(streamName(one.place))!, { wrong, wrongUntil: performance.now() + wrongMs })
    }
    const fitting = following.filter(({ place }) => !halted.has(streamName(place)))
    const work = yield* this.attempt(() => this.press.make(producer.client, fitting))
    return { ...work, halted: new Map([...halted, ...work.halted]) }
  })

  /** Streams whose position goes into the transaction: where records do, where it waited long enough, or was not written for long. */
  private due(work: Work): ReadonlyArray<OutboxPosition> {
    const now = performance.now()
    const due: Array<OutboxPosition> = []
    for (const [name, state] of this.states) {
      if (state.wrong !== undefined || (work.halted.has(name) && !work.after.has(name))) continue
      const place = work.after.get(name) ?? state.place
      if (place.incarnation === undefined) continue
      const waited = now - state.keptAt
      const moved = place.seq > state.kept
      if (moved ? work.batches.length > 0 || waited > passMs : waited > this.setting.refreshMs) due.push(place)
    }
    return due
  }
  private advance(after: ReadonlyMap<string, OutboxPosition>) {
    for (const [name, place] of after) this.states.get(name)!.place = place
  }

  /** Places as offsets, by group. */
  private offsetsOf(places: ReadonlyArray<OutboxPosition>): ReadonlyMap<string, ReadonlyArray<Offset>> {
    const offsets = new Map<string, Array<Offset>>()
    for (const { incarnation = "", partition, projection, seq, source } of places) {
      const group = groupOf(this.setting.prefix, projection)
      const offset = { topic: source, partition, offset: seq, metadata: incarnation }
      const list = offsets.get(group)
      if (list === undefined) offsets.set(group, [offset])
      else list.push(offset)
    }
    return offsets
  }
  /** Commits. Whether a broker refused a batch for what it is: then the next round goes around it. */
  private async send(
    producer: TransactionalProducer,
    work: Work,
    due: ReadonlyArray<OutboxPosition>
  ): Promise<boolean> {
    try {
      await producer.commit(work.batches, this.offsetsOf(due))
      return false
    } catch (cause) {
      if (!(cause instanceof PartitionRefused) || isMoved(cause) || isFenced(cause)) throw cause
      this.press.refused(work, cause)
      return true
    }
  }
  /** Writes down what has halted, or goes on, since it was last written. */
  private readonly mark = Effect.fnUntraced(function* (
    this: Lane,
    halted: ReadonlyMap<string, string>
  ): Effect.fn.Return<void, RelayError> {
    this.reasons = halted
    const { outbox, target } = this.setting
    const news: Array<OutboxStream & { reason: string | undefined }> = this.halted.filter(
      (halt) => this.marked.get(streamName(halt)) !== halt.reason
    )
    for (const name of this.marked.keys()) {
      const state = this.states.get(name)
      if (state !== undefined && !halted.has(name)) news.push({ ...state.place, reason: undefined })
    }
    if (news.length === 0) return
    yield* outbox.halt(target, news)
    for (const { reason, ...stream } of news) {
      if (reason === undefined) this.marked.delete(streamName(stream))
      else this.marked.set(streamName(stream), reason)
    }
  })
}
