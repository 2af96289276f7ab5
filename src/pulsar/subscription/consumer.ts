// One consumer of a subscription on Pulsar: asks for what it has room for, delivers it, and keeps what is given back. Redelivery is its own.
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
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
import { type Held, Hold, placeOf } from "./unacked.ts"
import { positionOf, messageIdText } from "../client/message-id.ts"
import type { ConsumeOptions, Outgoing, Received, Transport, TransportConsumer } from "../client/transport.ts"

/** Options with everything decided. */
export type Settings = Required<SubscribeOptions>
/** What a consumer is made of. */
export interface Parts {
  readonly transport: Transport
  readonly settings: Settings
  /** Names it to the broker. */
  readonly name: string
  /** The partitions' full names. */
  readonly topics: ReadonlyArray<string>
  /** Sends to the dead-letter topic, which it makes where it is not there. */
  readonly bury: (message: Outgoing) => Promise<void>
  /** The type of a subscription that refuses this consumer, as the port names it. */
  readonly typeOf: () => Promise<string>
}
interface Part {
  readonly index: number
  readonly topic: string
  consumer: TransportConsumer | undefined
  /** Asked for and not arrived. */
  asked: number
  /** When something arrived, or was asked for while nothing was. */
  movedAt: number
}

/** A partition that brings nothing for so long does not count: what was asked of it may be asked of others too. */
const idleMs = 50
const standbyMs = 250
/**
 * How long a place that is taken is tried again: what had it may be a connection of this process that the broker has not given up yet. A failover
 * consumer tries for ever: another one took its place, and it stands by.
 */
const patienceMs = 15_000
const reconnectMs = { first: 50, most: 1_000 }

const now = () => performance.now()
const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

/** The message of what came. */
const messageOf = (topic: string, { partition, received, redeliveries }: Held): Message => {
  const { eventTime, id, key, properties, publishTime, value } = received
  const seq = properties[streamHeaders.sequence]
  return {
    topic,
    partition,
    position: positionOf(id),
    key,
    // an empty one deletes its key from a compacted topic
    value: value === "" ? "null" : value,
    eventTime: eventTime > 0 ? eventTime : publishTime,
    properties,
    stream: properties[streamHeaders.stream],
    incarnation: properties[streamHeaders.incarnation],
    seq: seq === undefined ? undefined : Number(seq),
    redeliveries
  }
}

/** The state of a consumer, and what it does. */
export class PulsarConsumer implements Consumer {
  private readonly parts: Parts
  private readonly all: ReadonlyArray<Part>
  private readonly hold: Hold
  /** Opened whenever `receive` should look again. */
  private readonly signal = Latch.makeUnsafe(false)
  private state: "closed" | "opening" | "open" | "ended" = "closed"
  private failure: PulsarFailure | undefined
  private activeAt = now()
  private pulling = false
  private warned = false
  private readonly timers = new Set<NodeJS.Timeout>()

  constructor(parts: Parts) {
    this.parts = parts
    this.all = parts.topics.map((topic, index) => ({ index, topic, consumer: undefined, asked: 0, movedAt: 0 }))
    this.hold = new Hold(parts.settings.type === "keyShared", parts.settings.receiveQueue)
  }
  private later(ms: number, run: () => void): void {
    const timer = setTimeout(() => {
      this.timers.delete(timer)
      if (this.state !== "ended") run()
    }, ms)
    this.timers.add(timer)
  }

  /** What it does not ask for, other consumers of a shared subscription can have: there next to nothing is fetched ahead. */
  private get prefetch(): number {
    const { receiveQueue, type } = this.parts.settings
    return type === "shared"
      ? Math.min(100, Math.floor(receiveQueue / 10 / this.all.length))
      : Math.min(1_000, Math.max(1, receiveQueue))
  }
  private connect(part: Part): Promise<TransportConsumer> {
    const { name, settings, transport } = this.parts
    // what is on its way when a connection is given up comes again by the next one, behind what is before it
    let over = false
    const options: ConsumeOptions = {
      topic: part.topic,
      subscription: settings.name,
      name,
      // Pulsar's own failover shares out partitions, and may move to a consumer that only joins
      type: settings.type === "failover" ? "exclusive" : settings.type,
      earliest: settings.from === "earliest",
      prefetch: this.prefetch,
      arrived: (received) => {
        if (!over) this.arrived(part, received)
      },
      lost: (cause, isOver) => {
        over = isOver
        this.lost(part, cause, isOver)
      },
      recovered: () => {
        this.hold.wait(part.index, false)
        this.signal.openUnsafe()
        this.pull()
      }
    }
    return transport.consume(options)
  }
  /** Connects to every partition, or to none. */
  async open(): Promise<void> {
    this.state = "opening"
    try {
      for (const part of this.all) {
        part.consumer = await this.connect(part)
        part.asked = 0
        if (this.ended()) throw new PulsarFailure("other", false, "the consumer was closed")
      }
      this.state = "open"
      this.activeAt = now()
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
    for (const part of this.all) part.consumer = undefined
    await Promise.all(open.map((consumer) => consumer.close()))
  }
  /** What it has can be delivered to others at once. */
  async close(): Promise<void> {
    this.state = "ended"
    for (const timer of this.timers) clearTimeout(timer)
    this.hold.clear()
    await this.disconnect()
  }

  private arrived(part: Part, received: Received): void {
    part.asked = Math.max(0, part.asked - 1)
    part.movedAt = now()
    if (this.state !== "open" && this.state !== "opening") return
    const held = this.hold.arrived(part.index, received)
    if (held === "acknowledged") void part.consumer?.acknowledge([received]).catch(() => undefined)
    if (typeof held === "string") return this.pull()
    const { maxRedeliveries } = this.parts.settings
    if (held.redeliveries > maxRedeliveries) {
      this.burial([held], `redelivered ${maxRedeliveries} times`).catch(() => this.hold.add(held))
      return
    }
    this.hold.add(held)
    this.signal.openUnsafe()
  }
  private lost(part: Part, cause: unknown, isOver: boolean): void {
    if (this.state !== "open" || part.consumer === undefined) return
    const { type } = this.parts.settings
    // one that is alone gets the same again: what it forgot would be passed by what is on its way
    if (isOver || type === "shared" || type === "keyShared") this.hold.forget(part.index)
    else this.hold.wait(part.index, true)
    if (!isOver) return
    void part.consumer.close()
    part.consumer = undefined
    part.asked = 0
    void this.reconnect(part, failureOf(cause, "receive"))
  }
  private async reconnect(part: Part, cause: PulsarFailure): Promise<void> {
    let failure = cause
    let since: number | undefined
    for (let ms = reconnectMs.first; this.state === "open"; ms = Math.min(ms * 2, reconnectMs.most)) {
      try {
        const consumer = await this.connect(part)
        if (this.state !== "open") return await consumer.close()
        part.consumer = consumer
        return this.pull()
      } catch (error) {
        failure = failureOf(error, "receive")
      }
      if (failure.kind === "busy") since ??= now()
      const busyTooLong = this.parts.settings.type !== "failover" && now() > (since ?? Infinity) + patienceMs
      const spent = failure.kind === "busy" ? busyTooLong : !failure.retryable && !isMissing(failure)
      if (spent) {
        this.failure = failure
        this.signal.openUnsafe()
        return
      }
      await pause(ms)
    }
  }

  /** Asks partitions for as much as there is room for, in equal shares; soon, so that much is asked for at once. */
  private pull(): void {
    if (this.pulling) return
    this.pulling = true
    setImmediate(() => {
      this.pulling = false
      if (this.state === "open") this.share()
    })
  }
  private share(): void {
    const at = now()
    const { room } = this.hold
    const isIdle = (part: Part) => part.asked > 0 && at - part.movedAt > idleMs
    let left = room - this.all.reduce((sum, part) => sum + (isIdle(part) ? 0 : part.asked), 0)
    const fair = Math.max(1, Math.floor(room / this.all.length))
    const start = Math.floor(at) % this.all.length
    let hungry = false
    for (let i = 0; i < this.all.length; i++) {
      const part = this.all[(start + i) % this.all.length]!
      if (part.consumer === undefined || part.asked >= fair) continue
      // the last ones of an uneven share
      const wanted = Math.min(left, fair - part.asked + (i < room % this.all.length && room > fair ? 1 : 0))
      if (wanted <= 0) {
        hungry ||= part.asked === 0 && room > 0
        continue
      }
      left -= wanted
      if (part.asked === 0) part.movedAt = at
      part.asked += wanted
      part.consumer.ask(wanted)
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
      const taken = this.hold.take(max, now())
      if (taken.length > 0) {
        this.touch()
        this.pull()
        yield* this.warn(taken)
        return taken.map((held) => messageOf(this.parts.settings.topic, held))
      }
      const { receiveQueue, type } = this.parts.settings
      const isFull = this.hold.outstanding.size >= receiveQueue && type !== "keyShared"
      const wait = isFull ? Infinity : this.hold.nextDue - now()
      yield* Effect.raceFirst(this.signal.await, Effect.sleep(Math.min(Math.max(wait, 1), 2 ** 31 - 1)))
    }
  }).bind(this)
  /** Tells once that keys are out of order: a batch comes whole to the consumer of its first key. */
  private readonly warn = Effect.fnUntraced(function* (this: PulsarConsumer, taken: ReadonlyArray<Held>) {
    const { name, topic, type } = this.parts.settings
    if (this.warned || type !== "keyShared" || !taken.some(({ received }) => received.id.batchSize > 1)) return
    this.warned = true
    yield* Effect.logWarning(
      `subscription ${name}: ${topic} has batches of several messages, so keys are not kept in order among its consumers. try: publish it without batches, or subscribe with failover`
    )
  })
  /** Whether it has its place in the subscription; if not, it has waited before it says so. */
  private readonly join = Effect.suspend(() =>
    Effect.tryPromise({ try: () => this.open(), catch: (cause) => failureOf(cause, "receive") }).pipe(
      Effect.as(true),
      Effect.catchIf(
        ({ kind }) => kind === "busy" && this.parts.settings.type === "failover",
        () => Effect.as(Effect.sleep(standbyMs), false)
      ),
      Effect.mapError(fanOutError("receive"))
    )
  )

  /** It did something, so what it has stays its own for a further time. */
  private touch(): void {
    this.activeAt = now()
    if (this.expiring || this.hold.outstanding.size === 0) return
    this.expiring = true
    this.expire()
  }
  private expiring = false
  private expire(): void {
    const left = this.activeAt + this.parts.settings.ackTimeoutMs - now()
    if (left > 0) return this.later(left, () => this.expire())
    this.expiring = false
    if (this.hold.outstanding.size > 0 && this.state === "open") void this.release()
  }
  /** What it held too long is not its own any more. It counts as a redelivery. */
  private async release(): Promise<void> {
    this.state = "opening"
    const held = [...this.hold.outstanding.values()]
    await this.eachPart(held, (consumer, some) => consumer.negativeAcknowledge(some)).catch(() => undefined)
    await this.disconnect()
    this.hold.clear()
    if (this.ended()) return
    this.state = "closed"
    this.signal.openUnsafe()
  }

  private known(messages: ReadonlyArray<Message>): ReadonlyArray<Held> {
    return messages.flatMap((message) => this.hold.outstanding.get(placeOf(message)) ?? [])
  }
  private async eachPart(
    held: ReadonlyArray<Held>,
    run: (consumer: TransportConsumer, messages: ReadonlyArray<Received>) => Promise<void>
  ): Promise<void> {
    for (const { consumer, index } of this.all) {
      const some = held.filter(({ partition }) => partition === index).map(({ received }) => received)
      if (some.length === 0) continue
      if (consumer === undefined) throw new PulsarFailure("lost", true, "the connection is being made again")
      await run(consumer, some)
    }
  }
  private async settle(held: ReadonlyArray<Held>): Promise<void> {
    await this.eachPart(held, (consumer, some) => consumer.acknowledge(some))
    for (const one of held) this.hold.settle(one)
    this.moved()
  }
  private moved(): void {
    this.touch()
    this.signal.openUnsafe()
    this.pull()
  }
  private attempt(operation: string, run: () => Promise<void>): Effect.Effect<void, FanOutError> {
    return Effect.uninterruptible(Effect.tryPromise({ try: run, catch: fanOutError(operation) }))
  }

  readonly acknowledge = (messages: ReadonlyArray<Message>) =>
    this.attempt("acknowledge", () => this.settle(this.known(messages)))

  readonly negativeAcknowledge = (messages: ReadonlyArray<Message>) =>
    this.attempt("negativeAcknowledge", async () => {
      const { settings } = this.parts
      const { maxRedeliveries } = settings
      const held = this.known(messages)
      const from = now()
      for (const one of held)
        if (one.redeliveries < maxRedeliveries)
          this.hold.giveBack(one, from + redeliveryDelay(settings, one.redeliveries))
      const spent = held.filter(({ redeliveries }) => redeliveries >= maxRedeliveries)
      await this.burial(spent, `redelivered ${maxRedeliveries} times and not acknowledged`)
      this.moved()
    })

  readonly deadLetter = (messages: ReadonlyArray<Message>, reason: string) =>
    this.attempt("deadLetter", () => this.burial(this.known(messages), reason))

  /** One after the other: a crash between the two steps leaves a letter that is written again, and its place says that it is the same. */
  private async burial(held: ReadonlyArray<Held>, reason: string): Promise<void> {
    const { bury, settings } = this.parts
    for (const one of held) {
      const { eventTime, id, key, properties, publishTime, value } = one.received
      await bury({
        key,
        value,
        eventTime: eventTime > 0 ? eventTime : publishTime,
        properties: {
          ...properties,
          "millrace-topic": settings.topic,
          "millrace-partition": String(one.partition),
          "millrace-position": messageIdText(id),
          "millrace-subscription": settings.name,
          "millrace-redeliveries": String(one.redeliveries),
          "millrace-reason": reason
        }
      })
      await this.settle([one])
    }
  }
  /** Why the first try to join failed, as the port tells it. */
  async refusal(cause: unknown): Promise<ConsumerBusy | FanOutError> {
    const { name, topic } = this.parts.settings
    if (failureOf(cause, "subscribe").kind !== "busy") return fanOutError("subscribe")(cause)
    return new ConsumerBusy({ topic, subscription: name, type: await this.parts.typeOf() })
  }
}
