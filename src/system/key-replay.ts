// Replays a projection for the rows of one key, again from the start whenever it turns out that more rows must be kept or traced.
import * as Effect from "effect/Effect"
import type { Log } from "../log/log.ts"
import type { Projection } from "../model/projection.ts"
import * as Lookups from "../postgres/store/lookups.ts"
import { readRetryOwner } from "../postgres/store/row-history.ts"
import { makeSubjectKeys } from "../postgres/store/subject-keys.ts"
import type { LogRecord } from "../log/log.ts"
import { inAppendOrder, type PartitionRange } from "../runner/in-append-order.ts"
import { KeyTrace, NeedsSteps } from "../runner/key-trace.ts"
import { NeedsRows, readFor, type TraceSource } from "../runner/row-trace.ts"
import { keyEncryptionKey } from "./environment.ts"
import { type ExplainContext, readLookups, type ReplayedPartition } from "./explain.ts"

/** Which key is replayed, and how much is kept. */
export interface KeyReplayRequest {
  readonly key: string
  /** How many events are kept: the last ones. */
  readonly mostEvents: number
  /** Is called from time to time. */
  readonly onProgress: (projection: string, done: number, total: number) => void
}
/** How many rows a replay keeps at most, and how many characters of changes. */
const most = { rows: 2_000_000, text: 8 * 1024 * 1024 }

/** Makes traces of a key, with what they share: the tables that are kept whole, and the rows that are known to be the key's. */
const tracesOf = Effect.fnUntraced(function* (
  { log, sql }: ExplainContext,
  projection: Projection.Any,
  sources: ReadonlyArray<TraceSource>,
  { key, mostEvents }: KeyReplayRequest
) {
  const lookups = Lookups.readOnly(sql, yield* Lookups.readJournalNumber(sql, projection.name, projection.version))
  const lookupTables = yield* readLookups(log, projection, lookups)
  const subjectKeys = makeSubjectKeys(sql, { keyEncryptionKey: yield* keyEncryptionKey })
  const owner = yield* readRetryOwner(sql)
  const kept = new Set(readFor(projection))
  const known = new Set<string>()
  const limits = { mostEvents, mostText: most.text, mostRows: most.rows }
  const shared = { projection, key, sources, lookupTables, lookups, owner, subjectKeys, kept }
  return { kept, known, newTrace: () => new KeyTrace({ ...shared, ...limits, known: new Set(known) }) }
})

/** How many records of other keys are processed at once. */
const mostAtOnce = 500

/** Replays ranges into a trace, at most so many records: those of the key one by one, and those of other keys in batches, unless `isSlow`. */
const processRanges = Effect.fnUntraced(function* <E, R>(
  log: Log["Service"],
  {
    isSlow,
    projection,
    request,
    sources,
    trace
  }: {
    readonly isSlow: boolean
    readonly projection: Projection.Any
    readonly request: KeyReplayRequest
    readonly sources: ReadonlyArray<TraceSource>
    readonly trace: KeyTrace<E, R>
  },
  ranges: ReadonlyArray<ReplayedPartition>,
  mostRecords: number
) {
  const stopped = new Map<object, string>()
  const all = ranges.reduce((sum, { from, to }) => sum + to - from, 0)
  let done = 0
  let waiting: { readonly range: PartitionRange; readonly records: Array<LogRecord> } | undefined
  /** Processes the records that wait. Resolves to false if no more of their partition can be. */
  const flush = Effect.suspend(() => {
    if (waiting === undefined) return Effect.succeed(true)
    const { range, records } = waiting
    waiting = undefined
    if (stopped.has(range)) return Effect.succeed(false)
    const source = sources.find(({ topic }) => topic.name === range.topic)!
    return trace.process(source, records).pipe(
      Effect.as(true),
      Effect.catchTag("Mismatch", ({ message }) => Effect.sync(() => (stopped.set(range, message), false)))
    )
  })
  yield* inAppendOrder(
    log,
    ranges,
    Effect.fnUntraced(function* (range, record) {
      if (done >= mostRecords) return false
      if (++done % 1_000 === 0) request.onProgress(projection.name, done, Math.min(mostRecords, all))
      const isOfKey = record.key === request.key
      if (waiting !== undefined && (isOfKey || waiting.range !== range || waiting.records.length >= mostAtOnce))
        yield* flush
      if (stopped.has(range)) return false
      if (waiting === undefined) waiting = { range, records: [record] }
      else waiting.records.push(record)
      return isOfKey || isSlow ? yield* flush : true
    })
  )
  yield* flush
  return ranges.map((range): ReplayedPartition => ({ ...range, stopped: range.stopped ?? stopped.get(range) }))
})

/** Makes what replays ranges: `from` their start, or `on` from where an earlier replay ended. */
export const keyReplayOf = Effect.fnUntraced(function* (
  context: ExplainContext,
  projection: Projection.Any,
  sources: ReadonlyArray<TraceSource>,
  request: KeyReplayRequest
) {
  const { kept, known, newTrace } = yield* tracesOf(context, projection, sources, request)
  let isSlow = false
  const process = (trace: ReturnType<typeof newTrace>, ranges: ReadonlyArray<ReplayedPartition>, mostRecords: number) =>
    processRanges(context.log, { isSlow, projection, sources, trace, request }, ranges, mostRecords)
  /** What begins again after a defect, with what it asks for. */
  const again = (defect: unknown, ranges: ReadonlyArray<ReplayedPartition>, mostRecords: number) => {
    if (defect instanceof NeedsSteps && !isSlow) isSlow = true
    else if (defect instanceof NeedsRows && !kept.has(defect.name)) kept.add(defect.name)
    else return Effect.die(defect)
    return from(ranges, mostRecords)
  }
  /** Whether these rows are traced from the start. If not, they are from now on. */
  const hasAll = (found: ReadonlySet<string>) => {
    const before = known.size
    for (const id of found) known.add(id)
    return known.size === before
  }
  const once = Effect.fnUntraced(function* (ranges: ReadonlyArray<ReplayedPartition>, mostRecords: number) {
    const trace = newTrace()
    return { trace, partitions: yield* process(trace, ranges, mostRecords) }
  })
  const from = (ranges: ReadonlyArray<ReplayedPartition>, mostRecords: number): ReturnType<typeof once> =>
    once(ranges, mostRecords).pipe(
      Effect.flatMap((done) => {
        if (hasAll(done.trace.found)) return Effect.succeed(done)
        // rows that other keys may have written before must be traced from the start
        return from(ranges, mostRecords)
      }),
      Effect.catchDefect((defect) => again(defect, ranges, mostRecords))
    )
  /** Goes on to the ends of ranges that begin where those of the replay did. */
  const on = (
    { partitions, trace }: Effect.Success<ReturnType<typeof once>>,
    ranges: ReadonlyArray<ReplayedPartition>
  ): ReturnType<typeof once> => {
    const reached = new Map(partitions.map((one) => [`${one.topic}/${one.partition}`, one]))
    const rest = ranges.map((range): ReplayedPartition => {
      const before = reached.get(`${range.topic}/${range.partition}`)
      return before === undefined
        ? range
        : { ...before, from: before.stopped === undefined ? before.to : range.to, to: range.to }
    })
    const begun = (found: ReadonlyArray<ReplayedPartition>) =>
      found.map((one): ReplayedPartition => {
        const before = reached.get(`${one.topic}/${one.partition}`)
        return before === undefined ? one : { ...one, from: before.from }
      })
    return process(trace, rest, Infinity).pipe(
      Effect.flatMap((found) => {
        if (hasAll(trace.found)) return Effect.succeed({ trace, partitions: begun(found) })
        return from(ranges, Infinity)
      }),
      Effect.catchDefect((defect) => again(defect, ranges, Infinity))
    )
  }
  return { from, on }
})
