// Processes the batches of one partition, from the log's records to the committed claim. The only place that commits.
//
// A batch goes: decode → drop duplicates → look up → call the handler → fold into changes → one commit. A batch that the store
// refuses is halved until the event at fault is alone; that event fails, and the others are committed.
import * as Effect from "effect/Effect"
import { fingerprintOf, type Batch, type LogRecord } from "../log/log.ts"
import { type FindKey, maySeal } from "../erasure/sealed.ts"
import { isTimeMark } from "../log/time-mark.ts"
import type { Projection } from "../model/projection.ts"
import type { Writable } from "../model/handler.ts"
import type { Entries } from "../model/recorder.ts"
import type { Topic } from "../model/topic.ts"
import { ChainPosition, unlinked } from "./chain.ts"
import { BatchLookups } from "./batch-lookups.ts"
import { SeenIds } from "./dedupe.ts"
import { EventDecoder, type DecodedEvent, type OtherRecord } from "./event-decoder.ts"
import type { FollowerTurns } from "./follower-turns.ts"
import { busy, FailedEvents, type Stopped } from "./failed-events.ts"
import { BatchFold, readsRows, type ReadRow } from "./fold.ts"
import { HandlerCaller, RunningHandler, type HandlerFailure } from "./handler-caller.ts"
import type { LookupError } from "./lookup-tables.ts"
import { readRows } from "./needed-rows.ts"
import { originOf } from "./origin.ts"
import { ChangePreparer, type Origin } from "./prepared-changes.ts"
import type { ProcessorOptions } from "./processor-options.ts"
import { sameKind } from "./retries.ts"
import type { MessageOptions } from "./segments.ts"
import { eventText, runAs } from "./running-code.ts"
import { streamTimeOfRetry, type StreamTime } from "./stream-time.ts"
import {
  Mismatch,
  type Changes,
  type Claim,
  type Fenced,
  type Segment,
  StoreError,
  type Store,
  Unstorable
} from "./store.ts"

/** An event that was handled, and the part of the log that its handler asked for, or how it failed. */
interface HandledEvent {
  readonly record: LogRecord
  readonly origin: Origin
  readonly failure: HandlerFailure | undefined
  /** By which it is known as a duplicate, if the projection dedupes. */
  readonly id: string | undefined
  readonly from: number
  readonly to: number
}
/** How far a batch is: what its events came to, and those that wait for rows to be read. */
interface BatchState {
  readonly fold: BatchFold
  /** The number of its records; for retries, of those that they bring back. */
  readonly size: number
  readonly time: StreamTime
  /** The first one needs rows; all later ones are applied after it, in order. */
  readonly waiting: Array<HandledEvent>
  /** The tenants and ids of those that wait. Whether one of them fails decides whether later ones are duplicates. */
  readonly waitingIds: Set<string>
  folded: number
  duplicates: number
}
/** Everything that processing a batch can fail with. */
export type ProcessError = StoreError | Fenced | Mismatch | LookupError

/** Records that are decoded together: what is folded of them is garbage while it is young, which costs the collector least. */
const sliceSize = 500
/** The same where each slice takes a turn: about a millisecond. */
const sliceOfTurn = 100

/** Processes batches under one claim of one partition. Its caches live as long as the claim does. */
export class PartitionProcessor<E, R> {
  private claim: Claim
  private readonly projection: Projection.Of<E, R>
  private readonly source: Topic.Any
  private readonly messages: MessageOptions
  private readonly store: Store["Service"]
  private readonly handler: HandlerCaller<E, R>
  private readonly lookups: BatchLookups
  private readonly decoder: EventDecoder
  private readonly seen: SeenIds | undefined
  private readonly preparer: ChangePreparer
  /** What handlers asked for of the events that are not applied yet. */
  private readonly log: Entries = []
  private readonly failed: FailedEvents
  private readonly chain: ChainPosition
  private readonly turns: FollowerTurns | undefined
  /** When the last commit was sent, by `performance.now()`. */
  sentAt = 0

  constructor(options: ProcessorOptions<E, R>) {
    const { claim, links = unlinked, lookupTables, partitions, projection, source, store } = options
    this.claim = claim
    this.chain = new ChainPosition(links, claim)
    this.projection = projection
    this.source = source
    this.store = store
    // what follows is live only under another claim
    const isMuted = claim.mode === "follower"
    this.turns = isMuted ? options.turns : undefined
    this.messages = { sourcePartitions: partitions, times: this.chain.messageTimes, isMuted }
    this.decoder = new EventDecoder(projection, source, claim.owner)
    this.failed = new FailedEvents(projection, source, claim, store)
    this.handler = new HandlerCaller(projection, this.log, isMuted, options.samplers)
    this.lookups = new BatchLookups(projection, claim, partitions, lookupTables, store)
    this.preparer = new ChangePreparer(projection.writes as ReadonlyArray<Writable>, {
      ...this.messages,
      hasOneSource: projection.sources.length === 1,
      hasKeys: options.hasKeys ?? true,
      commands: { projection: projection.name, sends: projection.sends, identity: claim.identity }
    })
    if (projection.dedupe !== undefined) this.seen = new SeenIds(projection.dedupe.withinMs, claim.newestSeen)
  }

  /**
   * Processes a batch and commits it, in several commits if it holds retries, or events that the store refuses. Returns the claim
   * after the last commit. Fails with `Mismatch` if the partition must halt.
   */
  readonly process = Effect.fnUntraced(function* (
    this: PartitionProcessor<E, R>,
    { next, records }: Pick<Batch, "records" | "next">
  ): Effect.fn.Return<Claim, ProcessError, R> {
    yield* this.lookups.begin(this.claim, next - 1)
    const isOrdered = this.projection.failure.order === "key"
    let rest = records
    if (rest.length > 1 && this.failed.isAtBound(this.claim)) {
      yield* this.commitBatch(rest.slice(0, 1), rest[0]!.position + 1)
      rest = rest.slice(1)
    }
    const { owner } = this.claim
    for (let count = sameKind(rest, isOrdered, owner); count < rest.length; count = sameKind(rest, isOrdered, owner)) {
      yield* this.commitBatch(rest.slice(0, count), rest[count - 1]!.position + 1)
      rest = rest.slice(count)
    }
    yield* this.commitBatch(rest, next)
    return this.claim
  })
  /** In how many milliseconds `announce` is due if no batch comes; undefined if it is not. */
  get announceDueMs(): number | undefined {
    return this.chain.dueMs
  }
  /** Commits the time marks that are due. */
  readonly announce: Effect.Effect<void, ProcessError, R> = Effect.suspend(() =>
    this.commitBatch([], this.claim.position)
  )

  private commitBatch(
    records: ReadonlyArray<LogRecord>,
    next: number
  ): Effect.Effect<void, StoreError | Fenced | Mismatch, R> {
    return this.changesOf(records, next).pipe(
      Effect.flatMap((changes) => this.send(changes)),
      Effect.map((claim) => this.onCommitted(claim)),
      Effect.catchTag("Unstorable", (refused) => this.commitParts(records, next, refused)),
      Effect.catchTag("Stopped", ({ position, reason }) => {
        const before = records.filter((record) => record.position < position)
        const stop = Effect.fail(reason)
        return before.length === 0 ? stop : Effect.andThen(this.commitBatch(before, position), stop)
      })
    )
  }

  /** The store refuses the batch: commits its halves, fewer retries, or the single event as a failed one. */
  private commitParts(
    records: ReadonlyArray<LogRecord>,
    next: number,
    refused: Unstorable
  ): Effect.Effect<void, StoreError | Fenced | Mismatch | Stopped, R> {
    const [record] = records
    const isSmallest = records.length <= 1 && !this.failed.halveRetries()
    if (isSmallest && refused.mayPass === true) return Effect.fail(busy(refused))
    // without an event there is nothing to blame but the statement itself
    if (record === undefined || (isSmallest && isTimeMark(record))) return Effect.fail(this.mismatch(refused))
    if (isSmallest) return this.commitFailed(record, next, refused)
    if (records.length === 1) return this.commitBatch(records, next)
    const half = records.length >> 1
    return Effect.andThen(
      this.commitBatch(records.slice(0, half), records[half - 1]!.position + 1),
      Effect.suspend(() => this.commitBatch(records.slice(half), next))
    )
  }

  /** Commits past one record whose changes the store refused, as the failure policy says. */
  private readonly commitFailed = Effect.fnUntraced(function* (
    this: PartitionProcessor<E, R>,
    record: LogRecord,
    next: number,
    refused: Unstorable
  ) {
    const [failed = record] = yield* this.begin([record])
    // stream time moves as with any event that failed, or lateness would depend on who refused it
    const { tenant, time } = this.decoder.tryDecode(failed) ?? {}
    const streamTime = this.chain.time(this.claim)
    const judgedBy = time === undefined ? streamTime.current : this.streamTimeAt(streamTime, failed, time)
    const traceparent = this.decoder.traceOf(failed.traceparent)
    const stopped = this.failed.fail({
      record: failed,
      error: refused,
      isOfStore: true,
      attempts: 1,
      eventTime: time,
      streamTime: judgedBy,
      tenant,
      traceparent
    })
    if (stopped !== undefined) return yield* stopped
    const failing = yield* this.failed.streak(this.claim)
    const commit = Effect.suspend(() =>
      this.send({
        position: next,
        fingerprint: fingerprintOf(record),
        ...this.chain.changes(streamTime),
        events: 0,
        duplicates: 0,
        tables: [],
        windows: [],
        late: [],
        seen: undefined,
        lookups: this.lookups.entries(this.claim.position),
        failing,
        ...this.published({ segments: [], counts: {} })
      })
    )
    const claim = yield* this.failed
      .reducing(commit)
      .pipe(Effect.catchTag("Unstorable", (again) => Effect.fail(again.mayPass ? busy(again) : this.mismatch(again))))
    this.onCommitted(claim)
  })
  /**
   * Moves stream time by an event, and returns the one that the event is judged by. A retried dead letter moves nothing: it is as late as it
   * was when it failed.
   */
  private streamTimeAt(time: StreamTime, record: LogRecord, eventTime: number): number {
    const request = this.failed.retryOf(record)
    if (request === undefined) return time.advance(record, eventTime)
    return streamTimeOfRetry(request.streamTime, time.current, record, eventTime)
  }
  private send(changes: Changes) {
    this.sentAt = performance.now()
    const commit = this.store.commit(this.projection, this.claim, changes)
    return this.turns === undefined ? commit : this.turns.commit(commit)
  }
  private mismatch({ message }: Unstorable): Mismatch {
    return new Mismatch({ what: this.projection.name, reason: message })
  }

  /** Forgets what an attempt that was not committed has noted. Returns the records to process: those given, or what they retry. */
  private begin(records: ReadonlyArray<LogRecord>): Effect.Effect<ReadonlyArray<LogRecord>, StoreError> {
    this.seen?.reset()
    this.log.length = 0
    this.chain.reset()
    return this.failed.begin(records, this.claim.mode)
  }
  private onCommitted(claim: Claim): void {
    this.claim = claim
    this.seen?.onCommitted()
    this.failed.onCommitted()
    this.lookups.onCommitted()
    this.chain.onCommitted()
  }

  /** The changes that the records make. */
  private readonly changesOf = Effect.fnUntraced(function* (
    this: PartitionProcessor<E, R>,
    given: ReadonlyArray<LogRecord>,
    next: number
  ): Effect.fn.Return<Changes, StoreError | Stopped | Unstorable, R> {
    const records = yield* this.begin(given)
    const { claim, failed } = this
    const fold = new BatchFold(this.messages)
    const batch: BatchState = {
      fold,
      size: records.length,
      time: this.chain.time(claim),
      waiting: [],
      waitingIds: new Set(),
      folded: 0,
      duplicates: failed.ignoredRetries
    }
    // a follower's batches are large, and live partitions of the process do not wait for them
    const turn = this.turns?.ofBatch()
    const size = turn === undefined ? sliceSize : sliceOfTurn
    for (let at = 0; at < records.length; at += size) {
      if (turn !== undefined) yield* turn
      yield* this.processRecords(batch, records.slice(at, at + size))
    }
    yield* this.applyWaiting(batch)
    const failing = yield* failed.streak(claim)
    if (turn !== undefined) yield* turn
    return {
      position: next,
      fingerprint: given.length === 0 ? claim.fingerprint : fingerprintOf(given.at(-1)!),
      events: batch.folded,
      duplicates: batch.duplicates,
      tables: fold.tableChanges(),
      windows: fold.windowChanges(),
      ...this.published({ segments: fold.segments(), counts: fold.messageCounts() }),
      ...this.chain.changes(batch.time),
      late: fold.late,
      seen: this.seen?.packed(),
      lookups: this.lookups.entries(claim.position),
      commands: fold.commands(),
      failing
    }
  })

  /** The batch's dead letters, and its messages: what handlers published, then the dead letters that are; only their counts if it is muted. */
  private published(handlers: {
    readonly segments: ReadonlyArray<Segment>
    readonly counts: Readonly<Record<string, number>>
  }): Pick<Changes, "deadLetters" | "retried" | "segments" | "muted"> {
    const { segments, ...deadLetters } = this.failed.changes()
    if (this.messages.isMuted !== true) return { ...deadLetters, segments: [...handlers.segments, ...segments] }
    const counted = segments.map(({ messages, topic }) => [topic, messages])
    return { ...deadLetters, segments: [], muted: { ...handlers.counts, ...Object.fromEntries(counted) } }
  }

  /** The keys of the personal fields in records; undefined if none has such fields. */
  private keysOf(records: ReadonlyArray<LogRecord>): Effect.Effect<FindKey | undefined, StoreError> {
    if (this.source.kind !== ("aggregate" as string)) return Effect.undefined
    const sealed = records.flatMap(({ value }) => (value !== null && maySeal(value) ? [value] : []))
    if (sealed.length === 0) return Effect.undefined
    return this.store.subjectKeys
      .forValues(sealed)
      .pipe(
        Effect.mapError(
          ({ cause, message, retryable }) =>
            new StoreError({ operation: "find keys", retryable, reason: message, cause })
        )
      )
  }

  /** Decodes records, calls the handler for each event, and folds the changes that need no rows. */
  private readonly processRecords = Effect.fnUntraced(function* (
    this: PartitionProcessor<E, R>,
    batch: BatchState,
    records: ReadonlyArray<LogRecord>
  ): Effect.fn.Return<void, StoreError | Stopped | Unstorable, R> {
    const { failed, handler, log, seen } = this
    const { waiting, waitingIds } = batch
    const find = yield* this.keysOf(records)
    const { decoded, others } = runAs(
      () => eventText(this.projection, { ...this.claim, position: records[0]!.position }),
      () => this.decoder.decodeAll(records, find)
    )
    yield* this.loadSeen(decoded)
    const lookedUp = yield* this.lookups.resolve(decoded, (record) => failed.retryOf(record)?.by)
    for (let at = 0; at <= decoded.length; at++) {
      // in their turn: a mark moves stream time, and a record that cannot be read keeps that of its position
      while (others[0]?.before === at) {
        const stopped = this.takeOther(batch.time, others.shift()!)
        if (stopped !== undefined) return yield* stopped
      }
      if (at === decoded.length) break
      const { erased, event, id, record, tenant, time } = decoded[at]!
      const streamTime = this.streamTimeAt(batch.time, record, time)
      if (id !== undefined && waitingIds.size > 0 && waitingIds.has(idText(tenant, id))) yield* this.applyWaiting(batch)
      if (id !== undefined && seen!.test(tenant, id, time)) {
        batch.duplicates++
        failed.succeed(record, true)
        continue
      }
      const traceparent = this.decoder.traceOf(record.traceparent)
      const of = { time, streamTime, reached: batch.time.current, tenant, erased }
      const origin = originOf(record, of, { topic: this.source.name, traceparent })
      const from = log.length
      const parked = failed.behindParked(record)
      const called = parked === undefined ? handler.call(event, origin, lookedUp[at]) : { error: parked, attempts: 0 }
      const prepared =
        (called instanceof RunningHandler ? yield* handler.run(called, from) : called) ?? this.prepare(from, origin)
      if (prepared === "alone" && batch.size > 1)
        return yield* new Unstorable({ code: "22003", reason: "a large contribution is committed alone" })
      const failure = prepared === "alone" ? undefined : prepared
      if (failure !== undefined) log.length = from
      const handled: HandledEvent = { record, origin, failure, id, from, to: log.length }
      if (waiting.length > 0 || readsRows(log, from)) {
        waiting.push(handled)
        if (id !== undefined) waitingIds.add(idText(tenant, id))
        continue
      }
      const stopped = this.apply(batch, handled, noRows)
      if (stopped !== undefined) return yield* stopped
      log.length = from
    }
  })

  /** Checks and prepares what a handler asked for. Returns how the event fails if it cannot be stored; `alone`: see `ChangePreparer`. */
  private prepare(from: number, origin: Origin): HandlerFailure | "alone" | undefined {
    try {
      return this.preparer.prepare(this.log, from, origin) ? "alone" : undefined
    } catch (error) {
      return { error, attempts: 1 }
    }
  }

  /** Takes a time mark, or a record that cannot be read: no handler sees it, and it reads the same each time, so nothing is retried. */
  private takeOther(time: StreamTime, { record, unread }: OtherRecord): Stopped | undefined {
    if (unread === undefined) return void time.mark?.(record)
    const traceparent = this.decoder.traceOf(record.traceparent)
    const streamTime = time.current
    const unknown = { eventTime: undefined, tenant: undefined, traceparent }
    return this.failed.fail({ record, error: unread.error, attempts: 1, streamTime, ...unknown })
  }

  /** Loads the stored ids that events of these times may be duplicates of. */
  private readonly loadSeen = Effect.fnUntraced(function* (
    this: PartitionProcessor<E, R>,
    decoded: ReadonlyArray<DecodedEvent>
  ) {
    if (this.seen === undefined || decoded.length === 0) return
    const ranges = this.seen.missing(decoded.map(({ time }) => time))
    if (ranges.length === 0) return
    this.seen.load(ranges, yield* this.store.seenIds(this.claim, ranges))
  })

  /** Folds what an event's handler asked for. An event that failed, or whose changes are refused, fails; `Stopped` if that stops the partition. */
  private apply(batch: BatchState, handled: HandledEvent, read: ReadRow): Stopped | undefined {
    const { id, origin, record } = handled
    // an earlier event of its key may have failed since it was handled
    const parked = this.failed.behindParked(record)
    const failure = parked === undefined ? this.folded(batch, handled, read) : { error: parked, attempts: 0 }
    if (failure !== undefined) {
      if (id !== undefined) this.seen!.forget(origin.tenant, id, origin.eventTime)
      return this.failed.fail({ ...failure, record, ...origin })
    }
    batch.folded++
    this.failed.succeed(record)
    return undefined
  }
  private folded(
    batch: BatchState,
    { failure, from, origin, to }: HandledEvent,
    read: ReadRow
  ): HandlerFailure | undefined {
    if (failure !== undefined || from === to) return failure
    const apply = () => batch.fold.apply(this.log, from, to, origin, read)
    try {
      // changes that need rows call functions of users
      if (read === noRows) apply()
      else runAs(() => eventText(this.projection, origin), apply)
      return undefined
    } catch (error) {
      return { error, attempts: 1 }
    }
  }

  /** Reads all rows that the waiting events need at once (what they asked for is known before anything is applied), then applies them. */
  private readonly applyWaiting = Effect.fnUntraced(function* (this: PartitionProcessor<E, R>, batch: BatchState) {
    const { waiting, waitingIds } = batch
    if (waiting.length === 0) return
    const rows = yield* readRows(this.store, this.projection, this.log, waiting)
    for (const handled of waiting) {
      const stopped = this.apply(batch, handled, (target, key) => rows.get(target)?.get(key))
      if (stopped !== undefined) return yield* stopped
    }
    waiting.length = 0
    waitingIds.clear()
    this.log.length = 0
  })
}

const idText = (tenant: string | undefined, id: string): string => `${tenant ?? ""}\u0000${id}`
const noRows: ReadRow = () => undefined
