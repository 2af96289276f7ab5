// Handles one partition's batches: decodes, drops duplicates, looks up, calls the handler, and folds what it asks for into changes.
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { BatchFold, needs, readsRows, type ReadRow, windowKey, type Origin } from "./fold.ts"
import { SeenIds } from "./dedupe.ts"
import { describeError, EarlierParked } from "../dead-letter/event-failure.ts"
import { keyText } from "../model/fields.ts"
import { traceIdOf } from "../log/envelope.ts"
import { fingerprintOf, type LogRecord } from "../log/log.ts"
import { Parking, type Failure } from "./parked-events.ts"
import type { Projection } from "../model/projection.ts"
import type { Table } from "../model/read-model.ts"
import { Recorder, type Row } from "../model/recorder.ts"
import type { LookupTable } from "./lookup-tables.ts"
import { Mismatch, type Changes, type Claim, type Store, type StoreError, type Unstorable } from "./store.ts"
import type { Topic } from "../model/topic.ts"
import { Waiting } from "./retries.ts"
import type { Window } from "../model/window.ts"

/** An event that waits for rows to be read: where it stands, and which part of the recorder's log it asked for. */
interface Handled {
  readonly record: LogRecord
  readonly origin: Origin
  readonly from: number
  readonly to: number
}
interface Decoded {
  readonly record: LogRecord
  readonly event: unknown
  readonly time: number
  readonly tenant: string | undefined
}

/** How far a batch is: what its events came to, and those that wait for rows. */
interface Work {
  readonly fold: BatchFold
  readonly waiting: Array<Handled>
  folded: number
  streamTime: number
  duplicates: number
}
/** Records that are decoded together: what of them is folded is garbage while it is young, which costs the collector least. */
const sliceOf = 500

// PostgreSQL's timestamptz begins in 4714 BC; JavaScript's dates end in 275760
const firstTime = -210_866_803_200_000
const lastTime = 8.64e15

/** How an event failed, and after how many attempts. */
interface Failed {
  readonly error: unknown
  readonly attempts: number
}

/** The policy stops the partition before the record at `position`. What comes before it in the batch may still be committed. */
export class Stopped extends Data.TaggedError("Stopped")<{ readonly position: number; readonly reason: Mismatch }> {}

/** The work of one claim of one partition. Its caches live as long as the claim does. */
export class Handling<E, R> {
  readonly lookupTables: ReadonlyArray<LookupTable>
  private readonly projection: Projection.Of<E, R>
  private readonly source: Topic.Any
  private readonly partitions: number
  private readonly store: Store["Service"]
  private readonly lookups: ReadonlyArray<{
    readonly name: string
    readonly table: LookupTable
    readonly by: Projection.Any["enrich"][string]["by"]
  }>
  private readonly seen: SeenIds | undefined
  private readonly recorder = new Recorder()
  private readonly parking: Parking
  private readonly waiting: Waiting
  private stopped: Stopped | undefined
  private trace: { readonly given: string | undefined; readonly sound: string | undefined } = {
    given: undefined,
    sound: undefined
  }

  constructor(
    projection: Projection.Of<E, R>,
    source: Topic.Any,
    partitions: number,
    claim: Claim,
    lookupTables: ReadonlyMap<string, LookupTable>,
    store: Store["Service"]
  ) {
    this.projection = projection
    this.source = source
    this.parking = new Parking(projection, source)
    this.waiting = new Waiting(projection, source.name, store)
    this.partitions = partitions
    this.store = store
    this.lookups = Object.entries(projection.enrich).map(([name, { by, topic }]) => ({
      name,
      by,
      table: lookupTables.get(topic.name)!
    }))
    this.lookupTables = [...new Set(this.lookups.map(({ table }) => table))]
    const { dedupe } = projection
    if (dedupe !== undefined) this.seen = new SeenIds(dedupe.withinMs, claim.streamTime)
  }

  /** The changes that records make, from `claim` on. Noted ids wait for `settle` or `reset`. */
  readonly changes = Effect.fnUntraced(function* (
    this: Handling<E, R>,
    claim: Claim,
    records: ReadonlyArray<LogRecord>,
    next: number
  ): Effect.fn.Return<Changes, StoreError | Stopped | Unstorable, R> {
    this.reset()
    this.recorder.log.length = 0
    const brought = yield* this.waiting.bring(records)
    const fold = new BatchFold(this.partitions, this.projection.sources.length === 1)
    const { passedOver: duplicates } = this.waiting
    const work: Work = { fold, waiting: [], folded: 0, streamTime: claim.streamTime ?? -Infinity, duplicates }
    for (let at = 0; at < brought.length; at += sliceOf) yield* this.work(work, brought.slice(at, at + sliceOf))
    if (work.waiting.length > 0) work.folded += yield* this.applyWaiting(fold, work.waiting)
    return {
      position: next,
      fingerprint: records.length === 0 ? claim.fingerprint : fingerprintOf(records.at(-1)!),
      streamTime: Number.isFinite(work.streamTime) ? work.streamTime : undefined,
      events: work.folded,
      duplicates: work.duplicates,
      tables: fold.tableChanges(),
      windows: fold.windowChanges(),
      segments: [...fold.segments(), ...this.parking.segments()],
      late: fold.late,
      deadLetters: this.parking.letters,
      retried: this.parking.retried,
      seen: this.seen?.packed()
    }
  })

  /** Decodes and handles some records, and folds what reads no rows. */
  private readonly work = Effect.fnUntraced(function* (
    this: Handling<E, R>,
    work: Work,
    records: ReadonlyArray<LogRecord>
  ): Effect.fn.Return<void, StoreError | Stopped, R> {
    const { log } = this.recorder
    const { fold, waiting } = work
    const decoded = this.decode(records)
    if (this.stopped !== undefined) return yield* this.stopped
    yield* this.loadSeen(decoded)
    for (const { event, record, tenant, time } of decoded) {
      if (time > work.streamTime) work.streamTime = time
      const id = this.idOf(event)
      if (id !== undefined && this.seen!.test(tenant, id, time)) {
        work.duplicates++
        this.handledAgain(record)
        continue
      }
      const origin = this.originOf(record, time, work.streamTime, tenant)
      const from = log.length
      const failure = this.waiting.isBehind(record) ? behind(record) : this.call(event, origin)
      if (failure !== undefined) {
        const refused = Effect.isEffect(failure) ? yield* this.wait(failure, from) : failure
        if (refused !== undefined) {
          log.length = from
          if (id !== undefined) this.seen!.forget(tenant, id, time)
          yield* this.fail({ ...refused, record, eventTime: time, tenant, traceparent: origin.traceparent })
          continue
        }
      }
      const handled = { record, origin, from, to: log.length }
      if (waiting.length > 0 || readsRows(log, from)) {
        waiting.push(handled)
        continue
      }
      const unfit = this.apply(fold, handled, none)
      if (unfit === undefined) work.folded++
      else yield* this.fail(unfit)
      log.length = from
    }
  })

  /** The commit holds: ids are handled for good. */
  settle(): void {
    this.seen?.settle()
    this.waiting.settle()
  }
  /** There was no commit. */
  reset(): void {
    this.seen?.reset()
    this.parking.reset()
    this.stopped = undefined
  }
  /** PostgreSQL refuses a single record's changes: whether less of it can be tried, a retry with fewer letters. */
  narrow(): boolean {
    return this.waiting.narrow()
  }

  /** Commits past one record that PostgreSQL refused, as the failure policy says. */
  readonly refuse = Effect.fnUntraced(function* (
    this: Handling<E, R>,
    claim: Claim,
    record: LogRecord | undefined,
    next: number,
    refused: Unstorable
  ) {
    // without a record there is nothing to blame but the statement itself
    if (record === undefined) return yield* new Mismatch({ what: claim.projection, reason: refused.message })
    this.reset()
    const nothing = { tables: [], windows: [], late: [], seen: undefined, events: 0, duplicates: 0 }
    // stream time moves as with any event that failed, or lateness would depend on who refused it
    const [failed = record] = yield* this.waiting.bring([record])
    const [decoded] = this.decode([failed])
    const { tenant, time } = decoded ?? {}
    const streamTime = time === undefined ? claim.streamTime : Math.max(claim.streamTime ?? -Infinity, time)
    this.parking.reset()
    const traceparent = this.traceOf(failed.traceparent)
    yield* this.fail({ record: failed, error: refused, attempts: 1, eventTime: time, tenant, traceparent })
    return yield* this.store
      .commit(this.projection, claim, {
        ...nothing,
        position: next,
        fingerprint: fingerprintOf(record),
        streamTime,
        segments: this.parking.segments(),
        deadLetters: this.parking.letters,
        retried: this.parking.retried
      })
      .pipe(
        Effect.catchTag("Unstorable", (again) =>
          Effect.fail(new Mismatch({ what: claim.projection, reason: again.message }))
        )
      )
  })

  private decode(records: ReadonlyArray<LogRecord>): ReadonlyArray<Decoded> {
    const decoded: Array<Decoded> = []
    for (const record of records) {
      try {
        if (record.value === null)
          throw new Error(`a null value deletes a key of a compacted topic; ${this.source.name} has events`)
        const event = this.source.decode(JSON.parse(record.value), record.schemaVersion)
        const time = this.source.timeOf?.(event) ?? record.eventTime
        if (!(time >= firstTime && time <= lastTime)) {
          throw new Error(`its event time ${time} is not between the years 4713 BC and 275760; send epoch milliseconds`)
        }
        if (time > record.appendedAt + this.projection.maxAheadMs) {
          throw new Error(
            `it is dated ${new Date(Math.min(time, 8.64e15)).toISOString()}, more than ${this.projection.maxAheadMs} ms after it arrived; ` +
              "correct the producer's clock, or raise the projection's maxAhead"
          )
        }
        decoded.push({ record, event, time, tenant: record.tenant ?? this.source.tenantOf?.(event) })
      } catch (error) {
        // no handler saw it, and it reads the same each time: nothing to try again
        const unread = { eventTime: undefined, tenant: undefined, traceparent: this.traceOf(record.traceparent) }
        this.stopped = this.settleFailure({ record, error, attempts: 1, ...unread })
        if (this.stopped !== undefined) break
      }
    }
    return decoded
  }

  private idOf(event: unknown): string | undefined {
    if (this.seen === undefined) return undefined
    return (this.projection.dedupe!.by ?? this.source.idOf)?.(event)
  }

  private readonly loadSeen = Effect.fnUntraced(function* (this: Handling<E, R>, decoded: ReadonlyArray<Decoded>) {
    if (this.seen === undefined || decoded.length === 0) return
    const ranges = this.seen.missing(decoded.map(({ time }) => time))
    if (ranges.length === 0) return
    const { name: projection, version } = this.projection
    const place = { projection, version, topic: this.source.name, partition: decoded[0]!.record.partition }
    this.seen.load(ranges, yield* this.store.seenIds(place, ranges))
  })

  private originOf(record: LogRecord, eventTime: number, streamTime: number, tenant: string | undefined): Origin {
    const { key, partition, position } = record
    const traceparent = this.traceOf(record.traceparent)
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

  /** A trace context that is none goes no further: it is written into what is published as it is. */
  private traceOf(traceparent: string | undefined): string | undefined {
    if (traceparent !== this.trace.given) {
      const sound = traceparent !== undefined && /^[\da-f]{2}(-[\da-f]+){3}$/.test(traceparent)
      this.trace = { given: traceparent, sound: sound ? traceparent : undefined }
    }
    return this.trace.sound
  }

  /** Calls the handler: nothing where it is done, an Effect where it waits, else how it failed. */
  private call(event: unknown, meta: Origin): Effect.Effect<void, E, R> | Failed | undefined {
    const context: Record<string, unknown> = { meta }
    try {
      for (const { by, name, table } of this.lookups) {
        const key = by === undefined ? meta.key : by(event)
        context[name] = key === undefined ? undefined : table.get(key)
      }
      const done = this.projection.handle(event, this.recorder as never, context)
      return Effect.isEffect(done) ? done : undefined
    } catch (error) {
      // a plain handler fails the same way each time
      return { error, attempts: 1 }
    }
  }

  /** Waits for a handler's Effect and tries it again as the policy says. What it recorded before it failed is undone. */
  private wait(effect: Effect.Effect<void, E, R>, from: number): Effect.Effect<Failed | undefined, never, R> {
    const { log } = this.recorder
    const recorded = log.length
    let attempts = 0
    const attempt = Effect.suspend(() => {
      attempts++
      log.length = recorded
      return effect
    })
    const { retry } = this.projection.failure
    const tried = Effect.sandbox(attempt)
    return (retry === undefined ? tried : Effect.retry(tried, retry)).pipe(
      Effect.as(undefined),
      Effect.catch((cause: Cause.Cause<E>) => {
        // where the partition is taken away, nothing from here on runs: an interruption that comes by is the handler's own
        log.length = from
        return Effect.succeed<Failed>({ error: Cause.squash(cause), attempts })
      })
    )
  }

  /** Applies what an event asked for, or says why it cannot be. */
  private apply(fold: BatchFold, { from, origin, record, to }: Handled, read: ReadRow): Failure | undefined {
    try {
      // an earlier one of its key may have been refused since it was handled
      if (this.waiting.isBehind(record)) throw behind(record).error
      fold.apply(this.recorder.log, from, to, origin, read)
      this.handledAgain(record)
      return undefined
    } catch (error) {
      const id =
        this.seen === undefined || record.value === null
          ? undefined
          : this.idOf(this.source.decode(JSON.parse(record.value), record.schemaVersion))
      if (id !== undefined) this.seen!.forget(origin.tenant, id, origin.eventTime)
      return { record, error, attempts: 1, ...origin }
    }
  }

  /** All rows that the events need are read at once: what was asked for is known before anything is applied. How many were applied. */
  private readonly applyWaiting = Effect.fnUntraced(function* (
    this: Handling<E, R>,
    fold: BatchFold,
    waiting: ReadonlyArray<Handled>
  ) {
    const rows = yield* this.readRows(waiting)
    let folded = 0
    for (const handled of waiting) {
      const unfit = this.apply(fold, handled, (target, key) => rows.get(target)?.get(key))
      if (unfit === undefined) folded++
      else yield* this.fail(unfit)
    }
    return folded
  })

  private readonly readRows = Effect.fnUntraced(function* (this: Handling<E, R>, handled: ReadonlyArray<Handled>) {
    const wanted = new Map<Table.Any | Window.Any, Map<string, Row>>()
    for (const { from, origin, to } of handled) {
      for (const { key, target } of needs(this.recorder.log, from, to, origin)) {
        let keys = wanted.get(target)
        if (keys === undefined) wanted.set(target, (keys = new Map()))
        keys.set(keyText(keyOf(target), key), key)
      }
    }
    const rows = new Map<Table.Any | Window.Any, Map<string, Row>>()
    for (const [target, keys] of wanted) {
      const found = yield* this.store.readRows(this.projection, target, [...keys.values()])
      rows.set(target, new Map(found.map((row) => [keyText(keyOf(target), row), row])))
    }
    return rows
  })

  /** What becomes of an event that failed: parked, skipped, or the partition stops before it. */
  private fail(failure: Failure): Effect.Effect<void, Stopped> {
    const stopped = this.settleFailure(failure)
    return stopped === undefined ? Effect.void : Effect.fail(stopped)
  }

  private handledAgain(record: LogRecord): void {
    const by = this.waiting.askedBy(record)
    if (by !== undefined) this.parking.again(record, by)
  }

  private settleFailure(failure: Failure): Stopped | undefined {
    const { error, record } = failure
    const { then = "park" } = this.projection.failure
    const by = this.waiting.askedBy(record)
    this.waiting.park(record)
    if (by !== undefined) {
      // what waits behind a letter that failed once more is as it was
      if (!(error instanceof EarlierParked)) this.parking.again(record, by, failure)
      return undefined
    }
    if (then !== "stop") {
      this.parking.add(failure, then === "skip" ? "skipped" : "parked")
      return undefined
    }
    const what = `${this.projection.name} stopped at ${this.source.name}/${record.partition} position ${record.position}`
    return new Stopped({
      position: record.position,
      reason: new Mismatch({ what, reason: describeError(error).message })
    })
  }
}

const behind = ({ key }: LogRecord): Failed => ({ error: new EarlierParked({ key: key! }), attempts: 0 })
const none: ReadRow = () => undefined
const keyOf = (target: Table.Any | Window.Any) => (target.kind === "table" ? target.primaryKey : windowKey(target))
