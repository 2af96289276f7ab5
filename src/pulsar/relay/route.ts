// A stream's way into a topic of any number of partitions: how many there are, a channel for each, and what waits until that is known.
import { partitionOf } from "../../model/partitioner.ts"
import { failureOf, isMissing, isTopicRefused, type PulsarFailure } from "../client/errors.ts"
import type { Cluster } from "../client/cluster.ts"
import { partitionTopics } from "../client/topic-names.ts"
import type { Channel, Held, Mark } from "./channel.ts"
import type { Message } from "./messages.ts"

/** What a route works for. */
export interface RouteHost {
  readonly cluster: Cluster
  /** How many it is to have: several must be made first, for a broker makes none but topics of one. */
  readonly partitions: number
  /** Whether its tenant's messages are parked where there is no room for them to wait. */
  readonly undeclared: boolean
  /** What else to say then, where the topic takes nothing. */
  readonly advice: string
  /** As a channel's. */
  readonly mark: (topic: string, begin: Mark) => Promise<Mark>
  readonly inTurn: <A>(run: () => Promise<A>) => Promise<A>
  /** A way into one partition, by its full name. What is not beyond `from` is dealt with. */
  readonly channel: (part: string, from: number) => Channel
  /** Something moved. */
  readonly moved: () => void
}

/** How long it waits before it asks again, in milliseconds; and the most that becomes of it where it was refused each time. */
const askAgainMs = { first: 1_000, most: 8_000 }

/**
 * How many partitions there are; 0 also where the topic is not there, and comes to be when it is used. Rejects where it does not: there is no
 * namespace, or it is to have several.
 */
const countOf = async ({ cluster: { admin, transport }, partitions }: RouteHost, topic: string): Promise<number> => {
  if (admin === undefined) return (await transport.partitions?.(topic)) ?? 0
  return admin.partitions(topic).catch((cause: unknown) => {
    const failure = failureOf(cause, topic)
    if (partitions === 1 && isMissing(failure) && failure.kind !== "namespaceMissing") return 0
    throw failure
  })
}

/** A route. It asks with its first message. */
export class Route {
  readonly topic: string
  private readonly host: RouteHost
  private channels: ReadonlyArray<Channel> | undefined
  private waiting: Array<Message> = []
  private failure: PulsarFailure | undefined
  private refusals = 0
  private asking = false
  private begun = false
  private timer: NodeJS.Timeout | undefined
  private ended = false

  constructor(host: RouteHost, topic: string) {
    this.host = host
    this.topic = topic
  }

  push(messages: ReadonlyArray<Message>): void {
    if (this.channels === undefined) {
      for (const message of messages) this.waiting.push(message)
      void this.ask()
    } else this.deal(this.channels, messages)
  }
  /** Sends what may be sent now. */
  pump(): void {
    for (const channel of this.channels ?? []) channel.pump()
  }
  /** Why it, or a part of it, does not go on. */
  get obstacle(): string | undefined {
    const { channels = [], failure, host } = this
    if (failure === undefined) return channels.map(({ obstacle }) => obstacle).find((one) => one !== undefined)
    return host.undeclared && isTopicRefused(failure) ? `${failure.message}${host.advice}` : failure.message
  }
  /** The places of its parts that moved since the last call. */
  takeMarks(): ReadonlyArray<Mark & { readonly topic: string }> {
    return (this.channels ?? []).flatMap((channel) => {
      const mark = channel.takeMark()
      return mark === undefined ? [] : [{ topic: channel.topic, ...mark }]
    })
  }
  /** What may be parked: as a channel's, for each part, or for all of it. */
  get held(): ReadonlyArray<Held> {
    if (!this.host.undeclared) return []
    if (this.channels !== undefined) return this.channels.flatMap(({ held }) => held ?? [])
    const { failure, topic, waiting } = this
    if (this.begun || waiting.length === 0 || failure === undefined || !isTopicRefused(failure)) return []
    return [{ topic, messages: [...waiting], failure }]
  }
  /** Forgets what it held, for that is dealt with. Whether it has no messages at all, and is of no more use. */
  forget({ topic, messages }: Held): boolean {
    const last = messages.at(-1)!.seq
    for (const channel of this.channels ?? []) if (channel.topic === topic) channel.forget(last)
    this.waiting = this.waiting.filter(({ seq }) => seq > last)
    return this.channels === undefined && this.waiting.length === 0
  }
  /** Others have been connected to it, so what it holds may be there. */
  keep({ topic }: Held): void {
    this.begun ||= this.channels === undefined
    for (const channel of this.channels ?? []) if (channel.topic === topic) channel.begun = true
  }
  /** Sends nothing more. Answers when its connections are given up. */
  async close(): Promise<void> {
    this.ended = true
    clearTimeout(this.timer)
    await Promise.all((this.channels ?? []).map((channel) => channel.close()))
  }

  private deal(channels: ReadonlyArray<Channel>, messages: ReadonlyArray<Message>): void {
    if (channels.length === 1) return channels[0]!.push(messages)
    for (const [i, some] of Map.groupBy(messages, ({ key }) => partitionOf(key, channels.length)))
      channels[i]!.push(some)
  }
  /** How many partitions the topic had when the stream first came there: with others, keys would change theirs. */
  private async ask(): Promise<void> {
    if (this.asking || this.ended) return
    this.asking = true
    const { host, topic } = this
    try {
      const now = await host.inTurn(() => countOf(host, topic))
      const kept = now === 0 ? undefined : await host.mark(topic, { seq: 0, sent: now, place: "" })
      if (this.ended) return
      // up to there messages of the topic were parked, while nobody was connected to it
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
      const { first, most } = askAgainMs
      this.timer = setTimeout(
        () => {
          this.asking = false
          void this.ask()
        },
        isTopicRefused(failure) ? Math.min(first * 2 ** this.refusals++, most) : first
      )
      host.moved()
    }
  }
}
