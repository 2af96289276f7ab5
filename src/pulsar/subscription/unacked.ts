// The messages that a consumer holds: arrived and not delivered, delivered and not acknowledged, or waiting for redelivery. Pure: no I/O, no timers.
import type { Message } from "../../subscription/fanout.ts"
import { compareMessageIds, positionOf } from "../client/message-id.ts"
import type { Received } from "../client/transport.ts"

/** A message that a consumer holds. */
export interface HeldMessage {
  readonly partition: number
  /** `partition:position`. */
  readonly positionKey: string
  /** As it arrived last: its handle is valid for that connection only. */
  received: Received
  /** How often it was delivered before. */
  redeliveries: number
  /** When it may be delivered, by the clock of `performance.now`; 0 means at once. */
  due: number
  /** Whether this consumer has delivered it before. */
  isRedelivery: boolean
}
/** Messages of one key in the order of their partition; a single message if keys need no order. */
interface KeyQueue {
  readonly name: string
  readonly waiting: Array<HeldMessage>
}
/** What to remember of a message whose connection was lost, in case it comes again. */
interface Remembered {
  readonly redeliveries: number
  readonly due: number
}

/** How many acknowledged and lost messages are remembered, to recognize what the broker sends again. */
const remembered = 20_000

export const positionKey = ({ partition, position }: Pick<Message, "partition" | "position">) =>
  `${partition}:${position}`

/** Deletes the oldest entries of a map until it is small enough. */
const bound = (map: Map<string, unknown>) => {
  for (const name of map.keys()) {
    if (map.size <= remembered) return
    map.delete(name)
  }
}

/** The unacknowledged messages of a consumer. */
export class UnackedMessages {
  private readonly keyed: boolean
  private readonly receiveQueue: number
  /** Delivered and not acknowledged, by `positionKey`. */
  readonly outstanding = new Map<string, HeldMessage>()
  /** Not delivered yet, or to be redelivered, by key. */
  private readonly queues = new Map<string, KeyQueue>()
  private readonly queueOf = new Map<string, KeyQueue>()
  /** Queues whose first message may be delivered, in the order in which it became deliverable. */
  private ready = new Set<KeyQueue>()
  private readonly delayed = new Set<KeyQueue>()
  private readonly acknowledged = new Map<string, true>()
  private readonly lost = new Map<string, Remembered>()
  /** Partitions that are reconnecting: their messages wait. */
  private readonly disconnected = new Set<number>()
  private waitingForRedelivery = 0

  constructor(keyed: boolean, receiveQueue: number) {
    this.keyed = keyed
    this.receiveQueue = receiveQueue
  }
  private nameOf(held: HeldMessage): string {
    return this.keyed ? `${held.partition}:${held.received.key}` : held.positionKey
  }
  private file(queue: KeyQueue): void {
    this.ready.delete(queue)
    this.delayed.delete(queue)
    const first = queue.waiting[0]
    if (first === undefined) this.queues.delete(queue.name)
    else (first.due > 0 ? this.delayed : this.ready).add(queue)
  }
  private insert(held: HeldMessage): void {
    const name = this.nameOf(held)
    const queue = this.queues.get(name) ?? { name, waiting: [] }
    const { waiting } = queue
    let at = waiting.length
    while (at > 0 && compareMessageIds(waiting[at - 1]!.received.id, held.received.id) > 0) at--
    waiting.splice(at, 0, held)
    this.queueOf.set(held.positionKey, queue)
    if (held.isRedelivery) this.waitingForRedelivery += 1
    if (at > 0) return
    this.queues.set(name, queue)
    this.file(queue)
  }

  /**
   * Takes a message that arrived. `acknowledged` means that it was acknowledged before and must be again; `known` that it is held already. Otherwise
   * returns the message to `add`.
   */
  arrived(partition: number, received: Received): HeldMessage | "acknowledged" | "known" {
    const positionKey = `${partition}:${positionOf(received.id)}`
    if (this.acknowledged.has(positionKey)) return "acknowledged"
    const there =
      this.outstanding.get(positionKey) ??
      this.queueOf.get(positionKey)?.waiting.find((other) => other.positionKey === positionKey)
    if (there !== undefined) {
      there.received = received
      return "known"
    }
    const before = this.lost.get(positionKey)
    this.lost.delete(positionKey)
    const redeliveries = received.redeliveries + (before?.redeliveries ?? 0)
    const held: HeldMessage = {
      partition,
      positionKey,
      received,
      redeliveries,
      due: before?.due ?? 0,
      isRedelivery: false
    }
    return held
  }
  /** Queues a message that arrived for its delivery. */
  add(held: HeldMessage): void {
    this.insert(held)
  }
  /** Takes up to `max` messages that may be delivered now. */
  take(max: number, now: number): ReadonlyArray<HeldMessage> {
    for (const queue of this.delayed) {
      const first = queue.waiting[0]!
      if (first.due > now) continue
      first.due = 0
      this.file(queue)
    }
    const taken: Array<HeldMessage> = []
    for (const queue of this.ready) {
      while (taken.length < max) {
        const first = queue.waiting[0]
        if (first === undefined || first.due > 0 || this.disconnected.has(first.partition)) break
        // if keys keep their order, delivered messages may wait for a redelivery of their key, so a full queue must let it pass
        if (this.outstanding.size >= this.receiveQueue && !(this.keyed && first.isRedelivery)) break
        queue.waiting.shift()
        this.queueOf.delete(first.positionKey)
        if (first.isRedelivery) this.waitingForRedelivery -= 1
        this.outstanding.set(first.positionKey, first)
        taken.push(first)
      }
      const first = queue.waiting[0]
      if (first === undefined || first.due > 0) this.file(queue)
      if (taken.length >= max) break
    }
    return taken
  }
  /** When the next redelivery is due; infinity if none waits. */
  get nextDue(): number {
    let next = Infinity
    for (const { waiting } of this.delayed) next = Math.min(next, waiting[0]!.due)
    return next
  }
  /** For how many more messages there is room. */
  get room(): number {
    const fresh = this.queueOf.size - this.waitingForRedelivery
    return Math.min(
      this.receiveQueue - this.outstanding.size - fresh,
      // messages that wait for redelivery are not delivered, but take memory
      Math.max(this.receiveQueue, 1_000) - this.waitingForRedelivery
    )
  }

  /** The message was acknowledged, or became a dead letter. */
  settle(held: HeldMessage): void {
    this.outstanding.delete(held.positionKey)
    this.acknowledged.set(held.positionKey, true)
    bound(this.acknowledged)
  }
  /** Queues a message for redelivery, and counts it. */
  redeliver(held: HeldMessage, due: number): void {
    this.outstanding.delete(held.positionKey)
    this.insert({ ...held, redeliveries: held.redeliveries + 1, due, isRedelivery: true })
  }
  /** A partition has lost its connection, or has it back. In between none of its messages is delivered. */
  setDisconnected(partition: number, isDisconnected: boolean): void {
    if (isDisconnected) this.disconnected.add(partition)
    else this.disconnected.delete(partition)
  }
  /** Forgets a partition's undelivered messages after its connection was lost: they come again, to this consumer or another. */
  forget(partition: number): void {
    this.disconnected.delete(partition)
    for (const queue of this.queues.values()) {
      const gone = queue.waiting.filter((held) => held.partition === partition)
      if (gone.length === 0) continue
      for (const { isRedelivery, due, positionKey, received, redeliveries } of gone) {
        this.queueOf.delete(positionKey)
        if (isRedelivery) this.waitingForRedelivery -= 1
        const local = redeliveries - received.redeliveries
        if (local > 0) this.lost.set(positionKey, { redeliveries: local, due })
      }
      queue.waiting.splice(0, queue.waiting.length, ...queue.waiting.filter((held) => held.partition !== partition))
      this.file(queue)
    }
    bound(this.lost)
  }
  /** Forgets everything: all messages go to other consumers. */
  clear(): void {
    for (const held of this.outstanding.values()) this.lost.delete(held.positionKey)
    this.outstanding.clear()
    this.queues.clear()
    this.queueOf.clear()
    this.ready = new Set()
    this.delayed.clear()
    this.disconnected.clear()
    this.waitingForRedelivery = 0
  }
}
