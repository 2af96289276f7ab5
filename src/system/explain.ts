// Explains a row of a read model: replays its projection in memory over the log, finds the events that made the row, and compares the results.
import * as Effect from "effect/Effect"
import type { Log, ReadError } from "../log/log.ts"
import type { Application } from "../model/application.ts"
import { buildOf } from "../model/build.ts"
import { readChains } from "./chains.ts"
import { partitionOf } from "../model/partitioner.ts"
import type { Projection } from "../model/projection.ts"
import type { Row } from "../model/recorder.ts"
import type { Topic } from "../model/topic.ts"
import { hasFold } from "../model/window.ts"
import type { Sql } from "../postgres/client/client.ts"
import type { StoredBuild } from "../postgres/store/builds.ts"
import * as Lookups from "../postgres/store/lookups.ts"
import { type BuildPosition, readDeadLettersAt, readRetryOwner, readRowState } from "../postgres/store/row-history.ts"
import { linksOf } from "../runner/chain.ts"
import { inAppendOrder, type PartitionRange, positionAt } from "../runner/in-append-order.ts"
import { makeSubjectKeys } from "../postgres/store/subject-keys.ts"
import { maySeal, redacted, unseal } from "../erasure/sealed.ts"
import { personalFieldsOf } from "../model/personal.ts"
import { keyEncryptionKey } from "./environment.ts"
import type { LookupStore } from "../runner/lookup-store.ts"
import { LookupTable } from "../runner/lookup-tables.ts"
import { NeedsRows, readFor, type RowEvent, RowTrace, type TraceSource } from "../runner/row-trace.ts"
import type { WatchedRow } from "../runner/row-watch.ts"

/** What the explanation works on. */
export interface ExplainContext {
  readonly application: Application.Any
  readonly sql: Sql
  readonly log: Log["Service"]
}
/** Which row of which build is explained. Times are epoch milliseconds of appends. */
export interface ExplainRequest {
  /** The projection as the code declares it. */
  readonly projection: Projection.Any
  readonly build: Pick<StoredBuild, "number" | "live">
  readonly row: WatchedRow
  readonly from: number | undefined
  readonly until: number | undefined
  /** How many events are kept: the last ones. */
  readonly mostEvents: number
  /** Is called from time to time. */
  readonly onProgress?: (done: number, total: number) => void
}
/** An event of an explanation. */
export interface ExplainedEvent extends RowEvent {
  /** The dead letter that the database has for the event, retried and discarded ones included. */
  readonly deadLetter: { readonly id: number; readonly status: string } | undefined
}
/** A column that differs. */
export interface DifferentColumn {
  readonly column: string
  readonly stored: unknown
  readonly replayed: unknown
  /** Both are numbers that differ by less than 1e-9 of their size. */
  readonly isRounding: boolean
}
/** What was read of a partition. */
export interface ReplayedPartition extends PartitionRange {
  /** The positions that the build processed and that the log no longer has: the first, and the one after the last. */
  readonly gone: { readonly from: number; readonly to: number } | undefined
  /** Why the replay stopped before the end of the range; undefined if it did not. */
  readonly stopped: string | undefined
}
/** Why a row is as it is. Rows hold what columns hold. */
export interface RowExplanation {
  readonly projection: string
  readonly version: number
  readonly build: number
  readonly live: boolean
  readonly row: WatchedRow
  readonly events: ReadonlyArray<ExplainedEvent>
  /** How many earlier events were left out. */
  readonly omitted: number
  /** The row that the replay gives, and the one that the database has; undefined if there is none. */
  readonly replayed: Row | undefined
  readonly stored: Row | undefined
  /** Undefined if the rows cannot be compared: the replay was not of everything that the build processed, or others write the table. */
  readonly differences: ReadonlyArray<DifferentColumn> | undefined
  readonly partitions: ReadonlyArray<ReplayedPartition>
  /** What the replay cannot reproduce. */
  readonly notes: ReadonlyArray<string>
}

/** How many rows a replay keeps at most, if handlers read rows. */
const mostRows = 2_000_000

/** The ranges of the log that the build has processed, as far as the log still has them. */
export const rangesOf = Effect.fnUntraced(function* (
  log: Log["Service"],
  positions: ReadonlyArray<BuildPosition>,
  { from, until }: Pick<ExplainRequest, "from" | "until">
) {
  const bounds = new Map<string, Effect.Success<ReturnType<Log["Service"]["bounds"]>>>()
  for (const topic of new Set(positions.map((one) => one.topic))) bounds.set(topic, yield* log.bounds(topic))
  return yield* Effect.forEach(
    positions,
    Effect.fnUntraced(function* ({ first, next, partition, topic }): Effect.fn.Return<ReplayedPartition, ReadError> {
      const found = bounds.get(topic)!.find((one) => one.partition === partition)
      const start = Math.max(first, found?.start ?? next)
      const all = { topic, partition, from: start, to: Math.max(start, Math.min(next, found?.end ?? next)) }
      const gone = start > first && next > first ? { from: first, to: Math.min(start, next) } : undefined
      return {
        ...all,
        from: from === undefined ? all.from : yield* positionAt(log, all, from),
        to: until === undefined ? all.to : yield* positionAt(log, all, until + 1),
        gone,
        stopped: undefined
      }
    })
  )
})

/**
 * Whether a partition may hold events of the row, if only some can: a window that is published or has a fold takes only events whose key is a
 * column of the row's key. Writers that choose partitions in another way than by the key break this, so the result must be compared.
 */
const ownedBy = ({ key, relation, target }: WatchedRow, sources: ReadonlyArray<TraceSource>) => {
  if (target.kind !== "window" || (target.topic === undefined && !hasFold(target))) return undefined
  const texts = relation.key.flatMap((column) => (typeof key[column] === "string" ? [key[column] as string] : []))
  const owners = new Map(
    sources.map(({ partitions, topic }) => [topic.name, new Set(texts.map((text) => partitionOf(text, partitions)))])
  )
  return ({ partition, topic }: PartitionRange) => owners.get(topic)?.has(partition) === true
}

/** Lookup tables that are read once, up to where their topics end now. */
export const readLookups = Effect.fnUntraced(function* (
  log: Log["Service"],
  { enrich }: Projection.Any,
  store: LookupStore
) {
  const tables = new Map<string, LookupTable>()
  for (const { topic } of Object.values(enrich)) {
    if (tables.has(topic.name)) continue
    const bounds = yield* log.bounds(topic.name)
    const ends = bounds.map(({ end }) => end)
    const { identity } = log
    // not further, whatever was appended since: a topic that ends before what was read of it counts as recreated
    const read: typeof log.read = (topic, partition, position, options) =>
      Effect.map(log.read(topic, partition, position, options), ({ end, next, records }) => {
        const most = ends[partition]!
        return { records: records.filter((record) => record.position < most), next: Math.min(next, most), end }
      })
    const fixed = { ends: () => Effect.succeed(ends), bounds: () => Effect.succeed(bounds), read, identity }
    const table = new LookupTable(fixed, topic, store)
    yield* table.catchUp
    tables.set(topic.name, table)
  }
  return tables
})

/** The sources of a projection, with the streams around them. */
export const readSources = Effect.fnUntraced(function* (
  { application, log, sql }: ExplainContext,
  projection: Projection.Any
) {
  const chains = yield* readChains(application, sql)
  return yield* Effect.forEach(projection.sources as ReadonlyArray<Topic.Any>, (topic) =>
    Effect.gen(function* () {
      const { length: partitions } = yield* log.ends(topic.name)
      return { topic, partitions, links: yield* linksOf(chains, projection, topic.name, partitions, log) }
    })
  )
})

/** Events with their personal fields, which are redacted if they are erased. One that cannot be decrypted stays as it is. */
const openedEvents = Effect.fnUntraced(function* (
  sql: Sql,
  sources: ReadonlyArray<TraceSource>,
  events: ReadonlyArray<RowEvent>
) {
  if (!events.some(({ value }) => value !== null && maySeal(value))) return events
  const find = yield* makeSubjectKeys(sql, { keyEncryptionKey: yield* keyEncryptionKey }).forValues(
    events.map(({ value }) => value)
  )
  return events.map((event) => {
    const { eventId, key, topic, type, value } = event
    if (value === null || !maySeal(value)) return event
    const eventTypes = sources.find((source) => source.topic.name === topic)?.topic.eventTypes
    try {
      const open = unseal(JSON.parse(value), { aggregate: topic, stream: key, eventId }, find)
      // the version that an event was written with is not kept: the newest one names as many fields as are known
      const fields = personalFieldsOf(eventTypes, type ?? "", eventTypes?.get(type ?? "")?.versions.length ?? 1)
      return { ...event, value: JSON.stringify(redacted(open, fields)) }
    } catch {
      return event
    }
  })
})

/** Explains a row. Runs the projection's handlers, with the services of the application. */
export const explainRow = Effect.fnUntraced(function* (
  { application, log, sql }: ExplainContext,
  request: ExplainRequest
) {
  const { build, projection: declared, row } = request
  const projection = buildOf(declared, build.number)
  const all = application.projections.map((one) => one.projection as Projection.Any)
  const state = yield* readRowState(sql, projection, row.target.name, row.key)
  const ranges = yield* rangesOf(log, state.positions, request)
  const sources = yield* readSources({ application, log, sql }, projection)
  const replay = yield* replayOf({ log, sql, sources, request, projection, owner: yield* readRetryOwner(sql) })
  const isOnlyWriter = all.filter((one) => one.writes.some(({ name }) => name === row.target.name)).length === 1
  const isComparable =
    request.from === undefined &&
    request.until === undefined &&
    ranges.every(({ gone }) => gone === undefined) &&
    (isOnlyWriter || !row.target.shared)
  const owns = ownedBy(row, sources)
  const some = owns === undefined ? ranges : ranges.filter(owns)
  let { partitions, trace } = yield* replay(some)
  if (some.length < ranges.length && (!isComparable || differencesOf(row, state.row, trace.row).length > 0))
    ({ partitions, trace } = yield* replay(ranges))
  const known = yield* readDeadLettersAt(sql, projection, trace.events)
  const events = yield* openedEvents(sql, sources, trace.events)
  const byEvent = new Map(known.map((one) => [`${one.topic}/${one.partition}/${one.position}`, one]))
  return {
    projection: projection.name,
    version: declared.version,
    build: build.number,
    live: build.live,
    row,
    events: Array.from(events, (event): ExplainedEvent => {
      const found = byEvent.get(`${event.topic}/${event.partition}/${event.position}`)
      return { ...event, deadLetter: found && { id: found.id, status: found.status } }
    }),
    omitted: trace.omitted,
    replayed: trace.row,
    stored: state.row,
    differences: isComparable ? differencesOf(row, state.row, trace.row) : undefined,
    partitions,
    notes: notesOf(request, partitions, {
      isShared: !isOnlyWriter && row.target.shared,
      unjournalled: yield* unjournalledOf(sql, projection, partitions)
    })
  } satisfies RowExplanation
})

/** Makes a function that replays ranges, from the start again whenever it turns out that more rows must be kept. */
const replayOf = Effect.fnUntraced(function* (of: {
  readonly log: Log["Service"]
  readonly sql: Sql
  readonly sources: ReadonlyArray<TraceSource>
  readonly request: ExplainRequest
  readonly projection: Projection.Any
  readonly owner: Effect.Success<ReturnType<typeof readRetryOwner>>
}) {
  const { log, owner, projection, request, sources, sql } = of
  const { mostEvents, onProgress, row } = request
  const lookups = Lookups.readOnly(sql, yield* Lookups.readJournalNumber(sql, projection.name, projection.version))
  const lookupTables = yield* readLookups(log, projection, lookups)
  const subjectKeys = makeSubjectKeys(sql, { keyEncryptionKey: yield* keyEncryptionKey })
  const kept = new Set(readFor(projection))
  const once = Effect.fnUntraced(function* (ranges: ReadonlyArray<ReplayedPartition>) {
    const known = { lookupTables, lookups, owner, subjectKeys }
    const trace = new RowTrace({ projection, row, sources, ...known, kept, mostEvents, mostRows })
    const stopped = new Map<PartitionRange, string>()
    const total = ranges.reduce((sum, { from, to }) => sum + to - from, 0)
    let done = 0
    yield* inAppendOrder(log, ranges, (range, record) => {
      const source = sources.find(({ topic }) => topic.name === range.topic)!
      if (++done % 1_000 === 0) onProgress?.(done, total)
      return trace.process(source, record).pipe(
        Effect.as(true),
        Effect.catchTag("Mismatch", ({ message }) => Effect.sync(() => (stopped.set(range, message), false)))
      )
    })
    const partitions = ranges.map((range): ReplayedPartition => ({ ...range, stopped: stopped.get(range) }))
    return { trace, partitions }
  })
  const replay = (ranges: ReadonlyArray<ReplayedPartition>): ReturnType<typeof once> =>
    once(ranges).pipe(
      Effect.catchDefect((defect) => {
        if (!(defect instanceof NeedsRows) || kept.has(defect.name)) return Effect.die(defect)
        kept.add(defect.name)
        return replay(ranges)
      })
    )
  return replay
})

/** The columns in which two rows differ. */
export const differencesOf = (
  { relation }: Pick<WatchedRow, "relation">,
  stored: Row | undefined,
  replayed: Row | undefined
): ReadonlyArray<DifferentColumn> =>
  relation.columns.flatMap(({ name: column }) => {
    const [before, now] = [stored?.[column], replayed?.[column]]
    if (JSON.stringify(before) === JSON.stringify(now)) return []
    return [{ column, stored: before, replayed: now, isRounding: isRounding(before, now) }]
  })
const isRounding = (a: unknown, b: unknown) =>
  typeof a === "number" && typeof b === "number" && Math.abs(a - b) <= 1e-9 * Math.max(Math.abs(a), Math.abs(b))

/** Events that were replayed and of which it is not known what they saw of lookups. */
export const unjournalledOf = (
  sql: Sql,
  { enrich, name, version }: Projection.Any,
  partitions: ReadonlyArray<PartitionRange>
) => {
  const topics = [...new Set(Object.values(enrich).map(({ topic }) => topic.name))]
  const starts = partitions.map(({ from, partition, topic }) => ({ topic, partition, start: from }))
  return topics.length === 0 ? Effect.succeed([]) : Lookups.readUnjournalled(sql, name, topics, starts, version)
}
/** Which partitions a replay could not go on with, and why. */
export const stoppedNotes = (partitions: ReadonlyArray<ReplayedPartition>): ReadonlyArray<string> =>
  partitions.flatMap(({ partition, stopped, topic }) =>
    stopped === undefined ? [] : `${topic}/${partition}: the replay stopped here, and the build did not: ${stopped}`
  )
const notesOf = (
  { from, until }: ExplainRequest,
  partitions: ReadonlyArray<ReplayedPartition>,
  of: { readonly isShared: boolean; readonly unjournalled: ReadonlyArray<Lookups.UnjournalledEvents> }
): ReadonlyArray<string> => [
  ...partitions.flatMap(({ gone, partition, topic }) =>
    gone === undefined
      ? []
      : [
          `${topic}/${partition}: the log no longer has the positions ${gone.from} to ${gone.to - 1}, which the build processed; what they did to the row is not known`
        ]
  ),
  ...stoppedNotes(partitions),
  ...(from === undefined && until === undefined
    ? []
    : ["a part of the log was replayed, so rows that handlers read and the result may differ from the stored row"]),
  ...of.unjournalled.map(Lookups.unjournalledText),
  ...(of.isShared ? ["other projections write this table too; the stored row has what they wrote"] : [])
]
