// A consumer of a subscription on Pulsar. It asks partitions for as much as it has room for, delivers it, and redelivers what is not acknowledged.
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import { deadLetterProperties } from "../../subscription/dead-letter.ts"
import { streamHeaders } from "../../log/envelope.ts"
import {
  type Consumer,
  ConsumerBusy,
  type FanOutError,
  type Message,
  redeliveryDelay,
  type SubscribeOptions
} from "../../subscription/fanout.ts"
import { failureOf, isMissing, PulsarFailure } from "../client/errors.ts"
import { fanOutError } from "./errors.ts"
import { type HeldMessage, UnackedMessages, positionKey } from "./unacked.ts"
import { positionOf, messageIdText } from "../client/message-id.ts"
import type { ConsumeOptions, Outgoing, Received, Transport, TransportConsumer } from "../client/transport.ts"
import { counted } from "../../text/counted.ts"

/** The options of a subscription, with every default filled in. */
export type SubscriptionSettings = Required<SubscribeOptions>
/** What a consumer needs. */
export interface PulsarConsumerOptions {
  readonly transport: Transport
  readonly settings: SubscriptionSettings
  /** The consumer's name on the broker. */
  readonly name: string
  /** The full names of the partitions, in order. */
  readonly topics: ReadonlyArray<string>
  /** Sends a message to the dead-letter topic, which it creates if it does not exist. */
  readonly sendDeadLetter: (message: Outgoing) => Promise<void>
  /** The type, in the port's words, of the subscription if it refuses this consumer. */
  readonly typeOf: () => Promise<string>
}
interface ConsumedPartition {
  readonly index: number
  readonly topic: string
  consumer: TransportConsumer | undefined
  /** How many messages were asked for and have not arrived. */
  asked: number
  /** When a message arrived last, or was asked for while none was outstanding. */
  movedAt: number
}

/** A partition that delivers nothing for so long counts as idle: what was asked of it is asked of other partitions as well. */
const idleMs = 50
const standbyMs = 250
/**
 * How long to reconnect to a partition that another consumer has: that may be a connection of this process that the broker has not given up yet. A
 * failover consumer tries without end, because then another one is active and this one stands by.
 */
const patienceMs = 15_000
const reconnectMs = { first: 50, most: 1_000 }

const now = () => performance.now()
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

/** The port's form of a message. */
const messageOf = (topic: string, { partition, received, redeliveries }: HeldMessage): Message => {
  const { eventTime, id, key, properties, publishTime, value } = received
  const seq = properties[streamHeaders.sequence]
  return {
    topic,
    partition,
    position: positionOf(id),
    key,
    // an empty value deletes its key from a compacted topic
    value: value === "" ? "null" : value,
    eventTime: eventTime > 0 ? eventTime : publishTime,
    properties,
    stream: properties[streamHeaders.stream],
    incarnation: properties[streamHeaders.incarnation],
    seq: seq === undefined ? undefined : Number(seq),
    redeliveries
  }
}

/** A consumer of the fan-out port over a transport. It connects to every partition of the topic. */
export class PulsarConsumer implements Consumer {
  private readonly options: PulsarConsumerOptions
  private readonly all: ReadonlyArray<ConsumedPartition>
  private readonly unacked: UnackedMessages
  /** Opened whenever `receive` should check again. */
  private readonly signal = Latch.makeUnsafe(false)
  private state: "closed" | "opening" | "open" | "ended" = "closed"
  private failure: PulsarFailure | undefined
  /** How often `open` has connected to all partitions. A reconnection that began before the last time is over. */
  private openings = 0
  private activeAt = now()
  private pulling = false
  private warned = false
  private readonly timers = new Set<NodeJS.Timeout>()

  constructor(options: PulsarConsumerOptions) {
    this.options = options
    this.all = options.topics.map((topic, index) => ({ index, topic, consumer: undefined, asked: 0, movedAt: 0 }))
    this.unacked = new UnackedMessages(options.settings.type === "keyShared", options.settings.receiveQueue)
  }
  private later(ms: number, run: () => void): void {
    const timer = setTimeout(() => {
      this.timers.delete(timer)
      if (this.state !== "ended") run()
    }, ms)
    this.timers.add(timer)
  }

  /** How much to fetch ahead. For a shared subscription next to nothing, so that other consumers can get what this one has not asked for. */
  private get prefetch(): number {
    const { receiveQueue, type } = this.options.settings
    return type === "shared"
      ? Math.min(100, Math.floor(receiveQueue / 10 / this.all.length))
      : Math.min(1_000, Math.max(1, receiveQueue))
  }
  private async connect(partition: ConsumedPartition): Promise<TransportConsumer> {
    const { name, settings, transport } = this.options
    // messages under way on a connection that is given up, or closed, come again on the next one, in their order
    let over = false
    const options: ConsumeOptions = {
      topic: partition.topic,
      subscription: settings.name,
      name,
      // Pulsar's own failover distributes partitions, and may move one to a consumer that has only just joined
      type: settings.type === "failover" ? "exclusive" : settings.type,
      earliest: settings.from === "earliest",
      prefetch: this.prefetch,
      arrived: (received) => {
        if (!over) this.arrived(partition, received)
      },
      lost: (_, isOver) => {
        over = isOver
        this.lost(partition, isOver)
      },
      recovered: () => {
        this.unacked.setDisconnected(partition.index, false)
        this.signal.openUnsafe()
        this.pull()
      }
    }
    const consumer = await transport.consume(options)
    return {
      ask: (count) => consumer.ask(count),
      acknowledge: (messages) => consumer.acknowledge(messages),
      negativeAcknowledge: (messages) => consumer.negativeAcknowledge(messages),
      close: () => {
        over = true
        return consumer.close()
      }
    }
  }
  /** Connects to every partition. If one fails, closes all and rejects. */
  async open(): Promise<void> {
    this.state = "opening"
    this.openings += 1
    try {
      for (const partition of this.all) {
        partition.consumer = await this.connect(partition)
        partition.asked = 0
        if (this.ended()) throw new PulsarFailure("other", false, "the consumer was closed")
      }
      this.state = "open"
      this.activeAt = now()
      for (const partition of this.all) if (partition.consumer === undefined) void this.reconnect(partition)
      this.pull()
    } catch (cause) {
      await this.disconnect()
      if (!this.ended()) this.state = "closed"
      throw cause
    }
  }
  private ended(): boolean {
    return this.state === "ended"
  }
  private async disconnect(): Promise<void> {
    const open = this.all.flatMap(({ consumer }) => (consumer === undefined ? [] : [consumer]))
    for (const partition of this.all) partition.consumer = undefined
    await Promise.all(open.map((consumer) => consumer.close()))
  }
  /** Closes the consumer. What it held can be delivered to others at once. */
  async close(): Promise<void> {
    this.state = "ended"
    for (const timer of this.timers) clearTimeout(timer)
    this.unacked.clear()
    await this.disconnect()
  }

  private arrived(partition: ConsumedPartition, received: Received): void {
    partition.asked = Math.max(0, partition.asked - 1)
    partition.movedAt = now()
    if (this.state !== "open" && this.state !== "opening") return
    const held = this.unacked.arrived(partition.index, received)
    if (held === "acknowledged") void partition.consumer?.acknowledge([received]).catch(() => undefined)
    if (typeof held === "string") return this.pull()
    const { maxRedeliveries } = this.options.settings
    if (held.redeliveries > maxRedeliveries) {
      this.giveUp([held], `redelivered ${counted(maxRedeliveries, "time")}`).catch(() => this.unacked.add(held))
      return
    }
    this.unacked.add(held)
    this.signal.openUnsafe()
  }
  private lost(partition: ConsumedPartition, isOver: boolean): void {
    if ((this.state !== "open" && this.state !== "opening") || partition.consumer === undefined) return
    // until it is over this consumer alone gets the messages again: if it forgot them, messages under way would overtake them
    if (!isOver) return this.unacked.setDisconnected(partition.index, true)
    this.unacked.forget(partition.index)
    void partition.consumer.close()
    partition.consumer = undefined
    partition.asked = 0
    // else `open` does it, when it has connected to the other partitions
    if (this.state === "open") void this.reconnect(partition)
  }
  private async reconnect(partition: ConsumedPartition): Promise<void> {
    const { openings } = this
    // one that outlives a release would leave the consumer of its partition open that was made since, with what it has fetched
    const goesOn = () => this.state === "open" && this.openings === openings
    let failure: PulsarFailure
    let since: number | undefined
    for (let ms = reconnectMs.first; goesOn(); ms = Math.min(ms * 2, reconnectMs.most)) {
      try {
        const consumer = await this.connect(partition)
        if (!goesOn()) return await consumer.close()
        partition.consumer = consumer
        return this.pull()
      } catch (error) {
        failure = failureOf(error, "receive")
      }
      if (!goesOn()) return
      if (failure.kind === "busy") since ??= now()
      const busyTooLong = this.options.settings.type !== "failover" && now() > (since ?? Infinity) + patienceMs
      const spent = failure.kind === "busy" ? busyTooLong : !failure.retryable && !isMissing(failure)
      if (spent) {
        this.failure = failure
        this.signal.openUnsafe()
        return
      }
      await pause(ms)
    }
  }

  /** Asks partitions for as many messages as there is room for, at the end of this turn so that few requests ask for much. */
  private pull(): void {
    if (this.pulling) return
    this.pulling = true
    setImmediate(() => {
      this.pulling = false
      if (this.state === "open") this.askPartitions()
    })
  }
  /** Divides the room equally among partitions. */
  private askPartitions(): void {
    const at = now()
    const { room } = this.unacked
    const isIdle = (partition: ConsumedPartition) => partition.asked > 0 && at - partition.movedAt > idleMs
    let left = room - this.all.reduce((sum, partition) => sum + (isIdle(partition) ? 0 : partition.asked), 0)
    const fair = Math.max(1, Math.floor(room / this.all.length))
    const start = Math.floor(at) % this.all.length
    let hungry = false
    for (let i = 0; i < this.all.length; i++) {
      const partition = this.all[(start + i) % this.all.length]!
      if (partition.consumer === undefined || partition.asked >= fair) continue
      // the last messages if the room does not divide evenly
      const wanted = Math.min(left, fair - partition.asked + (i < room % this.all.length && room > fair ? 1 : 0))
      if (wanted <= 0) {
        hungry ||= partition.asked === 0 && room > 0
        continue
      }
      left -= wanted
      if (partition.asked === 0) partition.movedAt = at
      partition.asked += wanted
      partition.consumer.ask(wanted)
    }
    if (hungry) this.later(idleMs, () => this.pull())
  }

  receive(max: number): Effect.Effect<ReadonlyArray<Message>, FanOutError> {
    return this.next(Math.max(1, Math.floor(max)))
  }
  private readonly next = Effect.fnUntraced(function* (this: PulsarConsumer, max: number) {
    while (true) {
      if (this.failure !== undefined) return yield* Effect.fail(fanOutError("receive")(this.failure))
      this.signal.closeUnsafe()
      if (this.state === "closed" && !(yield* this.join)) continue
      const taken = this.unacked.take(max, now())
      if (taken.length > 0) {
        this.touch()
        this.pull()
        yield* this.warn(taken)
        return taken.map((held) => messageOf(this.options.settings.topic, held))
      }
      const { receiveQueue, type } = this.options.settings
      const isFull = this.unacked.outstanding.size >= receiveQueue && type !== "keyShared"
      const wait = isFull ? Infinity : this.unacked.nextDue - now()
      yield* Effect.raceFirst(this.signal.await, Effect.sleep(Math.min(Math.max(wait, 1), 2 ** 31 - 1)))
    }
  }).bind(this)
  /** Warns once that keys are out of order: a whole batch goes to the consumer of its first key. */
  private readonly warn = Effect.fnUntraced(function* (this: PulsarConsumer, taken: ReadonlyArray<HeldMessage>) {
    const { name, topic, type } = this.options.settings
    if (this.warned || type !== "keyShared" || !taken.some(({ received }) => received.id.batchSize > 1)) return
    this.warned = true
    yield* Effect.logWarning(
      `subscription ${name}: ${topic} has batches of several messages, so the consumers do not get each key's messages in order. try: publish without batches, or subscribe with failover`
    )
  })
  /** Connects, and returns whether it succeeded. A failover consumer that stands by waits before it returns false. */
  private readonly join = Effect.suspend(() =>
    Effect.tryPromise({ try: () => this.open(), catch: (cause) => failureOf(cause, "receive") }).pipe(
      Effect.as(true),
      Effect.catchIf(
        ({ kind }) => kind === "busy" && this.options.settings.type === "failover",
        () => Effect.as(Effect.sleep(standbyMs), false)
      ),
      Effect.mapError(fanOutError("receive"))
    )
  )

  /** Notes activity, after which the consumer keeps its messages for another `ackTimeoutMs`. */
  private touch(): void {
    this.activeAt = now()
    if (this.expiring || this.unacked.outstanding.size === 0) return
    this.expiring = true
    this.expire()
  }
  private expiring = false
  private expire(): void {
    const left = this.activeAt + this.options.settings.ackTimeoutMs - now()
    if (left > 0) return this.later(left, () => this.expire())
    this.expiring = false
    if (this.unacked.outstanding.size > 0 && this.state === "open") void this.release()
  }
  /** Gives all messages to other consumers, because this one has held them too long. It counts as a redelivery. */
  private async release(): Promise<void> {
    this.state = "opening"
    const held = [...this.unacked.outstanding.values()]
    await this.eachPartition(held, (consumer, some) => consumer.negativeAcknowledge(some)).catch(() => undefined)
    await this.disconnect()
    this.unacked.clear()
    if (this.ended()) return
    this.state = "closed"
    this.signal.openUnsafe()
  }

  private heldOf(messages: ReadonlyArray<Message>): ReadonlyArray<HeldMessage> {
    return messages.flatMap((message) => this.unacked.outstanding.get(positionKey(message)) ?? [])
  }
  private async eachPartition(
    held: ReadonlyArray<HeldMessage>,
    run: (consumer: TransportConsumer, messages: ReadonlyArray<Received>) => Promise<void>
  ): Promise<void> {
    for (const { consumer, index } of this.all) {
      const some = held.filter(({ partition }) => partition === index).map(({ received }) => received)
      if (some.length === 0) continue
      if (consumer === undefined) throw new PulsarFailure("lost", true, "the partition is reconnecting")
      await run(consumer, some)
    }
  }
  private async settle(held: ReadonlyArray<HeldMessage>): Promise<void> {
    await this.eachPartition(held, (consumer, some) => consumer.acknowledge(some))
    for (const one of held) this.unacked.settle(one)
    this.onProgress()
  }
  private onProgress(): void {
    this.touch()
    this.signal.openUnsafe()
    this.pull()
  }
  private runOperation(operation: string, run: () => Promise<void>): Effect.Effect<void, FanOutError> {
    return Effect.uninterruptible(Effect.tryPromise({ try: run, catch: fanOutError(operation) }))
  }

  readonly acknowledge = (messages: ReadonlyArray<Message>) =>
    this.runOperation("acknowledge", () => this.settle(this.heldOf(messages)))

  readonly negativeAcknowledge = (messages: ReadonlyArray<Message>) =>
    this.runOperation("negativeAcknowledge", async () => {
      const { settings } = this.options
      const { maxRedeliveries } = settings
      const held = this.heldOf(messages)
      const from = now()
      for (const one of held)
        if (one.redeliveries < maxRedeliveries)
          this.unacked.redeliver(one, from + redeliveryDelay(settings, one.redeliveries))
      const spent = held.filter(({ redeliveries }) => redeliveries >= maxRedeliveries)
      await this.giveUp(spent, `redelivered ${counted(maxRedeliveries, "time")} and not acknowledged`)
      this.onProgress()
    })

  readonly deadLetter = (messages: ReadonlyArray<Message>, reason: string) =>
    this.runOperation("deadLetter", () => this.giveUp(this.heldOf(messages), reason))

  /**
   * Sends messages to the dead-letter topic, one after the other, and acknowledges each. After a crash between the two steps the same dead letter is
   * written again, and its position in the source shows that it is the same.
   */
  private async giveUp(held: ReadonlyArray<HeldMessage>, reason: string): Promise<void> {
    const { sendDeadLetter, settings } = this.options
    for (const one of held) {
      const { eventTime, id, key, properties, publishTime, value } = one.received
      await sendDeadLetter({
        key,
        value,
        eventTime: eventTime > 0 ? eventTime : publishTime,
        properties: {
          ...properties,
          ...deadLetterProperties({
            source: settings.topic,
            partition: one.partition,
            position: messageIdText(id),
            subscription: settings.name,
            redeliveries: one.redeliveries,
            reason
          })
        }
      })
      await this.settle([one])
    }
  }
  /** The port's error for a first connection that failed. */
  async refusal(cause: unknown): Promise<ConsumerBusy | FanOutError> {
    const { name, topic } = this.options.settings
    if (failureOf(cause, "subscribe").kind !== "busy") return fanOutError("subscribe")(cause)
    return new ConsumerBusy({ topic, subscription: name, type: await this.options.typeOf() })
  }
}
