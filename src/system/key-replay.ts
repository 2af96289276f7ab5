// Replays a projection for the rows of one key, again from the start whenever it turns out that more rows must be kept or traced.
import * as Effect from "effect/Effect"
import type { Log } from "../log/log.ts"
import type { Projection } from "../model/projection.ts"
import * as Lookups from "../postgres/store/lookups.ts"
import { readRetryOwner } from "../postgres/store/row-history.ts"
import { makeSubjectKeys } from "../postgres/store/subject-keys.ts"
import { inAppendOrder } from "../runner/in-append-order.ts"
import { KeyTrace } from "../runner/key-trace.ts"
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

/** Replays ranges into a trace, at most so many records. */
const processRanges = Effect.fnUntraced(function* <E, R>(
  log: Log["Service"],
  {
    projection,
    request,
    sources,
    trace
  }: {
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
  yield* inAppendOrder(log, ranges, (range, record) => {
    if (done >= mostRecords) return Effect.succeed(false)
    const source = sources.find(({ topic }) => topic.name === range.topic)!
    if (++done % 1_000 === 0) request.onProgress(projection.name, done, Math.min(mostRecords, all))
    return trace.process(source, record).pipe(
      Effect.as(true),
      Effect.catchTag("Mismatch", ({ message }) => Effect.sync(() => (stopped.set(range, message), false)))
    )
  })
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
  const process = (trace: ReturnType<typeof newTrace>, ranges: ReadonlyArray<ReplayedPartition>, mostRecords: number) =>
    processRanges(context.log, { projection, sources, trace, request }, ranges, mostRecords)
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
      Effect.catchDefect((defect) => {
        if (!(defect instanceof NeedsRows) || kept.has(defect.name)) return Effect.die(defect)
        kept.add(defect.name)
        return from(ranges, mostRecords)
      })
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
      Effect.catchDefect((defect) => {
        if (!(defect instanceof NeedsRows) || kept.has(defect.name)) return Effect.die(defect)
        kept.add(defect.name)
        return from(ranges, Infinity)
      })
    )
  }
  return { from, on }
})
