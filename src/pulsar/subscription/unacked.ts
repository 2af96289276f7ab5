// What one consumer holds: what came and was not delivered, was delivered and not acknowledged, or was given back. It waits for nothing.
import type { Message } from "../../subscription/fanout.ts"
import { compareMessageIds, positionOf } from "../client/message-id.ts"
import type { Received } from "../client/transport.ts"

/** A message that came. */
export interface Held {
  readonly partition: number
  readonly place: string
  /** As it came last: an id is good for the connection it came by. */
  received: Received
  /** How often it was delivered before. */
  redeliveries: number
  /** When it may be delivered, by the clock of `performance.now`; 0: at once. */
  due: number
  /** It was delivered by this consumer before. */
  again: boolean
}
/** Messages of one key in the order of their partition, or one message where keys do not matter. */
interface Chain {
  readonly name: string
  readonly waiting: Array<Held>
}
/** What is known of a message whose connection was lost: it may come again. */
interface Remembered {
  readonly redeliveries: number
  readonly due: number
}

/** How many acknowledged and lost messages are remembered, for what the broker sends again. */
const remembered = 20_000

export const placeOf = ({ partition, position }: Pick<Message, "partition" | "position">) => `${partition}:${position}`

/** Forgets the first of a map until it is small enough. */
const bound = (map: Map<string, unknown>) => {
  for (const name of map.keys()) {
    if (map.size <= remembered) return
    map.delete(name)
  }
}

/** The messages of a consumer. */
export class Hold {
  private readonly keyed: boolean
  private readonly receiveQueue: number
  /** Delivered and not acknowledged, by place. */
  readonly outstanding = new Map<string, Held>()
  /** Not delivered, or given back, by key. Those whose first one may be delivered come in the order in which that became so. */
  private readonly chains = new Map<string, Chain>()
  private readonly places = new Map<string, Chain>()
  private ready = new Set<Chain>()
  private readonly delayed = new Set<Chain>()
  private readonly acknowledged = new Map<string, true>()
  private readonly lost = new Map<string, Remembered>()
  /** Partitions whose messages wait for their connection. */
  private readonly away = new Set<number>()
  private givenBack = 0

  constructor(keyed: boolean, receiveQueue: number) {
    this.keyed = keyed
    this.receiveQueue = receiveQueue
  }
  private nameOf(held: Held): string {
    return this.keyed ? `${held.partition}:${held.received.key}` : held.place
  }
  private place(chain: Chain): void {
    this.ready.delete(chain)
    this.delayed.delete(chain)
    const first = chain.waiting[0]
    if (first === undefined) this.chains.delete(chain.name)
    else (first.due > 0 ? this.delayed : this.ready).add(chain)
  }
  private insert(held: Held): void {
    const name = this.nameOf(held)
    const chain = this.chains.get(name) ?? { name, waiting: [] }
    const { waiting } = chain
    let at = waiting.length
    while (at > 0 && compareMessageIds(waiting[at - 1]!.received.id, held.received.id) > 0) at--
    waiting.splice(at, 0, held)
    this.places.set(held.place, chain)
    if (held.again) this.givenBack += 1
    if (at > 0) return
    this.chains.set(name, chain)
    this.place(chain)
  }

  /** What came. `acknowledged`: it was handled already, which is to be said again. `known`: it is here. Else what it is now. */
  arrived(partition: number, received: Received): Held | "acknowledged" | "known" {
    const place = `${partition}:${positionOf(received.id)}`
    if (this.acknowledged.has(place)) return "acknowledged"
    const there = this.outstanding.get(place) ?? this.places.get(place)?.waiting.find((other) => other.place === place)
    if (there !== undefined) {
      there.received = received
      return "known"
    }
    const before = this.lost.get(place)
    this.lost.delete(place)
    const redeliveries = received.redeliveries + (before?.redeliveries ?? 0)
    const held: Held = { partition, place, received, redeliveries, due: before?.due ?? 0, again: false }
    return held
  }
  /** Something that arrived waits for its delivery. */
  add(held: Held): void {
    this.insert(held)
  }
  /** Delivers up to `max` messages whose time has come. */
  take(max: number, now: number): ReadonlyArray<Held> {
    for (const chain of this.delayed) {
      const first = chain.waiting[0]!
      if (first.due > now) continue
      first.due = 0
      this.place(chain)
    }
    const taken: Array<Held> = []
    for (const chain of this.ready) {
      while (taken.length < max) {
        const first = chain.waiting[0]
        if (first === undefined || first.due > 0 || this.away.has(first.partition)) break
        // with keys in order, what this consumer has may wait for what comes again: a full queue must let it in
        if (this.outstanding.size >= this.receiveQueue && !(this.keyed && first.again)) break
        chain.waiting.shift()
        this.places.delete(first.place)
        if (first.again) this.givenBack -= 1
        this.outstanding.set(first.place, first)
        taken.push(first)
      }
      const first = chain.waiting[0]
      if (first === undefined || first.due > 0) this.place(chain)
      if (taken.length >= max) break
    }
    return taken
  }
  /** When something that was given back may be delivered; infinity: there is nothing. */
  get nextDue(): number {
    let next = Infinity
    for (const { waiting } of this.delayed) next = Math.min(next, waiting[0]!.due)
    return next
  }
  /** How many more may come. */
  get room(): number {
    const fresh = this.places.size - this.givenBack
    return Math.min(
      this.receiveQueue - this.outstanding.size - fresh,
      // what is given back is not delivered, and yet it is in memory
      Math.max(this.receiveQueue, 1_000) - this.givenBack
    )
  }

  /** It was acknowledged, or is dead. */
  settle(held: Held): void {
    this.outstanding.delete(held.place)
    this.acknowledged.set(held.place, true)
    bound(this.acknowledged)
  }
  /** It comes again, counted once more. */
  giveBack(held: Held, due: number): void {
    this.outstanding.delete(held.place)
    this.insert({ ...held, redeliveries: held.redeliveries + 1, due, again: true })
  }
  /** A partition's connection is away, or is back: meanwhile nothing of it is delivered. */
  wait(partition: number, isAway: boolean): void {
    if (isAway) this.away.add(partition)
    else this.away.delete(partition)
  }
  /** A partition's connection was lost: what was not delivered comes again by another one, perhaps elsewhere. */
  forget(partition: number): void {
    this.away.delete(partition)
    for (const chain of this.chains.values()) {
      const gone = chain.waiting.filter((held) => held.partition === partition)
      if (gone.length === 0) continue
      for (const { again, due, place, received, redeliveries } of gone) {
        this.places.delete(place)
        if (again) this.givenBack -= 1
        const local = redeliveries - received.redeliveries
        if (local > 0) this.lost.set(place, { redeliveries: local, due })
      }
      chain.waiting.splice(0, chain.waiting.length, ...chain.waiting.filter((held) => held.partition !== partition))
      this.place(chain)
    }
    bound(this.lost)
  }
  /** Everything goes to others. */
  clear(): void {
    for (const held of this.outstanding.values()) this.lost.delete(held.place)
    this.outstanding.clear()
    this.chains.clear()
    this.places.clear()
    this.ready = new Set()
    this.delayed.clear()
    this.away.clear()
    this.givenBack = 0
  }
}
