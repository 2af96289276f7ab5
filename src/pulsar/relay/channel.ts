// Sends a stream's messages to one topic or partition, in order and each once, by a producer whose name only one connection can have.
import { unopened } from "../../relay/outbox.ts"
import { failureOf, isTopicRefused, PulsarFailure } from "../client/errors.ts"
import type { Cluster } from "../client/cluster.ts"
import type { MessageId } from "../client/message-id.ts"
import { type RelayMessage, sentProperty } from "./messages.ts"
import { encodePosition, type StoredMessage, type TopicTail, readTail } from "./last-sent.ts"
import type { Receipt, TransportProducer } from "../client/transport.ts"

/** How far the stream is in the topic: the fields of a `TopicPosition` that change. */
export interface ChannelPosition {
  readonly seq: number
  readonly sent: number
  readonly place: string
}
/** Messages that may be parked: they wait for a topic that Pulsar refuses, and to which the stream was never connected. */
export interface ParkableMessages {
  readonly topic: string
  /** All that wait, in order; at least one. */
  readonly messages: ReadonlyArray<RelayMessage>
  readonly failure: PulsarFailure
}
/** What a channel needs of its stream. The channel calls it once at a time, and not after `close` has resolved. */
export interface ChannelHost {
  readonly cluster: Cluster
  /** The stream's name, as in the property `millrace-stream`. */
  readonly stream: string
  /** The producer's name. */
  readonly name: string
  /** The relay's position in the stream when it started: earlier messages are not its concern. */
  readonly from: number
  /** Whether to send batches once it is safe. */
  readonly batching: boolean
  /**
   * The stream's recorded position in the topic. Records `initial` if there is none, before anything is sent. If the recorded one is `unopened`, it takes
   * `sent` and `place` of `initial`.
   */
  readonly recordedPosition: (initial: ChannelPosition) => Promise<ChannelPosition>
  /** Runs `run` when it is its turn. It limits how many channels connect at once, because connecting reads the topic and a restart connects all of them. */
  readonly inTurn: <A>(run: () => Promise<A>) => Promise<A>
  /** Whether this process may send for the stream, as far as it knows. */
  readonly holds: () => boolean
  /** Called once for each message: the topic has it, or, with a `reason`, Pulsar refuses it for good. */
  readonly done: (message: RelayMessage, reason: string | undefined) => void
  /** Called for each failure after which it connects again. */
  readonly failed: () => void
  /** Halts the stream: the topic contradicts the outbox. */
  readonly halt: (reason: string) => void
}

/** How many messages of a channel may be in flight. As many are sent unbatched before the first batch. */
export const maxInFlight = 1_000
/** Batches begin with so many messages to send. */
const batchBacklog = 100
const pauseMs = (failures: number) => Math.min(50 * 2 ** failures, 2_000)
/** How long a failure lasts until it is reported as an obstacle. One that only a person can end is reported at once. */
const patienceMs = 5_000
/** How often to connect again because another relay sent between two reads of the topic. */
const connectAttempts = 5

interface QueuedMessage {
  readonly message: RelayMessage
  /** Its sequence id. */
  sent?: number
  id?: MessageId
  /** Why Pulsar refuses it. */
  refused?: string
  /** The broker answered, or the topic has it. */
  answered: boolean
}
/** A position whose `place` may not be encoded yet, because most are never read. */
type Reached = Omit<ChannelPosition, "place"> & { readonly place: string | MessageId }
const encoded = ({ place, seq, sent }: Reached): ChannelPosition => ({
  seq,
  sent,
  place: typeof place === "string" ? place : encodePosition(place)
})
/** Why messages do not go on. `retryable`: it may end by itself; otherwise a person has to act. */
export interface Obstacle {
  readonly reason: string
  readonly retryable: boolean
}
/** The one of several obstacles to report: one that needs a person, if there is any. */
export const worstOf = (obstacles: ReadonlyArray<Obstacle | undefined>): Obstacle | undefined => {
  const found = obstacles.filter((one) => one !== undefined)
  return found.find(({ retryable }) => !retryable) ?? found[0]
}
interface Trouble {
  readonly failure: PulsarFailure
  readonly since: number
}

/** A stream's connection to one topic or partition. It connects when it has a message to send. */
export class Channel {
  readonly topic: string
  /** Whether a process was ever connected as this stream, so that messages of it may be in the topic or on their way. */
  wasConnected = false
  private readonly host: ChannelHost
  private queue: Array<QueuedMessage> = []
  private head = 0
  /** Sent and not settled, in order, by sequence number. */
  private readonly inFlight = new Map<number, QueuedMessage>()
  /** Messages that the topic was found to have and that the outbox has not delivered yet. */
  private found: Array<StoredMessage> = []
  /** Sequence numbers of messages that the broker dropped as duplicates: the topic must have them. */
  private readonly dropped = new Set<number>()
  private producer: TransportProducer | undefined
  private closing: Promise<void> = Promise.resolve()
  private opening = false
  private batched = false
  /** Messages sent since the connection was opened. */
  private count = 0
  private era = 0
  private failures = 0
  private trouble: Trouble | undefined
  private timer: NodeJS.Timeout | undefined
  private ended = false
  private reached: Reached = { seq: 0, sent: 0, place: "" }
  private sent = 0
  private dirty = false

  constructor(host: ChannelHost, topic: string) {
    this.host = host
    this.topic = topic
  }

  push(messages: ReadonlyArray<RelayMessage>): void {
    for (const message of messages) this.queue.push({ message, answered: false })
    this.pump()
  }
  /** Sends what may be sent now. Must be called again after `holds` was false. */
  pump(): void {
    if (this.ended || this.opening || this.timer !== undefined) return
    if (this.producer === undefined) {
      if (this.head < this.queue.length && this.host.holds()) void this.open()
      return
    }
    if (this.wantsBatches()) {
      if (this.inFlight.size === 0) this.restart(undefined, true)
      return
    }
    while (this.head < this.queue.length && this.inFlight.size < maxInFlight && !this.ended) {
      const item = this.queue[this.head]!
      if (!this.isSettled(item)) {
        if (this.ended || !this.host.holds()) break
        this.send(this.producer, item)
      }
      this.head++
    }
    // if the topic had everything already, no answer will clear the trouble
    if (this.head === this.queue.length && this.inFlight.size === 0) this.trouble = undefined
    // there are hundreds of channels: free the memory of what was sent
    if (this.head > 0 && this.head * 2 >= this.queue.length) {
      this.queue = this.queue.slice(this.head)
      this.head = 0
    }
  }
  /** The position, if it changed since the last call. */
  takePosition(): ChannelPosition | undefined {
    if (!this.dirty) return undefined
    this.dirty = false
    return encoded(this.reached)
  }
  /** Why it does not go on, if that lasts or needs a person. */
  get obstacle(): Obstacle | undefined {
    if (this.trouble === undefined) return undefined
    const { failure, since } = this.trouble
    const { message: reason, retryable } = failure
    const needsPerson = !retryable && failure.kind !== "busy"
    return needsPerson || performance.now() > since + patienceMs ? { reason, retryable } : undefined
  }
  /** What waits for a topic that Pulsar refuses and may be parked; undefined if nothing may. */
  get parkable(): ParkableMessages | undefined {
    const failure = this.trouble?.failure
    if (this.wasConnected || this.head === this.queue.length || failure === undefined || !isTopicRefused(failure))
      return undefined
    return { topic: this.topic, messages: this.queue.slice(this.head).map(({ message }) => message), failure }
  }
  /** Forgets messages up to a sequence number, because they were parked. Does nothing if a process was connected. */
  forget(last: number): void {
    if (this.wasConnected) return
    this.queue = this.queue.slice(this.head).filter(({ message }) => message.seq > last)
    this.head = 0
    if (this.queue.length === 0) this.trouble = undefined
  }
  /** Stops sending. Resolves when the connection is closed. */
  async close(): Promise<void> {
    this.ended = true
    this.era++
    clearTimeout(this.timer)
    this.drop()
    await this.closing
  }

  /** Whether to start with batches: as many messages went unbatched as another relay of the stream can have in flight, and many wait. */
  private wantsBatches(): boolean {
    return (
      this.host.batching &&
      !this.batched &&
      this.count >= maxInFlight &&
      this.queue.length - this.head + this.inFlight.size >= batchBacklog
    )
  }
  private drop(): void {
    const { producer } = this
    this.producer = undefined
    if (producer !== undefined) this.closing = producer.close().catch(() => undefined)
  }
  /** Closes the connection and opens another one. Reading the topic then shows which messages in flight it has. */
  private restart(failure: PulsarFailure | undefined, batched = false): void {
    if (this.ended) return
    this.era++
    this.queue = [...this.inFlight.values(), ...this.queue.slice(this.head)]
    this.head = 0
    this.inFlight.clear()
    this.drop()
    this.batched = batched
    if (failure === undefined) return this.pump()
    this.host.failed()
    this.trouble = { failure, since: this.trouble?.since ?? performance.now() }
    this.timer = setTimeout(
      () => {
        this.timer = undefined
        this.pump()
      },
      pauseMs(this.failures++)
    )
  }

  private async open(): Promise<void> {
    this.opening = true
    const era = ++this.era
    const isCurrent = () => era === this.era && !this.ended
    try {
      await this.closing
      const found = await this.host.inTurn(() => this.connect(isCurrent))
      this.opening = false
      if (!isCurrent()) return
      this.continueFrom(found)
      if (!this.ended) this.pump()
    } catch (cause) {
      this.opening = false
      this.drop()
      if (isCurrent()) this.restart(failureOf(cause, this.topic))
    }
  }
  /** Opens the producer and reads what the topic has: no other process can write as this stream from then on. */
  private async connect(isCurrent: () => boolean): Promise<ChannelPosition & TopicTail> {
    const { cluster, name } = this.host
    const { topic } = this
    for (let i = 0; i < connectAttempts && isCurrent(); i++) {
      // an interface that numbers messages itself starts with the number it gets when it connects
      const before = cluster.transport.sendsSequenceIds ? undefined : await this.readPosition(false)
      const producer = await cluster.transport.produce({
        topic,
        name,
        batching: this.batched,
        maxPending: maxInFlight,
        ...(before !== undefined && { initialSequenceId: before.sent })
      })
      this.producer = producer
      if (!isCurrent()) break
      const found = await this.readPosition(true)
      if (before === undefined || before.sent === found.sent) return found
      this.drop()
      await this.closing
    }
    this.drop()
    throw new PulsarFailure("lost", true, `another relay sends to ${topic}`)
  }
  private async readPosition(connected: boolean): Promise<ChannelPosition & TopicTail> {
    const { cluster, stream } = this.host
    // the position is recorded before anything is sent
    const end = connected ? encodePosition(await cluster.admin?.lastMessageId(this.topic)) : unopened
    const kept = await this.host.recordedPosition({ seq: 0, sent: 0, place: end })
    if (kept.place === unopened) return { ...kept, present: [], end: undefined }
    this.wasConnected = true
    // this relay may know more than it has recorded
    const known = this.reached.seq > kept.seq ? encoded(this.reached) : kept
    const tail = await readTail(cluster, this.topic, stream, known.place)
    return { ...known, ...tail, sent: tail.present.reduce((most, { sent }) => Math.max(most, sent), known.sent) }
  }
  /** Continues from what was found. Halts the stream if the broker dropped a message as a duplicate that the topic does not have. */
  private continueFrom({ end, place, present, sent, seq }: ChannelPosition & TopicTail): void {
    this.count = 0
    this.sent = sent
    this.found = present.filter((one) => one.seq > seq)
    this.reached = { seq, sent, place: this.found.length === 0 && end !== undefined ? encodePosition(end) : place }
    this.dirty = true
    for (const seqDropped of this.dropped) {
      if (seqDropped <= seq || this.found.some((one) => one.seq === seqDropped)) continue
      return this.haltStream(
        `Pulsar dropped message ${seqDropped} as a duplicate, but ${this.topic} does not have it: another producer used the name ${this.host.name}`
      )
    }
    this.dropped.clear()
  }
  private haltStream(reason: string): void {
    this.ended = true
    this.host.halt(reason)
  }

  /** Whether a message needs no sending: the topic has it, or can never get it. Settles it then. */
  private isSettled(item: QueuedMessage): boolean {
    const { incarnation, seq } = item.message
    if (item.answered || seq <= this.reached.seq) {
      this.settle(item)
      return true
    }
    while (this.found[0] !== undefined && this.found[0].seq <= Math.max(this.host.from, this.reached.seq))
      this.found.shift()
    const [first] = this.found
    if (first === undefined) return false
    if (first.seq > seq) {
      // after them it would be out of order, and another relay would mistake it for one of theirs
      item.refused = `Pulsar accepted message ${first.seq}, but not this earlier one${this.trouble === undefined ? "" : `: ${this.trouble.failure.message}`}`
      this.settle(item)
      return true
    }
    if (first.seq < seq || first.incarnation !== incarnation) {
      this.haltStream(
        `${this.topic} has a different message ${first.seq} of this stream than the outbox: the database was restored to another state`
      )
      return false
    }
    this.found.shift()
    item.id = first.id
    item.sent = first.sent
    this.settle(item)
    return true
  }
  private send(producer: TransportProducer, item: QueuedMessage): void {
    const { era } = this
    const { eventTime, key, properties, seq, value } = item.message
    const sequenceId = ++this.sent
    item.sent = sequenceId
    this.count++
    this.inFlight.set(seq, item)
    properties[sentProperty] = String(sequenceId)
    const sent = producer.send({ key, value, eventTime, properties, sequenceId })
    void this.outcome(item, sent, era)
  }
  private async outcome(item: QueuedMessage, sent: Promise<Receipt>, era: number): Promise<void> {
    try {
      const receipt = await sent
      if (era === this.era) this.received(item, receipt)
    } catch (cause) {
      if (era === this.era) this.refused(item, failureOf(cause, this.topic))
    }
  }
  private received(item: QueuedMessage, { duplicate, id }: Receipt): void {
    if (duplicate) {
      // for a batch, a duplicate only means that the topic has its first message
      if (!this.batched) this.dropped.add(item.message.seq)
      return this.restart(undefined)
    }
    item.id = id
    this.answered(item)
  }
  private refused(item: QueuedMessage, failure: PulsarFailure): void {
    if (failure.kind !== "messageTooLarge") return this.restart(failure)
    item.refused = failure.message
    this.answered(item)
    // an interface that numbers messages itself did not number the refused one
    if (!this.host.cluster.transport.sendsSequenceIds) this.restart(undefined, this.batched)
  }
  private answered(item: QueuedMessage): void {
    item.answered = true
    this.failures = 0
    this.trouble = undefined
    for (const [seq, one] of this.inFlight) {
      if (!one.answered) break
      this.inFlight.delete(seq)
      this.settle(one)
    }
    this.pump()
  }
  private settle({ id, message, refused, sent }: QueuedMessage): void {
    const { reached } = this
    if (message.seq > reached.seq) {
      this.reached = { seq: message.seq, sent: sent ?? reached.sent, place: id ?? reached.place }
      this.dirty = true
    }
    this.host.done(message, refused)
  }
}
