// A stream on its way to Pulsar: what was read of it, by segment, until each message is there; and how far that makes its position. No I/O but its channels'.
import {
  type FollowingSegments,
  type MirroredPosition,
  streamName,
  type ParkedMessage,
  type ParkRequest,
  type OutboxPosition,
  type Segment,
  type TopicPosition
} from "../../relay/outbox.ts"
import type { RelayError, OutboxStream } from "../../relay/target.ts"
import type { Cluster } from "../client/cluster.ts"
import { PulsarFailure } from "../client/errors.ts"
import { Channel, type Held, type Mark } from "./channel.ts"
import { type Destination, type Message, messagesOf, metaOf } from "./messages.ts"
import { gap, misfit, producerName, repair } from "./position.ts"
import { Route } from "./route.ts"
import { localName, namespaceOf } from "../client/topic-names.ts"

/** What all streams of a relay share. */
export interface Setting {
  readonly cluster: Cluster
  readonly prefix: string
  readonly accepts: (topic: string) => boolean
  readonly topicFor: Destination["topicFor"]
  /** Topics by name that get batches. */
  readonly batched: ReadonlySet<string>
  /** How many partitions topics are to have, by name; 1 where it is not said. */
  readonly partitions: ReadonlyMap<string, number>
  /** Whether messages of a tenant, by name, are parked where there is no room for them to wait. */
  readonly undeclared: (tenant: string) => boolean
  /** Messages and bytes of a stream that may be under way, or wait for a topic that does not take them. */
  readonly inFlight: number
  readonly inFlightBytes: number
  readonly topicPosition: (begin: TopicPosition) => Promise<TopicPosition>
  readonly holds: () => boolean
  /** Runs what connects when it is its turn. */
  readonly inTurn: <A>(run: () => Promise<A>) => Promise<A>
  /** Something moved. */
  readonly moved: () => void
}
/** What is to be written down of a stream. */
export interface Progress {
  readonly places: ReadonlyArray<TopicPosition>
  readonly parked: ReadonlyArray<ParkedMessage>
  /** Its position, where that moved. */
  readonly place: OutboxPosition | undefined
}

interface Underway {
  readonly place: OutboxPosition
  /** Messages that are not there yet. */
  left: number
}
/** Messages that may be parked instead of waiting. */
export interface Overflow {
  readonly parking: ParkRequest
  /** Those of these topics were parked. The others may not be: the stream was connected there. */
  readonly settle: (topics: ReadonlyArray<string>) => void
}

const advice = (topic: string): string =>
  `. The tenant is not declared: declare it, or run millrace pulsar apply --tenants ${namespaceOf(topic).tenant}`

/** A stream that a relay has. Messages of a key and a topic go in order; a topic that takes none holds back its own only. */
export class StreamRelay {
  readonly name: string
  /** Why it stands still; others flow. It is to be made anew then. */
  broken: string | undefined
  private readonly stream: OutboxStream
  private readonly setting: Setting
  private readonly generation: number
  private readonly from: number
  private readonly underway: Array<Underway> = []
  private readonly bySeq = new Map<number, Underway>()
  private readonly routes = new Map<string, Route>()
  private parked: Array<ParkedMessage> = []
  private reached: OutboxPosition | undefined
  private bytes = 0
  private hasRead = false
  /** Where reading goes on. */
  readAt: OutboxPosition
  /** Messages that came to be there since it was last looked at. */
  shipped = 0

  constructor(setting: Setting, mirrored: MirroredPosition) {
    const { adopt, generation, incarnation, partition, projection, seq, source } = mirrored
    this.setting = setting
    this.stream = { projection, source, partition }
    this.name = streamName(mirrored)
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
    for (const { obstacle } of this.routes.values()) if (obstacle !== undefined) return obstacle
    return undefined
  }

  /** Takes what was read of it. */
  push(following: FollowingSegments): void {
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
    for (const route of this.routes.values()) route.pump()
  }

  private send(topic: string, messages: ReadonlyArray<Message>): void {
    let route = this.routes.get(topic)
    if (route === undefined) this.routes.set(topic, (route = this.route(topic)))
    route.push(messages)
  }
  private route(topic: string): Route {
    const { cluster, inTurn, moved } = this.setting
    const mark = (of: string, begin: Mark) => this.mark(of, begin)
    const channel = (part: string, from: number) => this.channel(part, from)
    const undeclared = this.setting.undeclared(namespaceOf(topic).tenant)
    const partitions = this.setting.partitions.get(localName(topic)) ?? 1
    return new Route({ cluster, partitions, undeclared, advice: advice(topic), mark, channel, inTurn, moved }, topic)
  }
  private async mark(topic: string, begin: Mark): Promise<TopicPosition> {
    try {
      return await this.setting.topicPosition({ ...this.stream, generation: this.generation, topic, ...begin })
    } catch (cause) {
      // what a database says of itself is not to be taken for what Pulsar says
      const { message, retryable } = cause as RelayError
      throw new PulsarFailure("other", retryable, message, cause)
    }
  }
  private channel(topic: string, from: number): Channel {
    const { batched, cluster, holds, inTurn, moved, prefix } = this.setting
    return new Channel(
      {
        cluster,
        stream: this.name,
        name: producerName(prefix, this.name, this.generation),
        from: this.from,
        batching: batched.has(localName(topic)),
        mark: (begin) => this.mark(topic, { ...begin, seq: from }),
        inTurn,
        holds,
        done: (message, reason) => this.done(topic, message, reason),
        broken: (reason) => {
          this.broken ??= `${reason}. ${repair(this.stream)}`
          moved()
        }
      },
      topic
    )
  }

  /** What may be parked, where there is no room left: all that waits for topics of undeclared tenants that take nothing. */
  get overflow(): Overflow | undefined {
    if (this.broken !== undefined || this.hasRoom) return undefined
    const found = [...this.routes.values()].flatMap((route) => route.held.map((held) => ({ route, held })))
    if (found.length === 0) return undefined
    const parked = found.flatMap(({ held: { failure, messages, topic } }) => {
      const reason = `${failure.message}${advice(topic)}. Then: millrace dlq retry --kind relay`
      return messages.map((message) => this.parkedOf(topic, message, reason))
    })
    const topics = found.map(({ held: { messages, topic } }) => ({ topic, seq: messages.at(-1)!.seq }))
    return {
      parking: { ...this.stream, generation: this.generation, topics, parked },
      settle: (names) => {
        const closed = new Set(names)
        for (const { held, route } of found) this.relieved(route, held, closed.has(held.topic))
      }
    }
  }
  private relieved(route: Route, held: Held, parked: boolean): void {
    if (!parked) return route.keep(held)
    // whoever can name tenants would fill the memory with routes
    if (route.forget(held) && this.routes.delete(route.topic)) void route.close()
    for (const message of held.messages) this.settle(message)
  }

  private done(topic: string, message: Message, reason: string | undefined): void {
    if (!this.bySeq.has(message.seq)) return
    if (reason === undefined) this.shipped += 1
    else this.parked.push(this.parkedOf(topic, message, reason))
    this.settle(message)
  }
  private parkedOf(topic: string, message: Message, reason: string): ParkedMessage {
    const { incarnation, key, seq, value } = message
    return { ...this.stream, seq, incarnation, topic, key, meta: metaOf(message), val: value, reason }
  }
  private settle({ seq, value }: Message): void {
    const one = this.bySeq.get(seq)
    if (one === undefined) return
    this.bySeq.delete(seq)
    this.bytes -= value.length
    one.left -= 1
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
    const places: Array<TopicPosition> = []
    for (const route of this.routes.values())
      for (const mark of route.takeMarks()) places.push({ ...this.stream, generation: this.generation, ...mark })
    const { parked, reached: place } = this
    this.parked = []
    this.reached = undefined
    return { places, parked, place }
  }
  /** Sends nothing more. Answers when its connections are given up. */
  async close(): Promise<void> {
    await Promise.all([...this.routes.values()].map((route) => route.close()))
  }
}
