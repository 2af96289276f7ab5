// One consumer of a subscription on PostgreSQL: claims messages before it delivers them, and tracks them until they are acknowledged.
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Semaphore from "effect/Semaphore"
import {
  type Consumer,
  FanOutError,
  type Message,
  redeliveryDelay,
  type SubscribeOptions
} from "../../subscription/fanout.ts"
import type { Log, LogRecord } from "../../log/log.ts"
import type { Sql } from "../client/client.ts"
import { query, type SqlError } from "../client/errors.ts"
import { chunksOf, type PartitionFeed, slotOf } from "./prefetch.ts"
import { isJoined, join, type ConsumerMember, type SubscriptionLocks } from "./locks.ts"
import * as Statement from "./leases-sql.ts"
import { byPosition, messageOf, positionsOf, type RecordPosition } from "./message.ts"
import { pack } from "../log/batch-codec.ts"
import { deadLetterProperties } from "../../subscription/dead-letter.ts"
import { notifyEnds } from "../log/notify.ts"
import { counted } from "../../text/counted.ts"

/** The options of a subscription, with defaults filled in. */
export type ConsumerSettings = Required<SubscribeOptions>
/** What a consumer works with. */
export interface ConsumerParts {
  readonly sql: Sql
  readonly log: Log["Service"]
  readonly locks: SubscriptionLocks
  readonly member: ConsumerMember
  readonly settings: ConsumerSettings
  readonly feeds: ReadonlyArray<PartitionFeed>
  /** Notifies the subscription's consumers in every process that something is to be redelivered in so many milliseconds. */
  readonly notify: (delayMs: number) => Effect.Effect<void>
  /** Creates the dead-letter topic if it does not exist. */
  readonly declareDeadLetters: Effect.Effect<void, FanOutError>
}

const failed = (operation: string) => (error: SqlError) =>
  new FanOutError({ operation, retryable: error.retryable, reason: error.reason, cause: error.cause ?? error })
/** Runs a statement and translates its error to the fan-out's. */
export const fanOutQuery = <A>(operation: string, run: () => PromiseLike<A>) =>
  Effect.mapError(query(operation, run), failed(operation))

interface DeliveredRecord {
  readonly record: LogRecord
  readonly redeliveries: number
}
/** A consumer. */
export class PostgresConsumer implements Consumer {
  /** Opens when `receive` should look again. */
  readonly signal = Latch.makeUnsafe(false)
  /** A failure of reading that does not go away; the next `receive` fails with it. */
  failure: FanOutError | undefined
  private readonly parts: ConsumerParts
  private readonly claimant: Statement.Claimant
  /** Messages that are delivered, or about to be, and not acknowledged, by partition and position. */
  private readonly outstanding = new Map<string, DeliveredRecord>()
  /** Messages that are claimed and not delivered yet. */
  private ready: Array<Message> = []
  /** Chunks to redeliver that are claimed and not read yet. */
  private returned: Array<Statement.RedeliveredChunk> = []
  private readonly one = Semaphore.makeUnsafe(1)
  /** Held while messages are claimed or returned, so that these do not overlap. */
  private readonly claiming = Semaphore.makeUnsafe(1)
  /** Whether the reply to a claim was lost: the server may have leased messages to this consumer that it does not know of. */
  private inDoubt = false
  private dueAt = 0
  private activeAt = performance.now()
  private extendedAt = performance.now()
  private turn = 0

  constructor(parts: ConsumerParts) {
    this.parts = parts
    const { member, settings } = parts
    const { consumer, subscription } = member
    this.claimant = {
      subscription,
      consumer,
      keyed: settings.type === "keyShared",
      ackTimeoutMs: settings.ackTimeoutMs
    }
  }
  /** Has `receive` look for redeliveries in so many milliseconds. */
  due(delayMs: number): void {
    const at = performance.now() + delayMs
    if (at >= this.dueAt) return
    this.dueAt = at
    this.signal.openUnsafe()
  }

  receive(max: number): Effect.Effect<ReadonlyArray<Message>, FanOutError> {
    return this.one.withPermit(this.next(Math.max(1, Math.floor(max))))
  }
  private readonly next = Effect.fnUntraced(function* (this: PostgresConsumer, max: number) {
    while (true) {
      if (this.failure !== undefined) return yield* this.failure
      this.signal.closeUnsafe()
      if (!(yield* this.joined())) continue
      if (this.ready.length > 0) return this.ready.splice(0, max)
      const room = Math.min(max, this.room())
      if (yield* this.claiming.withPermit(this.claimMore(room))) continue
      const timeout = room > 0 ? Infinity : this.activeAt + this.parts.settings.ackTimeoutMs
      const until = room > 0 || this.claimant.keyed ? Math.min(this.dueAt, timeout) : timeout
      yield* Effect.raceFirst(
        this.signal.await,
        Effect.sleep(Math.min(Math.max(until - performance.now(), 1), 2 ** 31 - 1))
      )
    }
  }).bind(this)

  /** Claims messages to redeliver, or else messages that were read ahead. Returns whether `next` should look again. */
  private readonly claimMore = Effect.fnUntraced(function* (this: PostgresConsumer, room: number) {
    if (this.inDoubt) yield* this.disown()
    // with keys in order, messages of this consumer may wait for redeliveries, so even a full queue must accept these
    if (room > 0 || this.claimant.keyed) {
      if (this.returned.length > 0 || this.dueAt <= performance.now()) yield* this.redeliver(Math.max(room, 1))
    }
    return this.ready.length > 0 || (room > 0 && (yield* this.claim(room)))
  }).bind(this)

  private readonly disown = Effect.fnUntraced(function* (this: PostgresConsumer) {
    const delivered = [...this.outstanding.values()].map(({ record }) => record)
    const known = positionsOf([...delivered, ...this.returned.flatMap(Statement.positionsIn)])
    yield* fanOutQuery("receive", () => Statement.disown(this.parts.sql, this.claimant, known))
    this.inDoubt = false
    this.due(0)
    yield* this.parts.notify(0)
  }).bind(this)

  /** Whether this consumer holds its locks and may claim. If not, it waits a while before it returns false. */
  private readonly joined = Effect.fnUntraced(function* (this: PostgresConsumer) {
    const { locks, member, settings } = this.parts
    if (isJoined(locks, member)) return true
    const result = yield* Effect.mapError(join(locks, member), failed("receive"))
    if (result === "joined") {
      yield* fanOutQuery("receive", () => Statement.sweep(this.parts.sql, [member.subscription]))
      this.due(0)
      return true
    }
    if (result === "busy" && settings.type === "exclusive") {
      const reason =
        "the connection to PostgreSQL was lost, and another consumer has taken the exclusive subscription since; subscribe again"
      return yield* new FanOutError({ operation: "receive", retryable: false, reason })
    }
    locks.released.closeUnsafe()
    yield* Effect.raceFirst(locks.released.await, Effect.sleep(result === "lost" ? 50 : 1_000))
    return false
  }).bind(this)

  private room(): number {
    const { ackTimeoutMs, receiveQueue } = this.parts.settings
    // the leases of messages that were held too long have expired
    if (this.outstanding.size > 0 && performance.now() > this.activeAt + ackTimeoutMs) this.outstanding.clear()
    return receiveQueue - this.outstanding.size
  }
  private deliver(record: LogRecord, redeliveries: number): void {
    const message = messageOf(this.parts.settings.topic, record, redeliveries)
    this.outstanding.set(`${record.partition}:${record.position}`, { record, redeliveries })
    this.ready.push(message)
    this.activeAt = performance.now()
  }

  /** Claims messages that were read ahead. False if there are none. */
  private readonly claim = Effect.fnUntraced(function* (this: PostgresConsumer, room: number) {
    const { feeds, sql } = this.parts
    const examined: Array<Statement.ExaminedRange> = []
    const chunks: Array<Statement.PositionChunk> = []
    const candidates = new Map<PartitionFeed, ReadonlyArray<LogRecord>>()
    let left = room
    this.turn += 1
    for (let i = 0; i < feeds.length && left > 0; i++) {
      const feed = feeds[(this.turn + i) % feeds.length]!
      if (feed.isEmpty) continue
      const peeked = feed.peek(left)
      left -= peeked.records.length
      examined.push(peeked.examined)
      chunks.push(...chunksOf(feed.partition, peeked.records, this.claimant.keyed))
      candidates.set(feed, peeked.records)
    }
    if (examined.length === 0) return false
    const claimed = yield* fanOutQuery("receive", () => Statement.claim(sql, this.claimant, examined, chunks)).pipe(
      Effect.tapError(() => Effect.sync(() => (this.inDoubt = true)))
    )
    if (claimed.length < examined.length) {
      const reason = "the subscription was deleted; subscribe again"
      return yield* new FanOutError({ operation: "receive", retryable: false, reason })
    }
    for (const [feed, records] of candidates) {
      const part = claimed.find(({ partition }) => partition === feed.partition)!
      if (part.claimed) this.take(feed.partition, records, part)
      feed.forget(part.next)
    }
    return true
  }, Effect.uninterruptible).bind(this)

  private take(partition: number, records: ReadonlyArray<LogRecord>, { first, held }: Statement.PartitionClaim): void {
    const mine = records.filter(({ position }) => position >= first)
    if (held === null) return mine.forEach((record) => this.deliver(record, 0))
    const waiting = new Set(held)
    for (const record of mine) if (!waiting.has(slotOf(record.key ?? ""))) this.deliver(record, 0)
    // slots may have become free during the claim
    this.due(0)
  }

  /** Claims and reads messages to redeliver, and moves those that were redelivered too often to the dead-letter topic. */
  private readonly redeliver = Effect.fnUntraced(function* (this: PostgresConsumer, room: number) {
    const { sql, settings } = this.parts
    if (this.returned.length === 0) {
      this.dueAt = Infinity
      this.returned = yield* fanOutQuery("receive", async () => [
        ...(await Statement.redeliver(sql, this.claimant, room))
      ]).pipe(
        Effect.tapError(() =>
          Effect.sync(() => {
            this.inDoubt = true
            this.due(0)
          })
        )
      )
      const [waiting] = yield* fanOutQuery("receive", () => Statement.nextDue(sql, [this.claimant.subscription]))
      // what is due and could not be claimed is held by another consumer; its acknowledgement or the next sweep wakes this one
      if (waiting !== undefined && (waiting.due_ms > 0 || this.returned.length > 0))
        this.due(Math.max(waiting.due_ms, 0))
    }
    // Each partition is read once, and not once for each of its chunks: leases that expire meanwhile would be delivered to others, too.
    for (const [partition, chunks] of Map.groupBy(this.returned, (chunk) => chunk.partition)) {
      const redeliveries = new Map<number, number>()
      for (const chunk of chunks)
        for (const position of Statement.positionsOf(chunk.positions)) redeliveries.set(position, chunk.redeliveries)
      const positions = [...redeliveries.keys()].toSorted((a, b) => a - b)
      const records = yield* this.read(partition, positions)
      for (const record of records) this.deliver(record, redeliveries.get(record.position)!)
      this.returned = this.returned.filter((chunk) => chunk.partition !== partition)
    }
    const spent = this.ready.filter(({ redeliveries }) => redeliveries > settings.maxRedeliveries)
    this.ready = this.ready.filter(({ redeliveries }) => redeliveries <= settings.maxRedeliveries).toSorted(byPosition)
    if (spent.length > 0)
      yield* this.moveToDeadLetters(spent, `redelivered ${counted(settings.maxRedeliveries, "time")}`)
  }, Effect.uninterruptible).bind(this)

  private readonly read = Effect.fnUntraced(function* (
    this: PostgresConsumer,
    partition: number,
    positions: ReadonlyArray<number>
  ) {
    const { log, settings, sql } = this.parts
    const found = new Map<number, LogRecord>()
    for (let i = 0; i < positions.length;) {
      const from = positions[i]!
      const batch = yield* log.read(settings.topic, partition, from).pipe(
        Effect.catchTag("OutOfRange", ({ end, start }) =>
          Effect.succeed({ records: [], next: Math.max(start, from + 1), end })
        ),
        Effect.mapError(
          (cause) =>
            new FanOutError({
              operation: "receive",
              retryable: cause._tag === "LogError" && cause.retryable,
              reason: cause.message,
              cause
            })
        )
      )
      for (const record of batch.records) found.set(record.position, record)
      while (i < positions.length && positions[i]! < Math.max(batch.next, from + 1)) i++
    }
    const gone = positions.filter((position) => !found.has(position))
    if (gone.length > 0) {
      yield* fanOutQuery("receive", () =>
        Statement.acknowledge(sql, this.claimant.subscription, [{ partition, positions: gone }])
      )
    }
    return positions.flatMap((position) => found.get(position) ?? [])
  }).bind(this)

  readonly acknowledge = Effect.fnUntraced(function* (this: PostgresConsumer, messages: ReadonlyArray<Message>) {
    if (messages.length === 0) return
    const { notify, sql } = this.parts
    const rows = yield* fanOutQuery("acknowledge", () =>
      Statement.acknowledge(sql, this.claimant.subscription, positionsOf(messages))
    )
    this.removeOutstanding(messages)
    if (rows[0]?.waits === true) yield* notify(0)
    yield* this.extend()
  }).bind(this)

  readonly negativeAcknowledge = Effect.fnUntraced(function* (
    this: PostgresConsumer,
    messages: ReadonlyArray<Message>
  ) {
    const { notify, settings } = this.parts
    const spent = messages.filter(({ redeliveries }) => redeliveries >= settings.maxRedeliveries)
    const back = messages.filter(({ redeliveries }) => redeliveries < settings.maxRedeliveries)
    for (const [delayMs, some] of Map.groupBy(back, ({ redeliveries }) => redeliveryDelay(settings, redeliveries))) {
      yield* this.claiming.withPermit(this.returnWithDelay(some, delayMs))
      yield* notify(delayMs)
    }
    if (spent.length > 0)
      yield* this.moveToDeadLetters(
        spent,
        `redelivered ${counted(settings.maxRedeliveries, "time")} and not acknowledged`
      )
    yield* this.extend()
  }).bind(this)

  private readonly returnWithDelay = Effect.fnUntraced(function* (
    this: PostgresConsumer,
    messages: ReadonlyArray<Message>,
    delayMs: number
  ) {
    const returnTo = (some: ReadonlyArray<RecordPosition>, count: 0 | 1) =>
      fanOutQuery("negativeAcknowledge", () =>
        Statement.returnMessages(this.parts.sql, this.claimant, positionsOf(some), delayMs, count)
      )
    yield* returnTo(messages, 1)
    this.removeOutstanding(messages)
    if (this.claimant.keyed) {
      // messages of these slots that are claimed and not delivered yet are returned too, so that they come after them
      const behind = this.takeUndelivered(messages)
      this.removeOutstanding(behind)
      // if this fails, the server has them leased to a consumer that no longer knows of them
      const inDoubt = Effect.sync(() => (this.inDoubt = true))
      if (behind.length > 0) yield* Effect.tapError(returnTo(behind, 0), () => inDoubt)
    }
    this.due(delayMs)
  }, Effect.uninterruptible).bind(this)

  /** Removes and returns what is claimed of the slots of some messages and not delivered yet, or not even read because that failed. */
  private takeUndelivered(messages: ReadonlyArray<Message>): ReadonlyArray<RecordPosition> {
    const slots = new Set(messages.map(({ key, partition }) => `${partition}:${slotOf(key)}`))
    // chunks of slot 0 were claimed while the subscription had another type, and may have messages of any slot
    for (const { partition } of messages) slots.add(`${partition}:0`)
    const ready = this.ready.filter(({ key, partition }) => slots.has(`${partition}:${slotOf(key)}`))
    this.ready = this.ready.filter((message) => !ready.includes(message))
    const unread = this.returned.filter(({ partition, slot }) => slots.has(`${partition}:${slot}`))
    this.returned = this.returned.filter((chunk) => !unread.includes(chunk))
    return [...ready, ...unread.flatMap(Statement.positionsIn)]
  }

  readonly deadLetter = (messages: ReadonlyArray<Message>, reason: string) =>
    messages.length === 0 ? Effect.void : this.moveToDeadLetters(messages, reason)

  private readonly moveToDeadLetters = Effect.fnUntraced(function* (
    this: PostgresConsumer,
    messages: ReadonlyArray<Message>,
    reason: string
  ) {
    const { declareDeadLetters, notify, settings, sql } = this.parts
    yield* declareDeadLetters
    const ends: Array<string> = []
    for (const { partition, position } of messages.toSorted(byPosition)) {
      const held = this.outstanding.get(`${partition}:${position}`)
      if (held === undefined) continue
      const headers = {
        ...held.record.headers,
        ...deadLetterProperties({
          source: settings.topic,
          partition,
          position: String(position),
          subscription: settings.name,
          redeliveries: held.redeliveries,
          reason
        })
      }
      const packed = pack([{ ...held.record, headers }])
      const rows = yield* fanOutQuery("deadLetter", () =>
        Statement.deadLetter(sql, this.claimant, partition, position, settings.deadLetterTopic, packed)
      )
      ends.push(...rows.map((row) => row.ends))
    }
    this.removeOutstanding(messages)
    yield* notifyEnds(sql, ends)
    if (this.claimant.keyed) yield* notify(0)
  }).bind(this)

  private removeOutstanding(messages: ReadonlyArray<RecordPosition>): void {
    for (const { partition, position } of messages) this.outstanding.delete(`${partition}:${position}`)
    this.activeAt = performance.now()
    this.signal.openUnsafe()
  }
  /** Extends the leases of the other messages after an acknowledgement, at most once in a tenth of their time. */
  private readonly extend = Effect.fnUntraced(function* (this: PostgresConsumer) {
    const now = performance.now()
    if (this.outstanding.size === 0 || now < this.extendedAt + this.claimant.ackTimeoutMs / 10) return
    this.extendedAt = now
    yield* fanOutQuery("acknowledge", () => Statement.extend(this.parts.sql, this.claimant))
  }).bind(this)

  /** Returns all messages, to be redelivered to other consumers at once. */
  get close(): Effect.Effect<void> {
    return fanOutQuery("close", () => Statement.release(this.parts.sql, this.claimant)).pipe(
      Effect.tap(() => this.parts.notify(0)),
      // if this fails, the next sweep returns them
      Effect.ignore
    )
  }
}
