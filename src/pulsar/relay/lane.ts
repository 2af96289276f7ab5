// A lane of the relay to Pulsar: reads the outbox for its streams, and records their positions, dead letters and halts. `relay/lanes.ts` decides which lanes run.
import * as Effect from "effect/Effect"
import type { LaneRound, RelayLane } from "../../relay/lanes.ts"
import {
  type ReadLimits,
  type MirroredPosition,
  overtaken,
  streamName,
  type Outbox,
  type ParkedMessage,
  type OutboxPosition,
  type TopicPosition
} from "../../relay/outbox.ts"
import type { StreamHalt, RelayError, OutboxStream } from "../../relay/target.ts"
import { StreamRelay, type StreamSettings } from "./stream.ts"

/** What all lanes of a relay share. */
export interface LaneSettings extends StreamSettings {
  readonly target: string
  readonly outbox: Outbox["Service"]
  readonly bounds: ReadLimits
}
/** A halted stream that was closed and waits to be opened again. */
interface ClosedStream {
  readonly closing: Promise<void>
  readonly until: number
  readonly stream: OutboxStream
}

/** How long a halted stream rests before it is opened again. */
const haltedMs = 1_000

/** A lane. What a round starts goes on between rounds. */
export class PulsarLane implements RelayLane {
  private readonly settings: LaneSettings
  private readonly streams = new Map<string, StreamRelay>()
  private readonly streamOf = new Map<string, OutboxStream>()
  private readonly closedStreams = new Map<string, ClosedStream>()
  private readonly skippedTopics = new Set<string>()
  /** Why streams are halted, and the same as the database has it. */
  private readonly reasons = new Map<string, string>()
  private readonly recordedReasons = new Map<string, string>()
  /** Why other streams wait for Pulsar. */
  private readonly waitingReasons = new Map<string, string>()
  // not recorded yet
  private readonly places = new Map<string, TopicPosition>()
  private readonly positions = new Map<string, OutboxPosition>()
  private parked: Array<ParkedMessage> = []

  constructor(settings: LaneSettings) {
    this.settings = settings
  }

  /** The streams that are halted. */
  get halted(): ReadonlyArray<StreamHalt> {
    return this.named(this.reasons)
  }
  /** The streams that wait because Pulsar fails in a way that may end by itself. */
  get waiting(): ReadonlyArray<StreamHalt> {
    return this.named(this.waitingReasons)
  }
  private named(reasons: ReadonlyMap<string, string>): ReadonlyArray<StreamHalt> {
    const found: Array<StreamHalt> = []
    for (const [name, reason] of reasons) found.push({ ...this.streamOf.get(name)!, reason })
    return found
  }

  /** Records how far streams came, and reads what follows. */
  readonly round = Effect.fnUntraced(function* (
    this: PulsarLane,
    streams: ReadonlyArray<MirroredPosition>
  ): Effect.fn.Return<LaneRound, RelayError> {
    const messages = yield* this.record()
    yield* this.admit(streams)
    yield* this.parkOverflow()
    const more = yield* this.read()
    yield* this.recordHalts()
    return { messages, more }
  })
  /** Stops sending, and records how far streams came if the database answers. */
  readonly close = Effect.fnUntraced(function* (this: PulsarLane) {
    const closing = [...this.streams.values()].map((stream) => stream.close())
    yield* Effect.promise(() =>
      Promise.all([...closing, ...[...this.closedStreams.values()].map(({ closing: one }) => one)])
    )
    yield* Effect.ignore(this.record())
    this.streams.clear()
  })

  private readonly admit = Effect.fnUntraced(function* (this: PulsarLane, streams: ReadonlyArray<MirroredPosition>) {
    const now = performance.now()
    for (const mirrored of streams) {
      const name = streamName(mirrored)
      const { partition, projection, source } = mirrored
      const stream = this.streams.get(name)
      if (stream !== undefined) stream.haltReason ??= overtaken(mirrored)
      if (stream?.haltReason !== undefined) {
        // after this only `reasons` has the reason of the stream
        this.reasons.set(name, stream.haltReason)
        this.waitingReasons.delete(name)
        this.streams.delete(name)
        this.closedStreams.set(name, {
          closing: stream.close(),
          until: now + haltedMs,
          stream: { projection, source, partition }
        })
      }
      const closed = this.closedStreams.get(name)
      if (this.streams.has(name) || (closed !== undefined && closed.until > now)) continue
      if (closed !== undefined) yield* Effect.promise(() => closed.closing)
      this.closedStreams.delete(name)
      this.streamOf.set(name, { projection, source, partition })
      if (mirrored.halted !== undefined) this.recordedReasons.set(name, mirrored.halted)
      const opened = new StreamRelay(this.settings, mirrored)
      opened.haltReason = overtaken(mirrored)
      this.streams.set(name, opened)
    }
  })

  /** Records progress, and returns how many messages arrived. */
  private readonly record = Effect.fnUntraced(function* (this: PulsarLane): Effect.fn.Return<number, RelayError> {
    const { outbox, target } = this.settings
    let messages = 0
    for (const stream of this.streams.values()) {
      const { parked, place, places } = stream.takeProgress()
      for (const one of places) this.places.set(`${stream.name} ${one.topic}`, one)
      if (place !== undefined) this.positions.set(stream.name, place)
      this.parked.push(...parked)
      messages += stream.shipped
      if (stream.shipped > 0) {
        this.reasons.delete(stream.name)
        this.waitingReasons.delete(stream.name)
      }
      stream.shipped = 0
    }
    if (this.places.size > 0 || this.parked.length > 0) {
      yield* outbox.keep(target, [...this.places.values()], this.parked)
      this.places.clear()
      this.parked = []
    }
    if (this.positions.size > 0) {
      yield* outbox.move(target, [...this.positions.values()])
      for (const name of this.positions.keys()) this.recordedReasons.delete(name)
      this.positions.clear()
    }
    return messages
  })

  /** Parks messages of streams that have no room left for them. */
  private readonly parkOverflow = Effect.fnUntraced(function* (this: PulsarLane): Effect.fn.Return<void, RelayError> {
    const { outbox, target } = this.settings
    for (const { overflow } of this.streams.values())
      if (overflow !== undefined) overflow.settle(yield* outbox.park(target, overflow.parking))
  })

  /** Reads the outbox, and returns whether there is more to read at once. */
  private readonly read = Effect.fnUntraced(function* (this: PulsarLane): Effect.fn.Return<boolean, RelayError> {
    const { accepts, bounds, outbox, target } = this.settings
    const places: Array<OutboxPosition> = []
    for (const stream of this.streams.values()) {
      stream.pump()
      if (stream.hasRoom) places.push(stream.readAt)
    }
    let more = false
    for (const following of yield* outbox.read(target, places, bounds, [...this.skippedTopics])) {
      const stream = this.streams.get(streamName(following.place))!
      for (const { topic } of following.segments) if (!accepts(topic)) this.skippedTopics.add(topic)
      stream.push(following)
      more ||= following.more && stream.hasRoom
    }
    return more
  })

  /** Records which streams have halted, or go on, since the last call. */
  private readonly recordHalts = Effect.fnUntraced(function* (this: PulsarLane): Effect.fn.Return<void, RelayError> {
    for (const [name, stream] of this.streams) {
      const { obstacle } = stream
      if (obstacle === undefined && !stream.isIdle) continue
      this.reasons.delete(name)
      this.waitingReasons.delete(name)
      if (obstacle !== undefined) (obstacle.retryable ? this.waitingReasons : this.reasons).set(name, obstacle.reason)
    }
    const news: Array<OutboxStream & { reason: string | undefined }> = []
    for (const [name, reason] of this.reasons)
      if (this.recordedReasons.get(name) !== reason) news.push({ ...this.streamOf.get(name)!, reason })
    for (const name of this.recordedReasons.keys())
      if (!this.reasons.has(name) && (this.waitingReasons.has(name) || this.streams.get(name)?.isIdle === true))
        news.push({ ...this.streamOf.get(name)!, reason: undefined })
    if (news.length === 0) return
    yield* this.settings.outbox.halt(this.settings.target, news)
    for (const { reason, ...stream } of news) {
      if (reason === undefined) this.recordedReasons.delete(streamName(stream))
      else this.recordedReasons.set(streamName(stream), reason)
    }
  })
}
