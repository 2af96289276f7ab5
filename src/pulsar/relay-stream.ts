// A stream on its way to Pulsar: what was read of it, by segment, until each message is there; and how far that makes its position. No I/O but its channels'.
import { partitionOf } from "../murmur2.ts"
import {
  type Following,
  type Mirrored,
  nameOf,
  type Parked,
  type Place,
  type Segment,
  type TopicPlace
} from "../outbox.ts"
import type { Stream } from "../relay-target.ts"
import type { Cluster } from "./fanout.ts"
import { failureOf } from "./errors.ts"
import { Channel, type Host, type Mark } from "./relay-channel.ts"
import { type Destination, type Message, messagesOf, metaOf } from "./relay-decode.ts"
import { gap, misfit, producerName, repair } from "./relay-position.ts"
import { localName, partsOf } from "./parts.ts"

/** What all streams of a relay share. */
export interface Setting {
  readonly cluster: Cluster
  readonly prefix: string
  readonly accepts: (topic: string) => boolean
  readonly topicFor: Destination["topicFor"]
  /** Topics by name that get batches. */
  readonly batched: ReadonlySet<string>
  /** Messages and bytes of a stream that may be under way, or wait for a topic that does not take them. */
  readonly inFlight: number
  readonly inFlightBytes: number
  readonly topicPlace: (begin: TopicPlace) => Promise<TopicPlace>
  readonly holds: () => boolean
  /** Runs what connects when it is its turn. */
  readonly inTurn: <A>(run: () => Promise<A>) => Promise<A>
  /** Something moved. */
  readonly moved: () => void
}
/** What is to be written down of a stream. */
export interface Progress {
  readonly places: ReadonlyArray<TopicPlace>
  readonly parked: ReadonlyArray<Parked>
  /** Its position, where that moved. */
  readonly place: Place | undefined
}

interface Underway {
  readonly place: Place
  /** Messages that are not there yet. */
  left: number
}
/** A topic by its partitions; undefined: not known yet. */
interface Route {
  channels: ReadonlyArray<Channel> | undefined
  waiting: Array<Message>
  asking: boolean
  trouble: string | undefined
}
const askAgainMs = 1_000

/** A stream that a relay has. Messages of a key and a topic go in order; a topic that takes none holds back its own only. */
export class StreamRelay {
  readonly name: string
  /** Why it stands still; others flow. It is to be made anew then. */
  broken: string | undefined
  private readonly stream: Stream
  private readonly setting: Setting
  private readonly generation: number
  private readonly from: number
  private readonly underway: Array<Underway> = []
  private readonly bySeq = new Map<number, Underway>()
  private readonly routes = new Map<string, Route>()
  private readonly timers = new Set<NodeJS.Timeout>()
  private parked: Array<Parked> = []
  private reached: Place | undefined
  private bytes = 0
  private ended = false
  private hasRead = false
  /** Where reading goes on. */
  readAt: Place
  /** Messages that came to be there since it was last looked at. */
  shipped = 0

  constructor(setting: Setting, mirrored: Mirrored) {
    const { adopt, generation, incarnation, partition, projection, seq, source } = mirrored
    this.setting = setting
    this.stream = { projection, source, partition }
    this.name = nameOf(mirrored)
    this.generation = generation + (adopt ? 1 : 0)
    this.from = seq
    this.readAt = { ...this.stream, seq, incarnation }
  }

  /** Whether more may be read. */
  get hasRoom(): boolean {
    const { inFlight, inFlightBytes } = this.setting
    return this.broken === undefined && this.bySeq.size < inFlight && this.bytes < inFlightBytes
  }
  /** Whether it has nothing to do, as far as it was told. */
  get isIdle(): boolean {
    return this.hasRead && this.broken === undefined && this.bySeq.size === 0
  }
  /** Why it, or a topic of it, does not go on. */
  get obstacle(): string | undefined {
    if (this.broken !== undefined) return this.broken
    for (const { channels = [], trouble } of this.routes.values()) {
      const found = trouble ?? channels.map(({ obstacle }) => obstacle).find((reason) => reason !== undefined)
      if (found !== undefined) return found
    }
    return undefined
  }

  /** Takes what was read of it. */
  push(following: Following): void {
    this.hasRead = true
    const reason = misfit(following)
    if (reason !== undefined) this.broken ??= `${reason}. ${repair(this.stream)}`
    for (const segment of this.broken === undefined ? following.segments : []) {
      this.broken ??= gap(this.readAt.seq + 1, segment)
      if (this.broken !== undefined) return
      this.take(segment)
    }
  }
  private take(segment: Segment): void {
    const { firstSeq, incarnation, messages } = segment
    const accepted = this.setting.accepts(segment.topic)
    const place = { ...this.stream, seq: firstSeq + messages - 1, incarnation }
    try {
      const { namespace, tenant } = this.setting.cluster.options
      const found = accepted
        ? messagesOf(segment, this.name, { namespace, tenant, topicFor: this.setting.topicFor })
        : []
      const one = { place, left: found.length }
      this.underway.push(one)
      for (const message of found) {
        this.bySeq.set(message.seq, one)
        this.bytes += message.value.length
      }
      const sendable = found.filter(({ refusal }) => refusal === undefined)
      for (const [topic, some] of Map.groupBy(sendable, (message) => message.topic)) this.send(topic, some)
      for (const message of found) if (message.refusal !== undefined) this.done(message.topic, message, message.refusal)
      this.readAt = place
      this.advance()
    } catch (cause) {
      if (!(cause instanceof SyntaxError)) throw cause
      this.broken = `the segment of message ${firstSeq} is broken: ${cause.message}`
    }
  }
  /** Sends what may be sent now. */
  pump(): void {
    for (const { channels = [] } of this.routes.values()) for (const channel of channels) channel.pump()
  }

  private send(topic: string, messages: ReadonlyArray<Message>): void {
    let route = this.routes.get(topic)
    if (route === undefined)
      this.routes.set(topic, (route = { channels: undefined, waiting: [], asking: false, trouble: undefined }))
    if (route.channels === undefined) {
      for (const message of messages) route.waiting.push(message)
      void this.ask(topic, route)
    } else this.deal(route.channels, messages)
  }
  private deal(channels: ReadonlyArray<Channel>, messages: ReadonlyArray<Message>): void {
    if (channels.length === 1) return channels[0]!.push(messages)
    for (const [i, some] of Map.groupBy(messages, ({ key }) => partitionOf(key, channels.length)))
      channels[i]!.push(some)
  }
  /** How many partitions the topic had when the stream first came there: with others, keys would change theirs. */
  private async ask(topic: string, route: Route): Promise<void> {
    if (route.asking || this.ended) return
    route.asking = true
    try {
      const { admin, transport } = this.setting.cluster
      const now = (await (admin === undefined ? transport.partitions?.(topic) : admin.partitions(topic))) ?? 0
      const kept = now === 0 ? 0 : (await this.mark(topic, { seq: 0, sent: now, place: "" })).sent
      if (this.ended) return
      const names = partsOf(topic, kept)
      route.channels = names.map((name) => new Channel(this.host(name), name))
      route.trouble = undefined
      this.deal(route.channels, route.waiting)
      route.waiting = []
    } catch (cause) {
      const failure = failureOf(cause, topic)
      route.trouble = failure.message
      const timer = setTimeout(() => {
        this.timers.delete(timer)
        route.asking = false
        void this.ask(topic, route)
      }, askAgainMs)
      this.timers.add(timer)
      this.setting.moved()
    }
  }
  private mark(topic: string, begin: Mark): Promise<TopicPlace> {
    return this.setting.topicPlace({ ...this.stream, generation: this.generation, topic, ...begin })
  }
  private host(topic: string): Host {
    const { batched, cluster, holds, inTurn, moved, prefix } = this.setting
    return {
      cluster,
      stream: this.name,
      name: producerName(prefix, this.name, this.generation),
      from: this.from,
      batching: batched.has(localName(topic)),
      mark: (begin) => this.mark(topic, begin),
      inTurn,
      holds,
      done: (message, reason) => this.done(topic, message, reason),
      broken: (reason) => {
        this.broken ??= `${reason}. ${repair(this.stream)}`
        moved()
      }
    }
  }

  private done(topic: string, message: Message, reason: string | undefined): void {
    const { incarnation, key, seq, value } = message
    const one = this.bySeq.get(seq)
    if (one === undefined) return
    this.bySeq.delete(seq)
    this.bytes -= message.value.length
    one.left -= 1
    if (reason === undefined) this.shipped += 1
    else this.parked.push({ ...this.stream, seq, incarnation, topic, key, meta: metaOf(message), val: value, reason })
    if (one.left === 0) this.advance()
  }
  private advance(): void {
    let count = 0
    for (; this.underway[count]?.left === 0; count++) this.reached = this.underway[count]!.place
    if (count === 0) return
    this.underway.splice(0, count)
    this.setting.moved()
  }

  /** What is to be written down. The position must not be written before the rest. */
  takeProgress(): Progress {
    const places: Array<TopicPlace> = []
    for (const { channels = [] } of this.routes.values())
      for (const channel of channels) {
        const mark = channel.takeMark()
        if (mark !== undefined)
          places.push({ ...this.stream, generation: this.generation, topic: channel.topic, ...mark })
      }
    const { parked, reached: place } = this
    this.parked = []
    this.reached = undefined
    return { places, parked, place }
  }
  /** Sends nothing more. Answers when its connections are given up. */
  async close(): Promise<void> {
    this.ended = true
    for (const timer of this.timers) clearTimeout(timer)
    await Promise.all(
      [...this.routes.values()].flatMap(({ channels = [] }) => channels.map((channel) => channel.close()))
    )
  }
}
