// Calls a projection's handler for the events of a log, stores nothing, and finds out by which column of each table rows belong to the keys of events.
import type { SubjectKeys } from "../erasure/subject-keys.ts"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { isRetry, type RetryOwner } from "../dead-letter/retry-record.ts"
import type { Batch } from "../log/log.ts"
import { isTimeMark } from "../log/time-mark.ts"
import { type Relation, relationOf } from "../model/columns.ts"
import type { Meta, Writable } from "../model/handler.ts"
import type { Projection } from "../model/projection.ts"
import type { Table } from "../model/read-model.ts"
import type { Row } from "../model/recorder.ts"
import type { Window } from "../model/window.ts"
import { waitingForNoTime } from "./in-memory.ts"
import type { LookupStore } from "./lookup-store.ts"
import type { LookupTable } from "./lookup-tables.ts"
import { MemoryStore } from "./memory-store.ts"
import type { ProcessError } from "./partition-processor.ts"
import { ReplayProcessors } from "./replay-processors.ts"
import { replayStore } from "./replay-store.ts"
import type { TraceSource } from "./row-trace.ts"
import { storedRow } from "./stored-values.ts"

/** What to scan, and with what. */
export interface KeyScanOptions<E, R> {
  readonly projection: Projection.Of<E, R>
  /** The keys that are looked for. */
  readonly keys: ReadonlySet<string>
  readonly lookupTables: ReadonlyMap<string, LookupTable>
  readonly lookups: LookupStore
  readonly owner: RetryOwner | undefined
  /** The keys of personal fields. Default: there are none. */
  readonly subjectKeys?: Pick<SubjectKeys["Service"], "forValues">
}

/** A table or window that the projection writes alone. */
interface ScannedModel {
  /** Its key, without the columns that the window itself fills. */
  readonly relation: Relation
  /** The columns that had the key of the event in every row so far. */
  readonly columns: Set<string>
  isWritten: boolean
}
/** The methods of `out` that write rows. */
const kinds = ["upsert", "update", "delete", "modify", "add"] as const
type Target = Table.Any | Window.Any

const scannedModel = (target: Target): ScannedModel => {
  const { columns: all, name } = relationOf(target)
  const key = target.kind === "table" ? target.primaryKey : target.key
  const columns = all.filter((column) => key.includes(column.name))
  const candidates = columns.filter(({ type }) => type === "text" || type === "bigint")
  return {
    relation: { name, key, columns },
    columns: new Set(candidates.map((column) => column.name)),
    isWritten: false
  }
}

/** One scan of a log, partition by partition. */
export class KeyScan<E, R> {
  /** The keys of events among those that are looked for. */
  readonly found = new Set<string>()
  /** How many records have them. */
  events = 0
  /** Why rows of a table cannot be told apart by keys; undefined if they can, so far. */
  problem: string | undefined
  private readonly options: KeyScanOptions<E, R>
  private readonly models: ReadonlyMap<string, ScannedModel>
  private readonly processors: ReplayProcessors<E, R>

  constructor(options: KeyScanOptions<E, R>) {
    const { projection } = options
    this.options = options
    this.models = new Map(
      (projection.writes as ReadonlyArray<Writable>).flatMap((target) =>
        target.kind === "topic" || target.shared ? [] : [[target.name, scannedModel(target)] as const]
      )
    )
    const scanned: Projection.Of<E, R> = {
      ...projection,
      handle: (event, _, context) => this.handle(projection, event, context)
    }
    const store = replayStore(new MemoryStore(projection, "follower", () => false), options)
    this.processors = new ReplayProcessors(scanned, options.lookupTables, store)
  }

  /** By which column of its key the rows of each table belong to events' keys. Tables that no event writes are left out. */
  get owned(): ReadonlyArray<{ readonly name: string; readonly column: string }> {
    return [...this.models].flatMap(([name, { columns, isWritten }]) =>
      isWritten ? [...columns].slice(0, 1).map((column) => ({ name, column })) : []
    )
  }

  /** Scans the next records of a partition. */
  readonly process = Effect.fnUntraced(function* (
    this: KeyScan<E, R>,
    source: TraceSource,
    partition: number,
    batch: Pick<Batch, "next" | "records">
  ): Effect.fn.Return<void, ProcessError, R> {
    const { keys, owner } = this.options
    for (const record of batch.records)
      if (record.key !== null && keys.has(record.key) && !isTimeMark(record) && !isRetry(record, owner)) {
        this.found.add(record.key)
        this.events++
      }
    const processor = yield* this.processors.of(source, partition)
    const clock = waitingForNoTime(yield* Clock.Clock)
    yield* Effect.provideService(processor.process(batch), Clock.Clock, clock)
  })

  private handle(projection: Projection.Of<E, R>, event: unknown, context: object) {
    const { meta } = context as { readonly meta: Meta }
    const calls = kinds.map((kind) => [kind, (target: Target, given: Row) => this.note(target, given, meta)])
    const out = { ...Object.fromEntries(calls), publish: () => undefined }
    const done = projection.handle(event, out as never, context)
    return Effect.isEffect(done) ? Effect.provideService(done, Clock.Clock, Clock.Clock.defaultValue()) : done
  }

  /** Notes that the handler asked for a row of a table while it handled an event. */
  private note({ name }: Target, given: Row, { key, partition, position, topic }: Meta): void {
    const model = this.models.get(name)
    if (model === undefined || this.problem !== undefined) return
    let row: Row
    try {
      row = storedRow(model.relation, given)
    } catch {
      return // what the store refuses is no row
    }
    model.isWritten = true
    for (const column of model.columns) if (String(row[column]) !== key) model.columns.delete(column)
    if (model.columns.size > 0) return
    const columns = model.relation.key.map((column) => `${column} ${JSON.stringify(row[column])}`)
    this.problem =
      `no column of the key of ${name} has the event's key in every row, so it is not known which rows belong to which keys: ` +
      `the event at ${topic}/${partition}/${position} with the key ${JSON.stringify(key)} writes ` +
      (columns.length === 0 ? "the one row of all keys" : columns.join(", "))
  }
}
