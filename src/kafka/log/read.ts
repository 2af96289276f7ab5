// Reads a partition: once, or following it over a connection of its own with one fetch ahead. It keeps no place of its own.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type Batch, LogError, OutOfRange, type Position, type Reader, type ReadError } from "../../log/log.ts"
import { splitBatch } from "../../log/rules.ts"
import { type Client, isLost, isMoved, retrying } from "../protocol/client.ts"
import type { Share } from "../protocol/fetch-budget.ts"
import type { Broker } from "../protocol/kafkajs.ts"
import { attempt, KafkaFailure } from "../protocol/errors.ts"
import { fetch, type Fetched, offsets, type Place, rangeError, type Source, topicWith } from "../protocol/fetch.ts"
import { sizeOf } from "../protocol/record-size.ts"

/** How long a broker holds a fetch of a partition that has nothing new. */
const waitMs = 1_000
/** A reader goes on through moved leaders and lost brokers for that long before it fails. */
const patienceMs = 30_000

/** A partition, and how much of it is read at once. */
export interface Reading extends Place {
  readonly maxBytes: number
}

const anew = (topic: string) =>
  new LogError({
    operation: "read",
    topic,
    retryable: false,
    reason:
      "it was deleted and made anew while it was read: what was handled was another topic's. Rebuild what was made of it"
  })

const orFail = (result: Fetched | OutOfRange): Effect.Effect<Batch, OutOfRange> =>
  result instanceof OutOfRange ? Effect.fail(result) : Effect.succeed(result.batch)

/** What is there from a position on, at once. */
export const read = (client: Client, place: Reading, position: Position): Effect.Effect<Batch, ReadError> =>
  attempt("read", place.topic, () =>
    retrying(client, place.topic, client.requestMs, async () => {
      const { id } = await topicWith(client, place.topic, place.partition)
      const leader = await client.leader(place.topic, place.partition)
      const once = (broker: Broker) => fetch(client, broker, { ...place, id }, position, 0)
      return client.use(leader, "read", once, client.requestMs * 2)
    })
  ).pipe(
    Effect.flatMap(orFail),
    Effect.map((batch) => splitBatch(batch, place.maxBytes)[0])
  )

/** A leader that has just become one may say out of range of what the last one had, and know it a moment later. */
const behind = ({ message }: OutOfRange) => new KafkaFailure("OFFSET_NOT_AVAILABLE", message, true)

/** What is asked for while nothing is expected: an answer that waits holds it all the time. */
const idleBytes = 64 << 10

/** A batch, and what it counts for in the budget. */
interface Counted {
  readonly batch: Batch
  readonly size: number
}

/**
 * Follows one partition with promises. One fetch is under way while the batch before is handled, and no more than that is held; nor more
 * than the budget that all readers share, up to a record batch a reader, for brokers cut none in two.
 */
class Follower {
  private readonly client: Client
  private readonly source: Source
  /** Where the next fetch begins. */
  private position: Position
  private broker: Broker | undefined
  private node = -1
  private pending: Promise<Counted | OutOfRange> | undefined
  /** Fetched and not taken. */
  private rest: Batch | undefined
  /** Of what was taken last and is handled, with the rest. */
  private size = 0
  /** Characters that a byte on the wire became, the last time; before it is known, what packed JSON rarely passes. */
  private ratio = 8
  /** Nothing more was there, the last time. */
  private idle = false
  private closed = false
  private readonly share: Share

  constructor(client: Client, source: Source, position: Position) {
    this.client = client
    this.source = source
    this.position = position
    this.share = client.budget.join()
  }

  private drop() {
    if (this.broker !== undefined) this.client.drop(this.broker)
    this.broker = undefined
  }
  private async once(position: Position, maxBytes: number): Promise<Fetched | OutOfRange> {
    const { client, source } = this
    const { id } = await client.topic(source.topic)
    if (id !== source.id) throw anew(source.topic)
    const leader = await client.leader(source.topic, source.partition)
    if (this.broker === undefined || this.node !== leader || !this.broker.isConnected()) {
      this.drop()
      const broker = await client.connectTo(leader)
      if (this.closed) {
        client.drop(broker)
        throw new Error("the reader was closed")
      }
      this.broker = broker
      this.node = leader
    }
    return fetch(client, this.broker, { ...source, maxBytes }, position, waitMs)
  }
  /** One fetch of no more than there is room for; undefined where nothing came. */
  private async within(position: Position): Promise<Counted | OutOfRange | undefined> {
    const { share, source } = this
    const most = Math.min(source.maxBytes, Math.floor(share.fair() / this.ratio))
    const maxBytes = this.idle ? Math.min(most, idleBytes) : most
    const asked = Math.min(Math.ceil(maxBytes * this.ratio), this.client.budget.total)
    await share.take(asked)
    let size = 0
    try {
      const result = await this.once(position, maxBytes)
      if (result instanceof OutOfRange) return result
      const { batch, wire } = result
      for (const record of batch.records) size += sizeOf(record)
      if (size > 0 && wire > 0) this.ratio = Math.max(1, size / wire)
      this.idle = batch.next >= batch.end
      return batch.next > position ? { batch, size } : undefined
    } finally {
      share.correct(size - asked)
    }
  }
  private async fetch(position: Position): Promise<Counted | OutOfRange> {
    let failing = 0
    for (let pause = 10; ;) {
      try {
        const result = await this.within(position)
        if (result instanceof OutOfRange && position >= result.start && position <= result.end) throw behind(result)
        if (result !== undefined) return result
        if (this.closed) throw new Error("the reader was closed")
        failing = 0
        pause = 10
      } catch (cause) {
        this.drop()
        if (failing === 0) failing = Date.now()
        if (this.closed || !(isMoved(cause) || isLost(cause)) || Date.now() - failing > patienceMs) throw cause
        this.client.forget(this.source.topic)
        await new Promise((resolve) => setTimeout(resolve, pause))
        pause = Math.min(pause * 2, 500)
      }
    }
  }
  /** The next batch; undefined while nothing of what was fetched is left, and `wait` must be called. */
  ready(): Batch | undefined {
    if (this.rest === undefined) return undefined
    const [first, rest] = splitBatch(this.rest, this.source.maxBytes)
    this.rest = rest
    // at the end, what was asked for now would hold little, and what comes meanwhile would wait a batch longer
    if (rest === undefined && !this.idle) this.ahead()
    return first
  }
  private ahead() {
    this.pending ??= this.fetch(this.position)
    // it is seen by whoever takes next
    this.pending.catch(() => undefined)
  }
  /** Waits until something is ready. May be given up and called again. */
  async wait(): Promise<OutOfRange | undefined> {
    // whoever asks for the next one is done with the last
    this.share.correct(-this.size)
    this.size = 0
    this.ahead()
    const pending = this.pending
    try {
      const result = await pending!
      if (this.pending !== pending) return undefined
      this.pending = undefined
      if (result instanceof OutOfRange) return result
      this.rest = result.batch
      this.size = result.size
      this.position = result.batch.next
      return undefined
    } catch (cause) {
      if (this.pending === pending) this.pending = undefined
      throw cause
    }
  }
  close() {
    this.closed = true
    this.share.leave()
    this.drop()
  }
}

/** A reader of a partition. Fails at once where the position is out of range, and never goes elsewhere by itself. */
export const open = Effect.fnUntraced(function* (
  client: Client,
  place: Reading,
  from: Position
): Effect.fn.Return<Reader, ReadError, Scope.Scope> {
  const source = yield* attempt("read", place.topic, async (): Promise<Source | OutOfRange> => {
    const { id } = await topicWith(client, place.topic, place.partition)
    const bounds = await retrying(client, place.topic, client.requestMs, () =>
      offsets(client, place.topic, [place.partition])
    )
    const { start } = bounds.get(place.partition)!
    // beyond the end may be what a transaction under way holds back: the broker tells
    return Number.isSafeInteger(from) && from >= start ? { ...place, id } : rangeError(client, place, from)
  })
  if (source instanceof OutOfRange) return yield* source
  const follower = yield* Effect.acquireRelease(
    Effect.sync(() => new Follower(client, source, from)),
    (one) => Effect.sync(() => one.close())
  )
  const take = Effect.gen(function* () {
    while (true) {
      const batch = follower.ready()
      if (batch !== undefined) return batch
      const error = yield* attempt("read", source.topic, () => follower.wait())
      if (error !== undefined) return yield* error
    }
  })
  return { take }
})
