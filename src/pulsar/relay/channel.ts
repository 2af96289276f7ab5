// A stream's way into one topic: a producer under a name that one connection can have, and what is sent over it, in order, once.
import { unopened } from "../../relay/outbox.ts"
import { failureOf, isTopicRefused, PulsarFailure } from "../client/errors.ts"
import type { Cluster } from "../client/cluster.ts"
import type { MessageId } from "../client/message-id.ts"
import { type Message, sentProperty } from "./messages.ts"
import { placeText, type Present, type Tail, tailOf } from "./last-sent.ts"
import type { Receipt, TransportProducer } from "../client/transport.ts"

/** How far the stream is in the topic. As in the outbox's port. */
export interface Mark {
  readonly seq: number
  readonly sent: number
  readonly place: string
}
/** Messages that wait for a topic which takes none and will not by itself, and to which this process was never connected. */
export interface Held {
  readonly topic: string
  /** All that wait, in their order; at least one. */
  readonly messages: ReadonlyArray<Message>
  readonly failure: PulsarFailure
}
/** What a channel works for. Calls come one at a time, and none after `close` has answered. */
export interface Host {
  readonly cluster: Cluster
  /** As it stands in `millrace-stream`. */
  readonly stream: string
  /** Of the producer. */
  readonly name: string
  /** Where the relay begins in the stream: what is not beyond it is not this relay's matter. */
  readonly from: number
  /** Messages go in batches once it is safe. */
  readonly batching: boolean
  /** The stream's place in the topic, as written down; begun as told, before anything is sent, and taken as told where it is `unopened`. */
  readonly mark: (begin: Mark) => Promise<Mark>
  /** Runs what is asked of it when it is its turn: connecting reads what others wrote meanwhile, and a restart connects all channels. */
  readonly inTurn: <A>(run: () => Promise<A>) => Promise<A>
  /** Whether the stream is this process's, as far as it can know. Else nothing is sent. */
  readonly holds: () => boolean
  /** The message is there. `reason`: it will not be, for Pulsar refuses it. */
  readonly done: (message: Message, reason: string | undefined) => void
  /** The stream must stand still: what is in the topic contradicts the outbox. */
  readonly broken: (reason: string) => void
}

/** Messages of a channel under way at once; as many go unbatched before the first batch. */
export const window = 1_000
/** Batches are worth it from such a backlog on. */
const backlog = 100
const pauseMs = (failures: number) => Math.min(50 * 2 ** failures, 2_000)
/** A failure that goes on for that long is told to people; at once where only they can end it. */
const patienceMs = 5_000
/** The place moved between two looks: tried so often before it counts as a failure. */
const looks = 5

interface Item {
  readonly message: Message
  /** Its sequence id. */
  sent?: number
  id?: MessageId
  /** Pulsar refuses it. */
  refused?: string
  there: boolean
}
/** A mark whose place may not be a text yet: most are never asked for. */
type Reached = Omit<Mark, "place"> & { readonly place: string | MessageId }
const markOf = ({ place, seq, sent }: Reached): Mark => ({
  seq,
  sent,
  place: typeof place === "string" ? place : placeText(place)
})
interface Trouble {
  readonly failure: PulsarFailure
  readonly since: number
}

/** A channel. It connects with its first message. */
export class Channel {
  readonly topic: string
  /** Somebody was connected as this stream: something of it may be there, or on its way. */
  begun = false
  private readonly host: Host
  private queue: Array<Item> = []
  private head = 0
  /** Sent and not settled, in their order. */
  private readonly flying = new Map<number, Item>()
  /** What the topic was found to have, and nobody asked for yet. */
  private known: Array<Present> = []
  private readonly doubts = new Set<number>()
  private producer: TransportProducer | undefined
  private closing: Promise<void> = Promise.resolve()
  private opening = false
  private batched = false
  /** Since the connection was made. */
  private count = 0
  private era = 0
  private failures = 0
  private trouble: Trouble | undefined
  private timer: NodeJS.Timeout | undefined
  private ended = false
  private reached: Reached = { seq: 0, sent: 0, place: "" }
  private sent = 0
  private dirty = false

  constructor(host: Host, topic: string) {
    this.host = host
    this.topic = topic
  }

  push(messages: ReadonlyArray<Message>): void {
    for (const message of messages) this.queue.push({ message, there: false })
    this.pump()
  }
  /** Sends what may be sent now; to be called again where `holds` said no. */
  pump(): void {
    if (this.ended || this.opening || this.timer !== undefined) return
    if (this.producer === undefined) {
      if (this.head < this.queue.length && this.host.holds()) void this.open()
      return
    }
    if (this.wantsBatches()) {
      if (this.flying.size === 0) this.restart(undefined, true)
      return
    }
    while (this.head < this.queue.length && this.flying.size < window && !this.ended) {
      const item = this.queue[this.head]!
      if (!this.present(item)) {
        if (this.ended || !this.host.holds()) break
        this.send(this.producer, item)
      }
      this.head++
    }
    // where all was there already no answer tells that it goes on
    if (this.head === this.queue.length && this.flying.size === 0) this.trouble = undefined
    // hundreds of channels must not each hold what they sent
    if (this.head > 0 && this.head * 2 >= this.queue.length) {
      this.queue = this.queue.slice(this.head)
      this.head = 0
    }
  }
  /** Its place, where that moved since the last call. */
  takeMark(): Mark | undefined {
    if (!this.dirty) return undefined
    this.dirty = false
    return markOf(this.reached)
  }
  /** Why it does not go on, where that is worth a person's look. */
  get obstacle(): string | undefined {
    if (this.trouble === undefined) return undefined
    const { failure, since } = this.trouble
    const isTheirs = !failure.retryable && failure.kind !== "busy"
    return isTheirs || performance.now() > since + patienceMs ? failure.message : undefined
  }
  /** What waits for a topic that takes nothing, and for whom it can be dealt with otherwise. */
  get held(): Held | undefined {
    const failure = this.trouble?.failure
    if (this.begun || this.head === this.queue.length || failure === undefined || !isTopicRefused(failure))
      return undefined
    return { topic: this.topic, messages: this.queue.slice(this.head).map(({ message }) => message), failure }
  }
  /** Forgets messages up to there, for they are dealt with. Only where it is not begun. */
  forget(last: number): void {
    if (this.begun) return
    this.queue = this.queue.slice(this.head).filter(({ message }) => message.seq > last)
    this.head = 0
    if (this.queue.length === 0) this.trouble = undefined
  }
  /** Sends nothing more. Answers when the connection is given up. */
  async close(): Promise<void> {
    this.ended = true
    this.era++
    clearTimeout(this.timer)
    this.drop()
    await this.closing
  }

  /** As many went unbatched as another relay of the stream can have under way, and there is more than one by one is good for. */
  private wantsBatches(): boolean {
    return (
      this.host.batching &&
      !this.batched &&
      this.count >= window &&
      this.queue.length - this.head + this.flying.size >= backlog
    )
  }
  private drop(): void {
    const { producer } = this
    this.producer = undefined
    if (producer !== undefined) this.closing = producer.close().catch(() => undefined)
  }
  /** Gives the connection up, and takes another one: then the topic tells what of all this is there. */
  private restart(failure: PulsarFailure | undefined, batched = false): void {
    if (this.ended) return
    this.era++
    this.queue = [...this.flying.values(), ...this.queue.slice(this.head)]
    this.head = 0
    this.flying.clear()
    this.drop()
    this.batched = batched
    if (failure === undefined) return this.pump()
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
    const stands = () => era === this.era && !this.ended
    try {
      await this.closing
      const found = await this.host.inTurn(() => this.take(stands))
      this.opening = false
      if (!stands()) return
      this.judge(found)
      if (!this.ended) this.pump()
    } catch (cause) {
      this.opening = false
      this.drop()
      if (stands()) this.restart(failureOf(cause, this.topic))
    }
  }
  /** Connects, and looks what is there: nobody else can write as this stream from then on. */
  private async take(stands: () => boolean): Promise<Mark & Tail> {
    const { cluster, name } = this.host
    const { topic } = this
    for (let i = 0; i < looks && stands(); i++) {
      // the interface counts from what it is told when it connects
      const before = cluster.transport.sendsSequenceIds ? undefined : await this.look(false)
      const producer = await cluster.transport.produce({
        topic,
        name,
        batching: this.batched,
        maxPending: window,
        ...(before !== undefined && { initialSequenceId: before.sent })
      })
      this.producer = producer
      if (!stands()) break
      const found = await this.look(true)
      if (before === undefined || before.sent === found.sent) return found
      this.drop()
      await this.closing
    }
    this.drop()
    throw new PulsarFailure("lost", true, `${topic}: another relay sends there`)
  }
  private async look(connected: boolean): Promise<Mark & Tail> {
    const { cluster, stream } = this.host
    // whoever begins it first does so before anything is sent
    const end = connected ? placeText(await cluster.admin?.lastMessageId(this.topic)) : unopened
    const kept = await this.host.mark({ seq: 0, sent: 0, place: end })
    if (kept.place === unopened) return { ...kept, present: [], end: undefined }
    this.begun = true
    // what this relay knows and has not written down yet need not be read again
    const mark = this.reached.seq > kept.seq ? markOf(this.reached) : kept
    const tail = await tailOf(cluster, this.topic, stream, mark.place)
    return { ...mark, ...tail, sent: tail.present.reduce((most, { sent }) => Math.max(most, sent), mark.sent) }
  }
  /** Takes over what was found, and halts the stream where a message was dropped as seen that is not there. */
  private judge({ end, place, present, sent, seq }: Mark & Tail): void {
    this.count = 0
    this.sent = sent
    this.known = present.filter((one) => one.seq > seq)
    this.reached = { seq, sent, place: this.known.length === 0 && end !== undefined ? placeText(end) : place }
    this.dirty = true
    for (const doubt of this.doubts) {
      if (doubt <= seq || this.known.some((one) => one.seq === doubt)) continue
      return this.fail(
        `Pulsar says that it has message ${doubt} already, and ${this.topic} does not have it: another producer used the name ${this.host.name}`
      )
    }
    this.doubts.clear()
  }
  private fail(reason: string): void {
    this.ended = true
    this.host.broken(reason)
  }

  /** Whether a message is in the topic already, or will never be. */
  private present(item: Item): boolean {
    const { incarnation, seq } = item.message
    if (item.there || seq <= this.reached.seq) {
      this.settle(item)
      return true
    }
    while (this.known[0] !== undefined && this.known[0].seq <= Math.max(this.host.from, this.reached.seq))
      this.known.shift()
    const [first] = this.known
    if (first === undefined) return false
    if (first.seq > seq) {
      // behind them it would be out of order, and another relay would take it for theirs
      item.refused = `Pulsar took message ${first.seq}, and not this one before it${this.trouble === undefined ? "" : `: ${this.trouble.failure.message}`}`
      this.settle(item)
      return true
    }
    if (first.seq < seq || first.incarnation !== incarnation) {
      this.fail(
        `${this.topic} has another message ${first.seq} of this stream than the outbox: the database was restored to another state`
      )
      return false
    }
    this.known.shift()
    item.id = first.id
    item.sent = first.sent
    this.settle(item)
    return true
  }
  private send(producer: TransportProducer, item: Item): void {
    const { era } = this
    const { eventTime, key, properties, seq, value } = item.message
    const sequenceId = ++this.sent
    item.sent = sequenceId
    this.count++
    this.flying.set(seq, item)
    properties[sentProperty] = String(sequenceId)
    const sent = producer.send({ key, value, eventTime, properties, sequenceId })
    void this.outcome(item, sent, era)
  }
  private async outcome(item: Item, sent: Promise<Receipt>, era: number): Promise<void> {
    try {
      const receipt = await sent
      if (era === this.era) this.received(item, receipt)
    } catch (cause) {
      if (era === this.era) this.refused(item, failureOf(cause, this.topic))
    }
  }
  private received(item: Item, { duplicate, id }: Receipt): void {
    if (duplicate) {
      // of a batch it says no more than that its first message is there
      if (!this.batched) this.doubts.add(item.message.seq)
      return this.restart(undefined)
    }
    item.id = id
    this.answered(item)
  }
  private refused(item: Item, failure: PulsarFailure): void {
    if (failure.kind !== "messageTooLarge") return this.restart(failure)
    item.refused = failure.message
    this.answered(item)
    // an interface that counts has not counted it
    if (!this.host.cluster.transport.sendsSequenceIds) this.restart(undefined, this.batched)
  }
  private answered(item: Item): void {
    item.there = true
    this.failures = 0
    this.trouble = undefined
    for (const [seq, one] of this.flying) {
      if (!one.there) break
      this.flying.delete(seq)
      this.settle(one)
    }
    this.pump()
  }
  private settle({ id, message, refused, sent }: Item): void {
    const { reached } = this
    if (message.seq > reached.seq) {
      this.reached = { seq: message.seq, sent: sent ?? reached.sent, place: id ?? reached.place }
      this.dirty = true
    }
    this.host.done(message, refused)
  }
}
