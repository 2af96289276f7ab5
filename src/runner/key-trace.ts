// Replays a projection in memory, without publishing, and notes what each event did to the rows of one key.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { SubjectKeys } from "../erasure/subject-keys.ts"
import { isRetry, retriedBy, type RetryOwner } from "../dead-letter/retry-record.ts"
import { appendTimeOf, type LogRecord } from "../log/log.ts"
import { isTimeMark } from "../log/time-mark.ts"
import { type Relation, relationOf } from "../model/columns.ts"
import { keyText } from "../model/fields.ts"
import type { Writable } from "../model/handler.ts"
import type { Projection } from "../model/projection.ts"
import type { Row } from "../model/recorder.ts"
import { SourceDecoders } from "./event-decoder.ts"
import { waitingForNoTime } from "./in-memory.ts"
import type { LookupStore } from "./lookup-store.ts"
import type { LookupTable } from "./lookup-tables.ts"
import { MemoryStore } from "./memory-store.ts"
import type { ProcessError } from "./partition-processor.ts"
import { ReplayProcessors } from "./replay-processors.ts"
import { replayStore } from "./replay-store.ts"
import { NeedsRows, TooManyRows, type RowOutcome, type TraceSource } from "./row-trace.ts"
import { keyOnly, storedRow } from "./stored-values.ts"
import { Store, type Changes } from "./store.ts"

/** What an event did to one row. */
export interface KeyChange {
  /** The id of the row in the trace. */
  readonly row: string
  /** The row before and after the event, as its columns hold it; undefined if there was none. */
  readonly before: Row | undefined
  readonly after: Row | undefined
}
/** An event of the key, or one of another key that changed a row of this key. Times are epoch milliseconds. */
export interface KeyStep {
  readonly topic: string
  readonly partition: number
  readonly position: number
  /** The position of the dead letter that the record retries; undefined if it is an event itself. */
  readonly retries: number | undefined
  readonly key: string | null
  readonly type: string | undefined
  readonly eventId: string | undefined
  readonly eventTime: number
  readonly appendedAt: number | undefined
  readonly outcome: RowOutcome
  readonly changes: ReadonlyArray<KeyChange>
}
/** A row of the key. */
export interface TracedRow {
  readonly id: string
  readonly name: string
  readonly relation: Relation
  /** The values of its key as columns hold them. */
  readonly key: Row
  /** How many events of other keys wrote it. */
  others: number
}
/** What to trace, and with what. */
export interface KeyTraceOptions<E, R> {
  readonly projection: Projection.Of<E, R>
  readonly key: string
  readonly sources: ReadonlyArray<TraceSource>
  readonly lookupTables: ReadonlyMap<string, LookupTable>
  readonly lookups: LookupStore
  readonly owner: RetryOwner | undefined
  readonly subjectKeys: Pick<SubjectKeys["Service"], "forValues">
  /** The tables and windows whose rows are all kept: see `NeedsRows`. */
  readonly kept: ReadonlySet<string>
  /** The ids of rows that are traced although their keys do not have the key in a column: those that an earlier replay has found. */
  readonly known: ReadonlySet<string>
  /** How many events are kept: the last ones, as long as their rows have so many characters together. */
  readonly mostEvents: number
  readonly mostText: number
  /** How many rows are kept at most. */
  readonly mostRows: number
}

/** Events of other keys in one batch wrote rows of the key. The replay must begin again, one event at a time. */
export class NeedsSteps {
  /** How many records the batch had. */
  readonly records: number
  constructor(records: number) {
    this.records = records
  }
}
/** How many rows without the key in a column of theirs are traced: the ones that were written last. */
const mostFound = 500
const idOf = (name: string, text: string) => `${name}\u0000${text}`
const isOwn = (value: unknown, key: string) =>
  (typeof value === "string" || typeof value === "number") && String(value) === key

/** Whether a row has the key in a column of its own. */
const isOwnRow = (row: TracedRow, key: string) => row.relation.key.some((column) => isOwn(row.key[column], key))

/** One replay. */
export class KeyTrace<E, R> {
  /** The last events of the key, in the order in which they were processed. */
  readonly steps: Array<KeyStep> = []
  /** How many earlier ones were left out. */
  omitted = 0
  /** The rows that events of the key wrote, or that have it in a column of their key. */
  readonly rows = new Map<string, TracedRow>()
  /** The ids of rows that events of the key wrote, and whose keys do not have it. If not all are `known`, the replay must begin again. */
  readonly found = new Set<string>()
  private readonly options: KeyTraceOptions<E, R>
  private readonly memory: MemoryStore
  private readonly relations: ReadonlyMap<string, Relation>
  private readonly processors: ReplayProcessors<E, R>
  private readonly decoders: SourceDecoders
  private readonly last = new Map<string, Row>()
  private readonly sizes: Array<number> = []
  private size = 0
  private commits: Array<Changes> = []
  private processed = 0

  constructor(options: KeyTraceOptions<E, R>) {
    const { kept, key, known, lookups, lookupTables, owner, projection, subjectKeys } = options
    this.options = options
    this.decoders = new SourceDecoders(projection, owner)
    this.relations = new Map(
      (projection.writes as ReadonlyArray<Writable>).flatMap((target) =>
        target.kind === "topic" ? [] : [[target.name, relationOf(target)] as const]
      )
    )
    const isTraced = (name: string, text: string) =>
      known.has(idOf(name, text)) || (text.includes(JSON.stringify(key).slice(1, -1)) && this.hasKey(name, text))
    const keeps = (name: string, text: string) => kept.has(name) || isTraced(name, text)
    const memory = new MemoryStore(projection, "follower", keeps)
    this.memory = memory
    const replayed = Store.of({
      ...replayStore(memory, {
        owner,
        lookups,
        subjectKeys,
        onCommit: (changes) => void this.commits.push(changes)
      }),
      readRows: (of, target, keys) => {
        const relation = this.relations.get(target.name)!
        const isKept =
          kept.has(target.name) || keys.every((one) => isTraced(target.name, this.textOf(relation, one) ?? ""))
        return isKept ? memory.service.readRows(of, target, keys) : Effect.die(new NeedsRows(target.name))
      }
    })
    this.processors = new ReplayProcessors(projection, lookupTables, replayed)
  }

  /** The row now, as its columns hold it; undefined if it does not exist. */
  rowOf({ key, name, relation }: Pick<TracedRow, "key" | "name" | "relation">): Row | undefined {
    return this.memory.row(name, keyText(relation.key, key))
  }

  /**
   * Processes the next records of a partition: one, or several of other keys. Dies with `NeedsRows`, `NeedsSteps` or `TooManyRows` if it cannot
   * go on.
   */
  readonly process = Effect.fnUntraced(function* (
    this: KeyTrace<E, R>,
    source: TraceSource,
    records: ReadonlyArray<LogRecord>
  ): Effect.fn.Return<void, ProcessError, R> {
    const { partition, position } = records.at(-1)!
    const processor = yield* this.processors.of(source, partition)
    const clock = waitingForNoTime(yield* Clock.Clock)
    yield* Effect.provideService(processor.process({ records, next: position + 1 }), Clock.Clock, clock)
    if (records.length === 1) this.note(source, records[0]!)
    else if (this.hasTouched()) yield* Effect.die(new NeedsSteps(records.length))
    this.commits = []
    this.memory.late.length = 0
    this.processed += records.length
    if (this.processed % 1_024 < records.length && this.memory.size > this.options.mostRows)
      yield* Effect.die(
        new TooManyRows(
          `more than ${this.options.mostRows} rows of ${[...this.options.kept].join(", ")} would have to be kept in memory, because handlers read them`
        )
      )
  })

  /** Whether the commits wrote rows of the key. */
  private hasTouched(): boolean {
    const { key, known } = this.options
    return [...this.touched()].some(([id, row]) => known.has(id) || isOwnRow(row, key))
  }
  /** Notes what the commits of a record did to rows of the key. */
  private note(source: TraceSource, record: LogRecord): void {
    const { key, owner, projection } = this.options
    const isOfKey = record.key === key
    const changes: Array<KeyChange> = []
    for (const [id, row] of this.touched()) {
      const hasKey = isOwnRow(row, key)
      if (!hasKey && isOfKey) this.find(id)
      if (!hasKey && !this.options.known.has(id)) continue
      const traced = this.rows.get(id) ?? row
      this.rows.set(id, traced)
      if (!isOfKey) traced.others++
      const before = this.last.get(id)
      const after = this.rowOf(row)
      if (JSON.stringify(before) === JSON.stringify(after)) continue
      if (after === undefined) this.last.delete(id)
      else this.last.set(id, after)
      changes.push({ row: id, before, after })
    }
    const isRetried = isRetry(record, owner)
    const retries = isRetried
      ? retriedBy(record, { projection: projection.name, version: projection.version }, owner)
      : undefined
    // retries of other projections, and what nobody processes
    if (isTimeMark(record) || (isRetried && retries === undefined)) return
    if (changes.length > 0 || isOfKey) this.add(source, record, { changes, retries })
  }
  /** The rows that the commits wrote. */
  private touched(): ReadonlyMap<string, TracedRow> {
    const rows = new Map<string, TracedRow>()
    const add = (name: string, given: Row) => {
      const relation = this.relations.get(name)!
      const key = storedRow(keyOnly(relation), given)
      const id = idOf(name, keyText(relation.key, key))
      rows.set(id, { id, name, relation, key, others: 0 })
    }
    for (const { tables, windows } of this.commits) {
      for (const { deletes, table, updates, upserts } of tables)
        for (const row of [...upserts, ...updates, ...deletes]) add(table.name, row)
      for (const { deltas, window } of windows) for (const { row } of deltas) add(window.name, row)
    }
    return rows
  }
  private find(id: string): void {
    this.found.delete(id)
    this.found.add(id)
    if (this.found.size > mostFound) this.found.delete(this.found.values().next().value!)
  }

  private add(
    source: TraceSource,
    record: LogRecord,
    { changes, retries }: Pick<KeyStep, "changes" | "retries">
  ): void {
    const { eventId, eventTime, key, partition, position } = record
    const decoded = this.decoders.of(source.topic).tryDecode(record)
    const event = decoded?.event as { readonly type?: unknown } | undefined
    const size = JSON.stringify(changes).length
    this.steps.push({
      topic: source.topic.name,
      partition,
      position,
      retries,
      key,
      type: typeof event?.type === "string" ? event.type : undefined,
      eventId,
      eventTime: decoded?.time ?? eventTime,
      appendedAt: appendTimeOf(record),
      outcome: this.outcomeOf(changes),
      changes
    })
    this.sizes.push(size)
    this.size += size
    while (
      this.steps.length > this.options.mostEvents ||
      (this.size > this.options.mostText && this.steps.length > 1)
    ) {
      this.steps.shift()
      this.size -= this.sizes.shift()!
      this.omitted++
    }
  }
  private outcomeOf(changes: ReadonlyArray<KeyChange>): RowOutcome {
    const { commits } = this
    const hasFailed = commits.some(
      ({ deadLetters, retried = [] }) => deadLetters.length > 0 || retried.some(({ failed }) => failed !== undefined)
    )
    if (hasFailed) return "dead letter"
    if (changes.length > 0) return "applied"
    if (commits.some(({ duplicates }) => duplicates > 0)) return "duplicate"
    return commits.some(({ late }) => late.length > 0) ? "late" : "without effect"
  }

  /** Whether a row whose key has this text has the traced key in a column. */
  private hasKey(name: string, text: string): boolean {
    const { key } = this.options
    const relation = this.relations.get(name)!
    if (relation.key.length === 1) return text === key
    return (JSON.parse(text) as ReadonlyArray<unknown>).some((value) => isOwn(value, key))
  }
  /** The text of a key; undefined if the store would refuse it. */
  private textOf(relation: Relation, key: Row): string | undefined {
    try {
      return keyText(relation.key, storedRow(keyOnly(relation), key))
    } catch {
      return undefined
    }
  }
}
