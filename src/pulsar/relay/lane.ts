// One lane of the relay to Pulsar: the streams that it has, what is read for them and written down of them. Which lanes run is decided by `relay/lanes.ts`.
import * as Effect from "effect/Effect"
import type { LaneRound, RelayLane } from "../../relay/lanes.ts"
import {
  type ReadLimits,
  type MirroredPosition,
  streamName,
  type Outbox,
  type ParkedMessage,
  type OutboxPosition,
  type TopicPosition
} from "../../relay/outbox.ts"
import type { StreamHalt, RelayError, OutboxStream } from "../../relay/target.ts"
import { type Setting as StreamSetting, StreamRelay } from "./stream.ts"

/** What all lanes of a relay share. */
export interface Setting extends StreamSetting {
  readonly target: string
  readonly outbox: Outbox["Service"]
  readonly bounds: ReadLimits
}
interface Broken {
  readonly closed: Promise<void>
  readonly until: number
  readonly stream: OutboxStream
}

/** How long a stream whose position is wrong rests before it is looked at again. */
const brokenMs = 1_000

/** A lane. Rounds are made one after another; what they begin goes on between them. */
export class Lane implements RelayLane {
  private readonly setting: Setting
  private readonly streams = new Map<string, StreamRelay>()
  private readonly at = new Map<string, OutboxStream>()
  private readonly broken = new Map<string, Broken>()
  private readonly passed = new Set<string>()
  /** Why streams stand still, and the same as the database has it. */
  private readonly reasons = new Map<string, string>()
  private readonly marked = new Map<string, string>()
  // not written down yet
  private readonly places = new Map<string, TopicPosition>()
  private readonly positions = new Map<string, OutboxPosition>()
  private parked: Array<ParkedMessage> = []

  constructor(setting: Setting) {
    this.setting = setting
  }

  /** The streams that stand still. */
  get halted(): ReadonlyArray<StreamHalt> {
    const found: Array<StreamHalt> = []
    for (const [name, reason] of this.reasons) found.push({ ...this.at.get(name)!, reason })
    return found
  }

  /** Writes down how far streams came, and reads what follows. */
  readonly round = Effect.fnUntraced(function* (
    this: Lane,
    streams: ReadonlyArray<MirroredPosition>
  ): Effect.fn.Return<LaneRound, RelayError> {
    const messages = yield* this.write()
    yield* this.admit(streams)
    yield* this.relieve()
    const more = yield* this.read()
    yield* this.tell()
    return { messages, more }
  })
  /** Sends nothing more, and writes down how far it came, if it can. */
  readonly close = Effect.fnUntraced(function* (this: Lane) {
    const closing = [...this.streams.values()].map((stream) => stream.close())
    yield* Effect.promise(() => Promise.all([...closing, ...[...this.broken.values()].map(({ closed }) => closed)]))
    yield* Effect.ignore(this.write())
    this.streams.clear()
  })

  private readonly admit = Effect.fnUntraced(function* (this: Lane, streams: ReadonlyArray<MirroredPosition>) {
    const now = performance.now()
    for (const mirrored of streams) {
      const name = streamName(mirrored)
      const { partition, projection, source } = mirrored
      const stream = this.streams.get(name)
      if (stream?.broken !== undefined) {
        // once the stream is set aside nobody else sees its reason
        this.reasons.set(name, stream.broken)
        this.streams.delete(name)
        this.broken.set(name, {
          closed: stream.close(),
          until: now + brokenMs,
          stream: { projection, source, partition }
        })
      }
      const broken = this.broken.get(name)
      if (this.streams.has(name) || (broken !== undefined && broken.until > now)) continue
      if (broken !== undefined) yield* Effect.promise(() => broken.closed)
      this.broken.delete(name)
      this.at.set(name, { projection, source, partition })
      if (mirrored.halted !== undefined) this.marked.set(name, mirrored.halted)
      this.streams.set(name, new StreamRelay(this.setting, mirrored))
    }
  })

  /** How many messages came to be there. */
  private readonly write = Effect.fnUntraced(function* (this: Lane): Effect.fn.Return<number, RelayError> {
    const { outbox, target } = this.setting
    let messages = 0
    for (const stream of this.streams.values()) {
      const { parked, place, places } = stream.takeProgress()
      for (const one of places) this.places.set(`${stream.name} ${one.topic}`, one)
      if (place !== undefined) this.positions.set(stream.name, place)
      this.parked.push(...parked)
      messages += stream.shipped
      if (stream.shipped > 0) this.reasons.delete(stream.name)
      stream.shipped = 0
    }
    if (this.places.size > 0 || this.parked.length > 0) {
      yield* outbox.keep(target, [...this.places.values()], this.parked)
      this.places.clear()
      this.parked = []
    }
    if (this.positions.size > 0) {
      yield* outbox.move(target, [...this.positions.values()])
      for (const name of this.positions.keys()) this.marked.delete(name)
      this.positions.clear()
    }
    return messages
  })

  /** Parks what waits without room for it, and may be parked. */
  private readonly relieve = Effect.fnUntraced(function* (this: Lane): Effect.fn.Return<void, RelayError> {
    const { outbox, target } = this.setting
    for (const { overflow } of this.streams.values())
      if (overflow !== undefined) overflow.settle(yield* outbox.park(target, overflow.parking))
  })

  /** Whether there is more to read at once. */
  private readonly read = Effect.fnUntraced(function* (this: Lane): Effect.fn.Return<boolean, RelayError> {
    const { accepts, bounds, outbox, target } = this.setting
    const places: Array<OutboxPosition> = []
    for (const stream of this.streams.values()) {
      stream.pump()
      if (stream.hasRoom) places.push(stream.readAt)
    }
    let more = false
    for (const following of yield* outbox.read(target, places, bounds, [...this.passed])) {
      const stream = this.streams.get(streamName(following.place))!
      for (const { topic } of following.segments) if (!accepts(topic)) this.passed.add(topic)
      stream.push(following)
      more ||= following.more && stream.hasRoom
    }
    return more
  })

  /** Writes down what has halted, or goes on, since it was last written. */
  private readonly tell = Effect.fnUntraced(function* (this: Lane): Effect.fn.Return<void, RelayError> {
    for (const [name, stream] of this.streams) {
      const { obstacle } = stream
      if (obstacle !== undefined) this.reasons.set(name, obstacle)
      else if (stream.isIdle) this.reasons.delete(name)
    }
    const news: Array<OutboxStream & { reason: string | undefined }> = []
    for (const [name, reason] of this.reasons)
      if (this.marked.get(name) !== reason) news.push({ ...this.at.get(name)!, reason })
    for (const name of this.marked.keys())
      if (!this.reasons.has(name) && this.streams.get(name)?.isIdle === true)
        news.push({ ...this.at.get(name)!, reason: undefined })
    if (news.length === 0) return
    yield* this.setting.outbox.halt(this.setting.target, news)
    for (const { reason, ...stream } of news) {
      if (reason === undefined) this.marked.delete(streamName(stream))
      else this.marked.set(streamName(stream), reason)
    }
  })
}
