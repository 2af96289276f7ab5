// Sends a stream's messages to a topic: finds out how many partitions it has, and gives each partition's messages to a channel of its own.
import { partitionOf } from "../../model/partitioner.ts"
import { failureOf, isMissing, isTopicRefused, type PulsarFailure } from "../client/errors.ts"
import type { Cluster } from "../client/cluster.ts"
import { partitionTopics } from "../client/topic-names.ts"
import { type Channel, type ParkableMessages, type ChannelPosition, type Obstacle, worstOf } from "./channel.ts"
import type { RelayMessage } from "./messages.ts"

/** What a route needs of its stream. */
export interface RouteHost {
  readonly cluster: Cluster
  /** How many partitions the topic is declared with. If several, the route waits until it exists, because a broker creates topics only without them. */
  readonly partitions: number
  /** Whether the tenant is not declared, so that its messages are parked when there is no room for them to wait. */
  readonly undeclared: boolean
  /** Added to the reason why such a topic is refused. */
  readonly advice: string
  /** As a channel's, by the topic's or the partition's full name. */
  readonly recordedPosition: (topic: string, initial: ChannelPosition) => Promise<ChannelPosition>
  readonly inTurn: <A>(run: () => Promise<A>) => Promise<A>
  /** Creates a channel to one partition, by its full name. Messages up to `from` were parked. */
  readonly channel: (partition: string, from: number) => Channel
  /** Called for each look-up that failed and is repeated. */
  readonly failed: () => void
  /** Called when there is something to look at. */
  readonly moved: () => void
}

/** How long to wait before looking the topic up again, in milliseconds. It doubles up to `most` while the topic is refused. */
const retryMs = { first: 1_000, most: 8_000 }

/**
 * How many partitions the topic has; 0 also if it does not exist and the broker will create it on first use. Rejects if the broker will not: the
 * namespace does not exist, or the topic is declared with several partitions.
 */
const countOf = async ({ cluster: { admin, transport }, partitions }: RouteHost, topic: string): Promise<number> => {
  if (admin === undefined) return (await transport.partitions?.(topic)) ?? 0
  return admin.partitions(topic).catch((cause: unknown) => {
    const failure = failureOf(cause, topic)
    if (partitions === 1 && isMissing(failure) && failure.kind !== "namespaceMissing") return 0
    throw failure
  })
}

/** A stream's way to one topic. It looks the topic up with its first message. */
export class Route {
  readonly topic: string
  private readonly host: RouteHost
  private channels: ReadonlyArray<Channel> | undefined
  private waiting: Array<RelayMessage> = []
  private failure: PulsarFailure | undefined
  private refusals = 0
  private lookingUp = false
  private wasConnected = false
  private timer: NodeJS.Timeout | undefined
  private ended = false

  constructor(host: RouteHost, topic: string) {
    this.host = host
    this.topic = topic
  }

  push(messages: ReadonlyArray<RelayMessage>): void {
    if (this.channels === undefined) {
      for (const message of messages) this.waiting.push(message)
      void this.lookUp()
    } else this.deal(this.channels, messages)
  }
  /** Sends what may be sent now. */
  pump(): void {
    for (const channel of this.channels ?? []) channel.pump()
  }
  /** Why the topic, or a partition of it, does not go on. */
  get obstacle(): Obstacle | undefined {
    const { channels = [], failure, host } = this
    if (failure === undefined) return worstOf(channels.map(({ obstacle }) => obstacle))
    const { message, retryable } = failure
    return { reason: host.undeclared && isTopicRefused(failure) ? `${message}${host.advice}` : message, retryable }
  }
  /** The positions, by partition, that changed since the last call. */
  takePositions(): ReadonlyArray<ChannelPosition & { readonly topic: string }> {
    return (this.channels ?? []).flatMap((channel) => {
      const position = channel.takePosition()
      return position === undefined ? [] : [{ topic: channel.topic, ...position }]
    })
  }
  /** What may be parked: as a channel's, for each partition, or for the whole topic. */
  get parkable(): ReadonlyArray<ParkableMessages> {
    if (!this.host.undeclared) return []
    if (this.channels !== undefined) return this.channels.flatMap(({ parkable }) => parkable ?? [])
    const { failure, topic, waiting } = this
    if (this.wasConnected || waiting.length === 0 || failure === undefined || !isTopicRefused(failure)) return []
    return [{ topic, messages: [...waiting], failure }]
  }
  /** Forgets messages that were parked. Returns whether the route has no messages left and is not needed any more. */
  forget({ topic, messages }: ParkableMessages): boolean {
    const last = messages.at(-1)!.seq
    for (const channel of this.channels ?? []) if (channel.topic === topic) channel.forget(last)
    this.waiting = this.waiting.filter(({ seq }) => seq > last)
    return this.channels === undefined && this.waiting.length === 0
  }
  /** Keeps messages that may not be parked: a process was connected to the topic, which may therefore have them. */
  keep({ topic }: ParkableMessages): void {
    this.wasConnected ||= this.channels === undefined
    for (const channel of this.channels ?? []) if (channel.topic === topic) channel.wasConnected = true
  }
  /** Stops sending. Resolves when the connections are closed. */
  async close(): Promise<void> {
    this.ended = true
    clearTimeout(this.timer)
    await Promise.all((this.channels ?? []).map((channel) => channel.close()))
  }

  private deal(channels: ReadonlyArray<Channel>, messages: ReadonlyArray<RelayMessage>): void {
    if (channels.length === 1) return channels[0]!.push(messages)
    for (const [i, some] of Map.groupBy(messages, ({ key }) => partitionOf(key, channels.length)))
      channels[i]!.push(some)
  }
  /** Looks up the number of partitions. The number when the stream first connected counts: with another one, keys would change their partition. */
  private async lookUp(): Promise<void> {
    if (this.lookingUp || this.ended) return
    this.lookingUp = true
    const { host, topic } = this
    try {
      const now = await host.inTurn(() => countOf(host, topic))
      const kept = now === 0 ? undefined : await host.recordedPosition(topic, { seq: 0, sent: now, place: "" })
      if (this.ended) return
      // messages up to there were parked, while no process was connected to the topic
      const from = kept?.seq ?? 0
      const channels = partitionTopics(topic, kept?.sent ?? 0).map((name) => host.channel(name, from))
      this.channels = channels
      this.failure = undefined
      this.deal(channels, this.waiting)
      this.waiting = []
    } catch (cause) {
      const failure = failureOf(cause, topic)
      this.failure = failure
      if (this.ended) return
      host.failed()
      const { first, most } = retryMs
      this.timer = setTimeout(
        () => {
          this.lookingUp = false
          void this.lookUp()
        },
        isTopicRefused(failure) ? Math.min(first * 2 ** this.refusals++, most) : first
      )
      host.moved()
    }
  }
}
