// Relays one stream to Pulsar: takes segments of the outbox, sends their messages by topic, and moves the stream's position when all of a segment arrived.
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
import { describeError } from "../../dead-letter/event-failure.ts"
import type { RelayError, OutboxStream } from "../../relay/target.ts"
import type { Cluster } from "../client/cluster.ts"
import { PulsarFailure } from "../client/errors.ts"
import { Channel, type ChannelPosition, type Obstacle, type ParkableMessages, worstOf } from "./channel.ts"
import { type TopicMapping, type RelayMessage, messagesOf, metaOf } from "./messages.ts"
import { positionMismatch, producerName, repairAdvice, segmentGap } from "./position.ts"
import { Route } from "./route.ts"
import { localName, namespaceOf } from "../client/topic-names.ts"

/** What all streams of a relay share. */
export interface StreamSettings {
  readonly cluster: Cluster
  readonly prefix: string
  readonly accepts: (topic: string) => boolean
  readonly topicFor: TopicMapping["topicFor"]
  /** Local names of topics that get batches. */
  readonly batched: ReadonlySet<string>
  /** How many partitions topics are declared with, by local name; 1 for the others. */
  readonly partitions: ReadonlyMap<string, number>
  /** Whether a tenant is not declared: its messages are parked when there is no room for them to wait. */
  readonly undeclared: (tenant: string) => boolean
  /** How many messages and bytes of a stream may be in flight or wait for a topic that refuses them. */
  readonly inFlight: number
  readonly inFlightBytes: number
  readonly topicPosition: (begin: TopicPosition) => Promise<TopicPosition>
  readonly holds: () => boolean
  /** Limits how much runs at once: see `ChannelHost.inTurn`. */
  readonly inTurn: <A>(run: () => Promise<A>) => Promise<A>
  /** Called for each attempt to connect or to send that failed and is repeated. */
  readonly failed: () => void
  /** Called when there is something to record or to look at. */
  readonly moved: () => void
}
/** What is to be recorded about a stream. */
export interface StreamProgress {
  readonly places: ReadonlyArray<TopicPosition>
  readonly parked: ReadonlyArray<ParkedMessage>
  /** The stream's position, if it moved. */
  readonly place: OutboxPosition | undefined
}

/** A segment whose messages have not all arrived. */
interface SegmentInFlight {
  readonly place: OutboxPosition
  /** How many messages have not arrived. */
  left: number
}
/** Messages to park because there is no room for them to wait. */
export interface Overflow {
  readonly parking: ParkRequest
  /** To be called with the topics whose messages were parked. The messages of the other topics stay, because the stream was connected there. */
  readonly settle: (topics: ReadonlyArray<string>) => void
}

const advice = (topic: string): string =>
  `. The tenant is not declared: declare it, or run millrace pulsar apply --tenants ${namespaceOf(topic).tenant}`

/** A stream of a relay. Messages of one key for one topic go in order. A topic that refuses messages holds back its own messages only. */
export class StreamRelay {
  readonly name: string
  /** Why the stream is halted. It then has to be closed and opened again. */
  haltReason: string | undefined
  private readonly stream: OutboxStream
  private readonly settings: StreamSettings
  private readonly generation: number
  private readonly from: number
  private readonly inFlight: Array<SegmentInFlight> = []
  private readonly bySeq = new Map<number, SegmentInFlight>()
  private readonly routes = new Map<string, Route>()
  private parked: Array<ParkedMessage> = []
  private reached: OutboxPosition | undefined
  private bytes = 0
  private hasRead = false
  /** Where to continue reading the outbox. */
  readAt: OutboxPosition
  /** Messages that arrived since this was last reset. */
  shipped = 0

  constructor(settings: StreamSettings, mirrored: MirroredPosition) {
    const { adopt, generation, incarnation, partition, projection, seq, source } = mirrored
    this.settings = settings
    this.stream = { projection, source, partition }
    this.name = streamName(mirrored)
    this.generation = generation + (adopt ? 1 : 0)
    this.from = seq
    this.readAt = { ...this.stream, seq, incarnation }
  }

  /** Whether there is room to read more. */
  get hasRoom(): boolean {
    const { inFlight, inFlightBytes } = this.settings
    return this.haltReason === undefined && this.bySeq.size < inFlight && this.bytes < inFlightBytes
  }
  /** Whether everything that was read has arrived. */
  get isIdle(): boolean {
    return this.hasRead && this.haltReason === undefined && this.bySeq.size === 0
  }
  /** Why the stream, or one of its topics, does not go on. */
  get obstacle(): Obstacle | undefined {
    if (this.haltReason !== undefined) return { reason: this.haltReason, retryable: false }
    return worstOf([...this.routes.values()].map(({ obstacle }) => obstacle))
  }

  /** Takes what was read from the outbox. */
  push(following: FollowingSegments): void {
    this.hasRead = true
    const reason = positionMismatch(following)
    if (reason !== undefined) this.haltReason ??= `${reason}. ${repairAdvice(this.stream)}`
    for (const segment of this.haltReason === undefined ? following.segments : []) {
      this.haltReason ??= segmentGap(this.readAt.seq + 1, segment)
      if (this.haltReason !== undefined) return
      this.take(segment)
    }
  }
  private take(segment: Segment): void {
    const { firstSeq, incarnation, messages } = segment
    const accepted = this.settings.accepts(segment.topic)
    const place = { ...this.stream, seq: firstSeq + messages - 1, incarnation }
    try {
      const { namespace, tenant } = this.settings.cluster.options
      const found = accepted
        ? messagesOf(segment, this.name, { namespace, tenant, topicFor: this.settings.topicFor })
        : []
      const one = { place, left: found.length }
      this.inFlight.push(one)
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
      // whatever it is, it is about this segment: other streams must go on
      this.haltReason = `the segment of message ${firstSeq} is malformed: ${describeError(cause).message}`
    }
  }
  /** Sends what may be sent now. */
  pump(): void {
    for (const route of this.routes.values()) route.pump()
  }

  private send(topic: string, messages: ReadonlyArray<RelayMessage>): void {
    let route = this.routes.get(topic)
    if (route === undefined) this.routes.set(topic, (route = this.route(topic)))
    route.push(messages)
  }
  private route(topic: string): Route {
    const { cluster, failed, inTurn, moved } = this.settings
    const recordedPosition = (of: string, initial: ChannelPosition) => this.recordedPosition(of, initial)
    const channel = (partition: string, from: number) => this.channel(partition, from)
    const undeclared = this.settings.undeclared(namespaceOf(topic).tenant)
    const partitions = this.settings.partitions.get(localName(topic)) ?? 1
    return new Route(
      { cluster, partitions, undeclared, advice: advice(topic), recordedPosition, channel, inTurn, failed, moved },
      topic
    )
  }
  private async recordedPosition(topic: string, initial: ChannelPosition): Promise<TopicPosition> {
    try {
      return await this.settings.topicPosition({ ...this.stream, generation: this.generation, topic, ...initial })
    } catch (cause) {
      // the database's error must not be classified by its text as if it were Pulsar's
      const { message, retryable } = cause as RelayError
      throw new PulsarFailure("other", retryable, message, cause)
    }
  }
  private channel(topic: string, from: number): Channel {
    const { batched, cluster, failed, holds, inTurn, moved, prefix } = this.settings
    return new Channel(
      {
        cluster,
        stream: this.name,
        name: producerName(prefix, this.name, this.generation),
        from: this.from,
        batching: batched.has(localName(topic)),
        recordedPosition: (initial) => this.recordedPosition(topic, { ...initial, seq: from }),
        inTurn,
        holds,
        failed,
        done: (message, reason) => this.done(topic, message, reason),
        halt: (reason) => {
          this.haltReason ??= `${reason}. ${repairAdvice(this.stream)}`
          moved()
        }
      },
      topic
    )
  }

  /** If there is no room left: all messages that wait for refused topics of tenants that are not declared. */
  get overflow(): Overflow | undefined {
    if (this.haltReason !== undefined || this.hasRoom) return undefined
    const found = [...this.routes.values()].flatMap((route) => route.parkable.map((parkable) => ({ route, parkable })))
    if (found.length === 0) return undefined
    const parked = found.flatMap(({ parkable: { failure, messages, topic } }) => {
      const reason = `${failure.message}${advice(topic)}. Then: millrace dlq retry --kind relay`
      return messages.map((message) => this.parkedOf(topic, message, reason))
    })
    const topics = found.map(({ parkable: { messages, topic } }) => ({ topic, seq: messages.at(-1)!.seq }))
    return {
      parking: { ...this.stream, generation: this.generation, topics, parked },
      settle: (names) => {
        const parkedTopics = new Set(names)
        for (const { parkable, route } of found) this.onParked(route, parkable, parkedTopics.has(parkable.topic))
      }
    }
  }
  private onParked(route: Route, parkable: ParkableMessages, parked: boolean): void {
    if (!parked) return route.keep(parkable)
    // otherwise events with made-up tenants would fill the memory with routes
    if (route.forget(parkable) && this.routes.delete(route.topic)) void route.close()
    for (const message of parkable.messages) this.settle(message)
  }

  private done(topic: string, message: RelayMessage, reason: string | undefined): void {
    if (!this.bySeq.has(message.seq)) return
    if (reason === undefined) this.shipped += 1
    else this.parked.push(this.parkedOf(topic, message, reason))
    this.settle(message)
  }
  private parkedOf(topic: string, message: RelayMessage, reason: string): ParkedMessage {
    const { incarnation, key, seq, value } = message
    return { ...this.stream, seq, incarnation, topic, key, meta: metaOf(message), val: value, reason }
  }
  private settle({ seq, value }: RelayMessage): void {
    const one = this.bySeq.get(seq)
    if (one === undefined) return
    this.bySeq.delete(seq)
    this.bytes -= value.length
    one.left -= 1
    if (one.left === 0) this.advance()
  }
  private advance(): void {
    let count = 0
    for (; this.inFlight[count]?.left === 0; count++) this.reached = this.inFlight[count]!.place
    if (count === 0) return
    this.inFlight.splice(0, count)
    this.settings.moved()
  }

  /** What changed since the last call. The position must not be recorded before the rest. */
  takeProgress(): StreamProgress {
    const places: Array<TopicPosition> = []
    for (const route of this.routes.values())
      for (const position of route.takePositions())
        places.push({ ...this.stream, generation: this.generation, ...position })
    const { parked, reached: place } = this
    this.parked = []
    this.reached = undefined
    return { places, parked, place }
  }
  /** Stops sending. Resolves when the connections are closed. */
  async close(): Promise<void> {
    await Promise.all([...this.routes.values()].map((route) => route.close()))
  }
}
