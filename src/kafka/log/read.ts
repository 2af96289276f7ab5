// Reads a partition: once, or following it over a connection of its own with one fetch ahead.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import {
  type Batch,
  LogError,
  OutOfRange,
  type Position,
  type Reader,
  type ReadError,
  startOver
} from "../../log/log.ts"
import { splitBatch } from "../../log/rules.ts"
import {
  type Broker,
  type Client,
  isLost,
  isMoved,
  KafkaFailure,
  offsets,
  retrying,
  type TopicPartition
} from "../protocol/protocol.ts"
import { attempt } from "./failures.ts"
import { fetchBatch, type FetchedBatch, type FetchSource, rangeError, topicWith } from "./fetch.ts"
import { type BudgetShare, leastBytes, type ReadBudget, sizeOf } from "./read-budget.ts"

/** How long a broker may wait before it answers a fetch of a partition that has nothing new. */
const waitMs = 1_000
/** How long a reader tries again while leaders move and brokers are away, before it fails. */
const patienceMs = 30_000

/** A partition to read, and how many bytes of it at once. */
export interface PartitionReading extends TopicPartition {
  readonly maxBytes: () => number
}

const recreated = (topic: string) =>
  new LogError({
    operation: "read",
    topic,
    retryable: false,
    reason: `it was deleted and recreated while it was read: the events processed so far were another topic's. ${startOver}`
  })

const orFail = (result: FetchedBatch | OutOfRange): Effect.Effect<Batch, OutOfRange> =>
  result instanceof OutOfRange ? Effect.fail(result) : Effect.succeed(result.batch)

/** The records that exist from a position on, without waiting for more. */
export const read = (client: Client, reading: PartitionReading, position: Position): Effect.Effect<Batch, ReadError> =>
  attempt("read", reading.topic, () =>
    retrying(client, reading.topic, client.requestMs, async () => {
      const { id } = await topicWith(client, reading.topic, reading.partition)
      const leader = await client.leader(reading.topic, reading.partition)
      const once = (broker: Broker) =>
        fetchBatch(client, broker, { ...reading, id, maxBytes: reading.maxBytes() }, position, 0)
      return client.use(leader, "read", once, client.requestMs * 2)
    })
  ).pipe(
    Effect.flatMap(orFail),
    Effect.map((batch) => splitBatch(batch, reading.maxBytes())[0])
  )

/** The failure of a new leader that does not have the position yet, which is within the partition's bounds: it will have it a moment later. */
const notYet = ({ message }: OutOfRange) => new KafkaFailure("moved", message, { code: "OFFSET_NOT_AVAILABLE" })

/** How many bytes to request while nothing is expected: they count as held until the broker answers. */
const idleBytes = 64 << 10

/** A partition that is followed: of the topic with this id. */
type FollowedPartition = PartitionReading & Pick<FetchSource, "id">

/** A batch, and what it counts for in the budget, in bytes. */
interface CountedBatch {
  readonly batch: Batch
  readonly size: number
}

/**
 * Follows one partition. One fetch is under way while the previous batch is being handled, and the reader holds no more than these two. All
 * readers together hold no more than their budget, plus one record batch each, because brokers send whole batches.
 */
class Follower {
  private readonly client: Client
  private readonly budget: ReadBudget
  private readonly source: FollowedPartition
  /** Where the next fetch starts. */
  private position: Position
  private broker: Broker | undefined
  private node = -1
  private pending: Promise<CountedBatch | OutOfRange> | undefined
  /** Fetched and not taken yet. */
  private rest: Batch | undefined
  /** The size of the batch taken last, with the rest of it. */
  private size = 0
  /** Characters in memory for each byte on the network, in the last fetch. At first a value that compressed JSON rarely exceeds. */
  private ratio = 8
  /** Whether nothing was fetched yet. */
  private isFirst = true
  /** Whether the last fetch reached the partition's end. */
  private isIdle = false
  private closed = false
  private readonly share: BudgetShare

  constructor(client: Client, budget: ReadBudget, source: FollowedPartition, position: Position) {
    this.client = client
    this.source = source
    this.position = position
    this.budget = budget
    this.share = budget.join()
  }

  /** How much of what the next batch may have there is room for, in the bytes that are counted. */
  private room(): number {
    // the first batch is small, so that the first rows come soon, and shows what a byte of the network is in memory
    return this.share.room(Math.ceil(this.source.maxBytes() * (this.isFirst ? 1 : this.ratio)))
  }
  private drop() {
    if (this.broker !== undefined) this.client.drop(this.broker)
    this.broker = undefined
  }
  private async once(position: Position, maxBytes: number): Promise<FetchedBatch | OutOfRange> {
    const { client, source } = this
    const { id } = await client.topic(source.topic)
    if (id !== source.id) throw recreated(source.topic)
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
    return fetchBatch(client, this.broker, { ...source, maxBytes }, position, waitMs)
  }
  /** Fetches once, no more than the budget has room for. Undefined if nothing came. */
  private async within(position: Position): Promise<CountedBatch | OutOfRange | undefined> {
    const { share, source } = this
    // no room: nothing came, and it tries again ahead of the batch that is being handled
    const room = this.room() || leastBytes
    const most = Math.min(source.maxBytes(), Math.max(1, Math.floor(room / this.ratio)))
    const maxBytes = this.isIdle ? Math.min(most, idleBytes) : most
    const asked = Math.min(Math.ceil(maxBytes * this.ratio), this.budget.total)
    await share.take(asked)
    let size = 0
    try {
      const result = await this.once(position, maxBytes)
      if (result instanceof OutOfRange) return result
      const { batch, wireBytes } = result
      for (const record of batch.records) size += sizeOf(record)
      if (size > 0 && wireBytes > 0) {
        this.ratio = Math.max(1, size / wireBytes)
        this.isFirst = false
      }
      this.isIdle = batch.next >= batch.end
      return batch.next > position ? { batch, size } : undefined
    } finally {
      share.correct(size - asked)
    }
  }
  private async fetch(position: Position): Promise<CountedBatch | OutOfRange> {
    let failing = 0
    for (let pause = 10; ;) {
      try {
        const result = await this.within(position)
        if (result instanceof OutOfRange && position >= result.start && position <= result.end) throw notYet(result)
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
  /** The next batch; undefined if everything fetched was taken, and `wait` must be called. */
  ready(): Batch | undefined {
    if (this.rest === undefined) return undefined
    const [first, rest] = splitBatch(this.rest, this.source.maxBytes())
    this.rest = rest
    // not at the end: a fetch now would return little, and records that arrive meanwhile would wait for the next one
    if (rest === undefined && !this.isIdle && this.room() > 0) this.ahead()
    return first
  }
  private ahead() {
    this.pending ??= this.fetch(this.position)
    // the next call of `wait` reports a failure
    this.pending.catch(() => undefined)
  }
  /** Waits until a batch is ready, or returns why the position is out of range. May be interrupted and called again. */
  async wait(): Promise<OutOfRange | undefined> {
    // a caller that waits for the next batch has handled the last one
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

/** Opens a reader of a partition, until the scope closes. Fails at once if the position is out of range; it never changes the position by itself. */
export const open = Effect.fnUntraced(function* (
  client: Client,
  budget: ReadBudget,
  reading: PartitionReading,
  from: Position
): Effect.fn.Return<Reader, ReadError, Scope.Scope> {
  const source = yield* attempt("read", reading.topic, async (): Promise<FollowedPartition | OutOfRange> => {
    const { id } = await topicWith(client, reading.topic, reading.partition)
    const bounds = await retrying(client, reading.topic, client.requestMs, () =>
      offsets(client, reading.topic, [reading.partition])
    )
    const { start } = bounds.get(reading.partition)!
    // beyond the end may be records of an open transaction; a fetch will show
    return Number.isSafeInteger(from) && from >= start ? { ...reading, id } : rangeError(client, reading, from)
  })
  if (source instanceof OutOfRange) return yield* source
  const follower = yield* Effect.acquireRelease(
    Effect.sync(() => new Follower(client, budget, source, from)),
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
