// Replays a projection in memory, one event at a time and without publishing, and notes what each event did to one row.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { SubjectKeys } from "../erasure/subject-keys.ts"
import { isRetry, recordFromEnvelope, type RetryOwner } from "../dead-letter/retry-record.ts"
import { streamHeaders, traceIdOf } from "../log/envelope.ts"
import { appendTimeOf, type LogRecord } from "../log/log.ts"
import type { Writable } from "../model/handler.ts"
import type { Projection } from "../model/projection.ts"
import type { Row } from "../model/recorder.ts"
import type { Topic } from "../model/topic.ts"
import { hasFold } from "../model/window.ts"
import type { ChainLinks } from "./chain.ts"
import { SourceDecoders } from "./event-decoder.ts"
import { waitingForNoTime } from "./in-memory.ts"
import type { LookupStore } from "./lookup-store.ts"
import type { LookupTable } from "./lookup-tables.ts"
import { MemoryStore } from "./memory-store.ts"
import type { ProcessError } from "./partition-processor.ts"
import { type RowCall, RowWatch, type WatchedEvent, type WatchedRow } from "./row-watch.ts"
import { ReplayProcessors } from "./replay-processors.ts"
import { replayStore } from "./replay-store.ts"
import { Store, type Changes, type DeadLetter } from "./store.ts"

/** What became of an event, for the row. */
export type RowOutcome = "applied" | "without effect" | "late" | "dead letter" | "duplicate"
/** An event that concerns the row. Times are epoch milliseconds. */
export interface RowEvent {
  readonly topic: string
  readonly partition: number
  readonly position: number
  /** The position of the record by which it was retried, if it was a dead letter. */
  readonly retriedBy: number | undefined
  readonly outcome: RowOutcome
  /**
   * Whether the event concerns the row for sure. If not, the handler was not called for it, or failed before it asked for anything of this
   * row, but the event's key is in the row's key.
   */
  readonly isCertain: boolean
  readonly key: string | null
  readonly type: string | undefined
  readonly eventId: string | undefined
  readonly eventTime: number
  readonly streamTime: number | undefined
  readonly appendedAt: number | undefined
  readonly tenant: string | undefined
  readonly traceId: string | undefined
  readonly value: string | null
  /** The message of a derived topic that the event is: its stream and its number there. */
  readonly message: { readonly stream: string; readonly sequence: number } | undefined
  readonly calls: ReadonlyArray<RowCall>
  readonly lookups: Row
  /** Why it became a dead letter. */
  readonly error: Pick<DeadLetter, "error" | "message"> | undefined
  /** The position of the event that it is a duplicate of. */
  readonly duplicateOf: number | undefined
  /** The row after the event, as its columns hold it; undefined if there is none. */
  readonly row: Row | undefined
}
/** A source of the projection. */
export interface TraceSource {
  readonly topic: Topic.Any
  readonly partitions: number
  readonly links?: ChainLinks
}
/** What to trace, and with what. */
export interface RowTraceOptions<E, R> {
  /** The keys of personal fields. Default: there are none. */
  readonly subjectKeys?: Pick<SubjectKeys["Service"], "forValues">
  readonly projection: Projection.Of<E, R>
  readonly row: WatchedRow
  readonly sources: ReadonlyArray<TraceSource>
  readonly lookupTables: ReadonlyMap<string, LookupTable>
  /** What the build saw of lookups. Default: the newest value that was appended before each event. */
  readonly lookups?: LookupStore
  readonly owner: RetryOwner | undefined
  /** The tables and windows whose rows are all kept: see `NeedsRows`. */
  readonly kept: ReadonlySet<string>
  /** How many events are kept: the last ones. */
  readonly mostEvents: number
  /** How many rows are kept at most. */
  readonly mostRows: number
}

/** The replay reads rows of this table or window that it has not kept. It must begin again, and keep them. */
export class NeedsRows {
  readonly name: string
  constructor(name: string) {
    this.name = name
  }
}
/** The replay would need more memory than it may use. */
export class TooManyRows extends Error {
  override readonly name = "TooManyRows"
}

/** The tables and windows whose rows a replay reads for sure: windows with a fold. */
export const readFor = (projection: Projection.Any): ReadonlySet<string> =>
  new Set(
    (projection.writes as ReadonlyArray<Writable>).flatMap((target) =>
      target.kind === "window" && hasFold(target) ? [target.name] : []
    )
  )

/** The id that a topic's `id` finds in an event; undefined if there is none, as in an event that cannot be read. */
const fieldId = ({ idOf }: Topic.Any, event: unknown): string | undefined => {
  if (event === undefined) return undefined
  try {
    const id: unknown = idOf?.(event as never)
    return typeof id === "string" ? id : undefined
  } catch {
    return undefined // it only names the event
  }
}

/** One replay. */
export class RowTrace<E, R> {
  /** The last events that concern the row, in the order in which they were processed. */
  readonly events: Array<RowEvent> = []
  /** How many earlier ones were left out. */
  omitted = 0
  private readonly options: RowTraceOptions<E, R>
  private readonly watch: RowWatch<E, R>
  private readonly memory: MemoryStore
  private readonly processors: ReplayProcessors<E, R>
  private readonly decoders: SourceDecoders
  /** The positions of events that concern the row, by their ids: later events with them are duplicates. */
  private readonly positions = new Map<string, number>()
  private readonly appendTimes = new Map<string, number | undefined>()
  private commits: Array<Changes> = []
  private processed = 0

  constructor(options: RowTraceOptions<E, R>) {
    const { kept, owner, projection, row } = options
    this.options = options
    this.decoders = new SourceDecoders(projection, owner)
    this.watch = new RowWatch(projection, row)
    const keeps = (name: string, key: string) => kept.has(name) || (name === row.target.name && key === row.text)
    const memory = new MemoryStore(projection, "follower", keeps)
    this.memory = memory
    const replayed = Store.of({
      ...replayStore(memory, {
        owner,
        lookups: options.lookups,
        subjectKeys: options.subjectKeys,
        onCommit: (changes) => void this.commits.push(changes)
      }),
      readRows: (of, target, keys) => {
        const isKept = kept.has(target.name) || (target.name === row.target.name && keys.every((key) => row.has(key)))
        return isKept ? memory.service.readRows(of, target, keys) : Effect.die(new NeedsRows(target.name))
      }
    })
    this.processors = new ReplayProcessors(this.watch.projection, options.lookupTables, replayed)
  }

  /** The row now, as its columns hold it; undefined if there is none. */
  get row(): Row | undefined {
    const { target, text } = this.options.row
    return this.memory.row(target.name, text)
  }

  /** Processes the next record of a partition. Dies with `NeedsRows` or `TooManyRows` if it cannot go on. */
  readonly process = Effect.fnUntraced(function* (
    this: RowTrace<E, R>,
    source: TraceSource,
    record: LogRecord
  ): Effect.fn.Return<void, ProcessError, R> {
    const before = this.row
    const processor = yield* this.processors.of(source, record.partition)
    const clock = waitingForNoTime(yield* Clock.Clock)
    yield* Effect.provideService(
      processor.process({ records: [record], next: record.position + 1 }),
      Clock.Clock,
      clock
    )
    this.note(source, record, before)
    this.commits = []
    this.memory.late.length = 0
    if (++this.processed % 1_024 === 0 && this.memory.size > this.options.mostRows)
      yield* Effect.die(
        new TooManyRows(
          `more than ${this.options.mostRows} rows of ${[...this.options.kept].join(", ")} would have to be kept in memory, because handlers read them`
        )
      )
  })

  /** Notes what the commits of a record did to the row. An event that was attempted several times counts once, as the last time. */
  private note(source: TraceSource, record: LogRecord, before: Row | undefined): void {
    const { owner, row } = this.options
    const { commits } = this
    const watched = new Map(this.watch.take().map((one) => [one.meta.position, one]))
    const { row: after } = this
    const failures = new Map(commits.flatMap(({ deadLetters }) => deadLetters.map((one) => [one.position, one])))
    const retried = new Map(commits.flatMap((changes) => (changes.retried ?? []).map((one) => [one.position, one])))
    const lates = commits.flatMap(({ late }) => late).filter(({ window }) => window === row.target.name)
    for (const one of watched.values()) {
      const { position } = one.meta
      const failure = failures.get(position) ?? retried.get(position)?.failed
      failures.delete(position)
      const isLate = lates.some(
        (late) => late.position === position && row.takes({ ...late.key, ...late.contribution }, late.eventTime)
      )
      const isGuess = one.calls.length === 0 && failure !== undefined && row.contains(one.meta.key)
      if (one.calls.length === 0 && !isGuess) continue
      const isSame = JSON.stringify(after) === JSON.stringify(before)
      const outcome = failure !== undefined ? "dead letter" : isLate ? "late" : isSame ? "without effect" : "applied"
      const of = position === record.position ? record : this.deadLetterRecord(one)
      const retriedBy = retried.get(position)?.by
      this.add(source, of, { watched: one, outcome, isCertain: !isGuess, error: failure, retriedBy, row: after })
    }
    // events for which no handler was called
    for (const failure of failures.values())
      if (row.contains(failure.key))
        this.add(source, record, { outcome: "dead letter", isCertain: false, error: failure, row: after })
    const isDuplicate = watched.size === 0 && commits.some(({ duplicates }) => duplicates > 0)
    if (isDuplicate && !isRetry(record, owner)) this.noteDuplicate(source, record, after)
  }
  private noteDuplicate(source: TraceSource, record: LogRecord, row: Row | undefined): void {
    const id = this.idOf(source, record)
    const duplicateOf = this.positions.get(`${source.topic.name}/${record.partition}/${id}`)
    if (duplicateOf !== undefined) this.add(source, record, { outcome: "duplicate", isCertain: true, duplicateOf, row })
  }

  private add(
    source: TraceSource,
    record: LogRecord,
    of: Pick<RowEvent, "outcome" | "isCertain" | "row"> & {
      readonly watched?: WatchedEvent
      readonly error?: RowEvent["error"]
      readonly retriedBy?: number | undefined
      readonly duplicateOf?: number
    }
  ): void {
    const { duplicateOf, error, isCertain, outcome, retriedBy, row, watched } = of
    const topic = source.topic.name
    const { eventId, headers, key, partition, position, traceparent, value } = record
    const decoded = watched === undefined ? this.decoders.of(source.topic).tryDecode(record) : undefined
    const event = (watched?.event ?? decoded?.event) as { readonly type?: unknown } | undefined
    const at = `${topic}/${partition}/${position}`
    const appendedAt = appendTimeOf(record) ?? this.appendTimes.get(at)
    this.appendTimes.set(at, appendedAt)
    const id = outcome === "dead letter" ? undefined : this.idOf(source, record)
    if (id !== undefined && outcome !== "duplicate") this.positions.set(`${topic}/${partition}/${id}`, position)
    const stream = headers[streamHeaders.stream]
    this.events.push({
      topic,
      partition,
      position,
      retriedBy,
      outcome,
      isCertain,
      key,
      type: typeof event?.type === "string" ? event.type : undefined,
      eventId: eventId ?? fieldId(source.topic, event),
      eventTime: watched?.meta.eventTime ?? decoded?.time ?? record.eventTime,
      streamTime: watched?.meta.streamTime,
      appendedAt,
      tenant: watched?.meta.tenant ?? record.tenant,
      traceId: traceIdOf(traceparent),
      value,
      message: stream === undefined ? undefined : { stream, sequence: Number(headers[streamHeaders.sequence]) },
      calls: watched?.calls ?? [],
      lookups: watched?.lookups ?? {},
      error: error && { error: error.error, message: error.message },
      duplicateOf,
      row
    })
    if (this.events.length > this.options.mostEvents) {
      this.events.shift()
      this.omitted++
    }
  }

  /** The record of an event that a retry brought back. */
  private deadLetterRecord({ meta }: WatchedEvent): LogRecord {
    const { partition, position, topic } = meta
    const found = this.memory.deadLetters.find(
      (one) => one.position === position && one.at.partition === partition && one.at.topic === topic
    )!
    return { ...recordFromEnvelope(found.envelope!, partition, found.value), position, appendedAt: 0 }
  }
  private idOf(source: TraceSource, record: LogRecord): string | undefined {
    if (this.options.projection.dedupe === undefined) return undefined
    const decoded = this.decoders.of(source.topic).tryDecode(record)
    return decoded?.id === undefined ? undefined : `${decoded.tenant ?? ""}\u0000${decoded.id}`
  }
}
