// Processes the batches of one partition, from the log's records to the committed claim. The only place that commits.
//
// A batch goes: decode → drop duplicates → look up → call the handler → fold into changes → one commit. A batch that the store
// refuses is halved until the event at fault is alone; that event fails, and the others are committed.
import * as Effect from "effect/Effect"
import { fingerprintOf, type Batch, type LogRecord } from "../log/log.ts"
import { traceIdOf } from "../log/envelope.ts"
import { keyText } from "../model/fields.ts"
import type { Projection } from "../model/projection.ts"
import type { Table } from "../model/read-model.ts"
import { Recorder, type Row } from "../model/recorder.ts"
import type { Topic } from "../model/topic.ts"
import type { Window } from "../model/window.ts"
import { SeenIds } from "./dedupe.ts"
import { EventDecoder, type DecodedEvent } from "./event-decoder.ts"
import { FailedEvents, type Stopped } from "./failed-events.ts"
import { BatchFold, neededRows, readsRows, type ReadRow, windowKey, type Origin } from "./fold.ts"
import { HandlerCaller } from "./handler-caller.ts"
import type { LookupError, LookupTable } from "./lookup-tables.ts"
import { sameKind } from "./retries.ts"
import { PartitionTime, type StreamTime } from "./stream-time.ts"
import { Mismatch, type Changes, type Claim, type Fenced, StoreError, type Store, type Unstorable } from "./store.ts"

/** An event that was handled, and the part of the recorder's log that its handler asked for. */
interface HandledEvent {
  readonly record: LogRecord
  readonly origin: Origin
  /** By which it is known as a duplicate, if the projection dedupes. */
  readonly id: string | undefined
  readonly from: number
  readonly to: number
}
/** How far a batch is: what its events came to, and those whose changes need rows that must be read first. */
interface BatchState {
  readonly fold: BatchFold
  readonly needRows: Array<HandledEvent>
  readonly time: StreamTime
  folded: number
  duplicates: number
}
/** Everything that processing a batch can fail with. */
export type ProcessError = StoreError | Fenced | Mismatch | LookupError

/** What a processor is made from. */
export interface ProcessorOptions<E, R> {
  readonly projection: Projection.Of<E, R>
  readonly source: Topic.Any
  /** The number of the source's partitions. */
  readonly partitions: number
  readonly claim: Claim
  /** The tables of the projection's lookup topics, by topic. */
  readonly lookupTables: ReadonlyMap<string, LookupTable>
  readonly store: Store["Service"]
}

/** Records that are decoded together: what is folded of them is garbage while it is young, which costs the collector least. */
const sliceSize = 500

/** Processes batches under one claim of one partition. Its caches live as long as the claim does. */
export class PartitionProcessor<E, R> {
  private claim: Claim
  private readonly projection: Projection.Of<E, R>
  private readonly source: Topic.Any
  private readonly partitions: number
  private readonly store: Store["Service"]
  private readonly handler: HandlerCaller<E, R>
  private readonly decoder: EventDecoder
  private readonly seen: SeenIds | undefined
  private readonly recorder = new Recorder()
  private readonly failed: FailedEvents

  constructor({ claim, lookupTables, partitions, projection, source, store }: ProcessorOptions<E, R>) {
    this.claim = claim
    this.projection = projection
    this.source = source
    this.partitions = partitions
    this.store = store
    this.decoder = new EventDecoder(projection, source)
    this.failed = new FailedEvents(projection, source, claim, store)
    this.handler = new HandlerCaller(projection, this.recorder, lookupTables)
    const { dedupe } = projection
    if (dedupe !== undefined) this.seen = new SeenIds(dedupe.withinMs, claim.newestSeen)
  }

  /**
   * Processes a batch and commits it, in several commits if it holds retries, or events that the store refuses. Returns the claim
   * after the last commit. Fails with `Mismatch` if the partition must halt.
   */
  readonly process = Effect.fnUntraced(function* (
    this: PartitionProcessor<E, R>,
    { next, records }: Pick<Batch, "records" | "next">
  ): Effect.fn.Return<Claim, ProcessError, R> {
    yield* this.handler.catchUp
    let rest = records
    for (let count = sameKind(rest); count < rest.length; count = sameKind(rest)) {
      yield* this.commitBatch(rest.slice(0, count), rest[count - 1]!.position + 1)
      rest = rest.slice(count)
    }
    yield* this.commitBatch(rest, next)
    return this.claim
  })

  private commitBatch(
    records: ReadonlyArray<LogRecord>,
    next: number
  ): Effect.Effect<void, StoreError | Fenced | Mismatch, R> {
    return this.changesOf(records, next).pipe(
      Effect.flatMap((changes) => this.store.commit(this.projection, this.claim, changes)),
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
    // without a record there is nothing to blame but the statement itself
    if (record === undefined) return Effect.fail(this.mismatch(refused))
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
    const { tenant, time } = this.tryDecode(failed) ?? {}
    const streamTime = this.streamTime()
    if (time !== undefined) streamTime.advance(failed, time)
    const traceparent = this.decoder.traceOf(failed.traceparent)
    const stopped = this.failed.fail({
      record: failed,
      error: refused,
      attempts: 1,
      eventTime: time,
      tenant,
      traceparent
    })
    if (stopped !== undefined) return yield* stopped
    const claim = yield* this.store
      .commit(this.projection, this.claim, {
        position: next,
        fingerprint: fingerprintOf(record),
        streamTime: streamTime.current,
        events: 0,
        duplicates: 0,
        tables: [],
        windows: [],
        late: [],
        seen: undefined,
        ...this.failed.changes()
      })
      .pipe(Effect.catchTag("Unstorable", (again) => Effect.fail(this.mismatch(again))))
    this.onCommitted(claim)
  })
  private tryDecode(record: LogRecord): DecodedEvent | undefined {
    try {
      return this.decoder.decode(record)
    } catch {
      return undefined
    }
  }
  /** Stream time as the last commit left it. */
  private streamTime(): StreamTime {
    return new PartitionTime(this.claim.streamTime)
  }
  private mismatch({ message }: Unstorable): Mismatch {
    return new Mismatch({ what: this.projection.name, reason: message })
  }

  /** Forgets what an attempt that was not committed has noted. Returns the records to process: those given, or what they retry. */
  private begin(records: ReadonlyArray<LogRecord>): Effect.Effect<ReadonlyArray<LogRecord>, StoreError> {
    this.seen?.reset()
    this.recorder.log.length = 0
    return this.failed.begin(records)
  }
  private onCommitted(claim: Claim): void {
    this.claim = claim
    this.seen?.onCommitted()
    this.failed.onCommitted()
  }

  /** The changes that the records make. */
  private readonly changesOf = Effect.fnUntraced(function* (
    this: PartitionProcessor<E, R>,
    given: ReadonlyArray<LogRecord>,
    next: number
  ): Effect.fn.Return<Changes, StoreError | Stopped | Unstorable, R> {
    const records = yield* this.begin(given)
    const { claim, failed, projection, source } = this
    const fold = new BatchFold({
      sourcePartitions: this.partitions,
      hasOneSource: projection.sources.length === 1,
      hasKeys: source.kind === "topic"
    })
    const { ignoredRetries: duplicates } = failed
    const batch: BatchState = { fold, needRows: [], time: this.streamTime(), folded: 0, duplicates }
    for (let at = 0; at < records.length; at += sliceSize)
      yield* this.processRecords(batch, records.slice(at, at + sliceSize))
    if (batch.needRows.length > 0) yield* this.applyWithRows(batch)
    const { segments, ...deadLetters } = failed.changes()
    return {
      position: next,
      fingerprint: given.length === 0 ? claim.fingerprint : fingerprintOf(given.at(-1)!),
      streamTime: batch.time.current,
      events: batch.folded,
      duplicates: batch.duplicates,
      tables: fold.tableChanges(),
      windows: fold.windowChanges(),
      segments: [...fold.segments(), ...segments],
      late: fold.late,
      ...deadLetters,
      seen: this.seen?.packed()
    }
  })

  /** Decodes records, calls the handler for each event, and folds the changes that need no rows. */
  private readonly processRecords = Effect.fnUntraced(function* (
    this: PartitionProcessor<E, R>,
    batch: BatchState,
    records: ReadonlyArray<LogRecord>
  ): Effect.fn.Return<void, StoreError | Stopped, R> {
    const { decoder, failed, handler, seen } = this
    const { log } = this.recorder
    const { needRows } = batch
    const decoded: Array<DecodedEvent> = []
    for (const record of records) {
      try {
        decoded.push(decoder.decode(record))
      } catch (error) {
        const stopped = this.failUnread(record, error)
        if (stopped !== undefined) return yield* stopped
      }
    }
    yield* this.loadSeen(decoded)
    for (const { event, id, record, tenant, time } of decoded) {
      const streamTime = batch.time.advance(record, time)
      if (id !== undefined && seen!.test(tenant, id, time)) {
        batch.duplicates++
        failed.succeed(record)
        continue
      }
      const origin = this.originOf(record, time, streamTime, tenant)
      const from = log.length
      const parked = failed.behindParked(record)
      const called = parked === undefined ? handler.call(event, origin) : { error: parked, attempts: 0 }
      const failure = Effect.isEffect(called) ? yield* handler.run(called, from) : called
      if (failure !== undefined) {
        log.length = from
        if (id !== undefined) seen!.forget(tenant, id, time)
        const stopped = failed.fail({ ...failure, record, eventTime: time, tenant, traceparent: origin.traceparent })
        if (stopped !== undefined) return yield* stopped
        continue
      }
      const handled = { record, origin, id, from, to: log.length }
      // once one event needs rows, all later ones are applied after it, in order
      if (needRows.length > 0 || readsRows(log, from)) {
        needRows.push(handled)
        continue
      }
      const stopped = this.apply(batch, handled, noRows)
      if (stopped !== undefined) return yield* stopped
      log.length = from
    }
  })

  /** No handler saw the event, and it reads the same each time, so nothing is retried. */
  private failUnread(record: LogRecord, error: unknown): Stopped | undefined {
    const unread = { eventTime: undefined, tenant: undefined, traceparent: this.decoder.traceOf(record.traceparent) }
    return this.failed.fail({ record, error, attempts: 1, ...unread })
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

  private originOf(record: LogRecord, eventTime: number, streamTime: number, tenant: string | undefined): Origin {
    const { key, partition, position } = record
    const traceparent = this.decoder.traceOf(record.traceparent)
    return {
      topic: this.source.name,
      partition,
      position,
      key: key ?? "",
      eventTime,
      streamTime,
      tenant,
      traceparent,
      traceId: traceIdOf(traceparent)
    }
  }

  /** Folds what an event's handler asked for. An event whose changes are refused fails; `Stopped` if that stops the partition. */
  private apply(batch: BatchState, { from, id, origin, record, to }: HandledEvent, read: ReadRow): Stopped | undefined {
    // an earlier event of its key may have been refused since it was handled
    const parked = this.failed.behindParked(record)
    try {
      if (parked !== undefined) throw parked
      batch.fold.apply(this.recorder.log, from, to, origin, read)
    } catch (error) {
      if (id !== undefined) this.seen!.forget(origin.tenant, id, origin.eventTime)
      return this.failed.fail({ record, error, attempts: parked === undefined ? 1 : 0, ...origin })
    }
    batch.folded++
    this.failed.succeed(record)
    return undefined
  }

  /** Reads all rows that events need at once (what they asked for is known before anything is applied), then applies them. */
  private readonly applyWithRows = Effect.fnUntraced(function* (this: PartitionProcessor<E, R>, batch: BatchState) {
    const rows = yield* this.readRows(batch.needRows)
    for (const handled of batch.needRows) {
      const stopped = this.apply(batch, handled, (target, key) => rows.get(target)?.get(key))
      if (stopped !== undefined) return yield* stopped
    }
  })

  private readonly readRows = Effect.fnUntraced(function* (
    this: PartitionProcessor<E, R>,
    handled: ReadonlyArray<HandledEvent>
  ) {
    const needed = new Map<Table.Any | Window.Any, Map<string, Row>>()
    for (const { from, origin, to } of handled) {
      for (const { key, target } of neededRows(this.recorder.log, from, to, origin)) {
        let keys = needed.get(target)
        if (keys === undefined) needed.set(target, (keys = new Map()))
        keys.set(keyText(keyOf(target), key), key)
      }
    }
    const rows = new Map<Table.Any | Window.Any, Map<string, Row>>()
    for (const [target, keys] of needed) {
      const found = yield* this.store.readRows(this.projection, target, [...keys.values()])
      rows.set(target, new Map(found.map((row) => [keyText(keyOf(target), row), row])))
    }
    return rows
  })
}

/** The server lacks the time or the memory for a single event: it is tried again later, and not blamed. */
const busy = ({ code, reason }: Unstorable) =>
  new StoreError({ operation: "commit an event", retryable: true, reason: `${reason} (SQLSTATE ${code})` })
const noRows: ReadRow = () => undefined
const keyOf = (target: Table.Any | Window.Any) => (target.kind === "table" ? target.primaryKey : windowKey(target))
