// The history of a key: what each of its events did to its rows, by a replay of the projections in memory, compared with the rows that are stored.
import * as Effect from "effect/Effect"
import { buildOf } from "../model/build.ts"
import { partitionOf } from "../model/partitioner.ts"
import type { Projection } from "../model/projection.ts"
import type { Row } from "../model/recorder.ts"
import type { StoredBuild } from "../postgres/store/builds.ts"
import * as Lookups from "../postgres/store/lookups.ts"
import { readRowStates } from "../postgres/store/row-history.ts"
import type { KeyStep, TracedRow } from "../runner/key-trace.ts"
import { buildOfTable } from "./explain-table.ts"
import {
  type DifferentColumn,
  differencesOf,
  type ExplainContext,
  rangesOf,
  readSources,
  type ReplayedPartition,
  stoppedNotes,
  unjournalledOf
} from "./explain.ts"
import { keyReplayOf, type KeyReplayRequest } from "./key-replay.ts"
import { withServices } from "./services.ts"

/** Which key's history is read, and how much of it. */
export interface KeyHistoryRequest extends KeyReplayRequest {
  /** How many records of each projection are replayed at most. */
  readonly mostRecords: number
  /** Whether all partitions are replayed, and not only those that the key's events are in. */
  readonly isAll: boolean
}
/** A row of the key. Rows hold what columns hold. */
export interface RowHistory extends TracedRow {
  /** The row before the first event of the history. */
  readonly before: Row | undefined
  /** What the replay gives, and what the database has. */
  readonly replayed: Row | undefined
  readonly stored: Row | undefined
  /** Undefined if they cannot be compared. */
  readonly differences: ReadonlyArray<DifferentColumn> | undefined
}
/** The history of a key in one projection. */
export interface ProjectionHistory {
  readonly projection: string
  readonly version: number
  readonly build: number
  readonly steps: ReadonlyArray<KeyStep>
  /** How many earlier events were left out. */
  readonly omitted: number
  readonly rows: ReadonlyArray<RowHistory>
  readonly partitions: ReadonlyArray<ReplayedPartition>
  /** Whether all partitions were replayed. */
  readonly isComplete: boolean
  /** How many records the replay left out because there are more than it may replay. */
  readonly left: number
  /** What the replay cannot know. */
  readonly notes: ReadonlyArray<string>
}
/** A projection whose history cannot be read. */
export interface NoHistory {
  readonly projection: string
  readonly problem: string
}

/** How often the rows are read again because the projection has moved on. */
const mostReads = 3

const everything = { from: undefined, until: undefined }
const isSame = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b)

/** Replays the projection up to where the build is when its rows are read, so that both can be compared. */
const replayed = Effect.fnUntraced(function* (
  context: ExplainContext,
  projection: Projection.Any,
  request: KeyHistoryRequest
) {
  const { log, sql } = context
  const { isAll, key, mostRecords } = request
  const sources = yield* readSources(context, projection)
  const counts = new Map(sources.map(({ partitions, topic }) => [topic.name, partitions]))
  const isOfKey = ({ partition, topic }: { readonly partition: number; readonly topic: string }) =>
    isAll || partitionOf(key, counts.get(topic) ?? 1) === partition
  const replay = yield* keyReplayOf(context, projection, sources, request)
  const readStates = (rows: Iterable<TracedRow>) => readRowStates(sql, projection, [...rows])
  let { positions } = yield* readStates([])
  const own = (yield* rangesOf(log, positions, everything)).filter(isOfKey)
  const total = own.reduce((sum, { from, to }) => sum + to - from, 0)
  let state = yield* replay.from(own, mostRecords)
  let stored: Effect.Success<ReturnType<typeof readStates>>["rows"] = new Map()
  for (let read = 0; read < mostReads; read++) {
    const states = yield* readStates(state.trace.rows.values())
    stored = states.rows
    const hasMoved = !isSame(states.positions.filter(isOfKey), positions.filter(isOfKey))
    if (total > mostRecords || !hasMoved) break
    positions = states.positions
    state = yield* replay.on(state, (yield* rangesOf(log, positions, everything)).filter(isOfKey))
  }
  return { ...state, stored, total, isComplete: own.length === positions.length }
})

/** Whether another projection writes the same rows. */
const isShared = ({ application }: ExplainContext, { name, writes }: Projection.Any, table: string) =>
  writes.some((target) => target.kind !== "topic" && target.name === table && target.shared) &&
  application.projections.some(
    (one) =>
      one.projection.name !== name && (one.projection as Projection.Any).writes.some((target) => target.name === table)
  )
const rowsOf = (
  context: ExplainContext,
  projection: Projection.Any,
  { partitions, stored, total, trace }: Effect.Success<ReturnType<typeof replayed>>,
  { mostRecords }: KeyHistoryRequest
): ReadonlyArray<RowHistory> => {
  const isWhole =
    total <= mostRecords && partitions.every(({ gone, stopped }) => gone === undefined && stopped === undefined)
  const before = new Map<string, Row | undefined>()
  for (const { changes } of trace.steps)
    for (const change of changes) if (!before.has(change.row)) before.set(change.row, change.before)
  return [...trace.rows.values()].flatMap((row) => {
    const { id, key, name, others, relation } = row
    if (!before.has(id)) return []
    const [now, own] = [trace.rowOf(row), stored.get(id)]
    const canCompare = isWhole && stored.has(id) && !isShared(context, projection, name)
    const differences = canCompare ? differencesOf(row, own, now) : undefined
    return [{ id, key, name, others, relation, before: before.get(id), replayed: now, stored: own, differences }]
  })
}
const notesOf = (
  partitions: ReadonlyArray<ReplayedPartition>,
  total: number,
  { mostRecords }: KeyHistoryRequest
): ReadonlyArray<string> => [
  ...partitions.flatMap(({ gone, partition, topic }) =>
    gone === undefined
      ? []
      : `${topic}/${partition}: the log no longer has the positions ${gone.from} to ${gone.to - 1}; what they did to rows is not known`
  ),
  ...stoppedNotes(partitions),
  ...(total > mostRecords
    ? [`the replay ended after ${mostRecords} of ${total} records; what came later is not known. Ask for more records`]
    : [])
]

const traced = Effect.fnUntraced(function* (
  context: ExplainContext,
  { build, projection: declared }: { readonly build: StoredBuild; readonly projection: Projection.Any },
  request: KeyHistoryRequest
) {
  const projection = buildOf(declared, build.number)
  const found = yield* replayed(context, projection, request)
  const { isComplete, partitions, total, trace } = found
  const unjournalled = yield* unjournalledOf(context.sql, projection, partitions)
  return {
    projection: projection.name,
    version: declared.version,
    build: build.number,
    steps: trace.steps,
    omitted: trace.omitted,
    rows: rowsOf(context, projection, found, request),
    partitions,
    isComplete,
    left: Math.max(0, total - request.mostRecords),
    notes: [...notesOf(partitions, total, request), ...unjournalled.map(Lookups.unjournalledText)]
  } satisfies ProjectionHistory
})

const historyIn = Effect.fnUntraced(function* (
  context: ExplainContext,
  of: { readonly build: StoredBuild; readonly projection: Projection.Any },
  request: KeyHistoryRequest
) {
  const first = yield* traced(context, of, request)
  const isDifferent = first.rows.some(({ differences = [] }) => differences.some(({ isRounding }) => !isRounding))
  // events of other partitions may write rows of the key
  return first.isComplete || !isDifferent ? first : yield* traced(context, of, { ...request, isAll: true })
})

/** The history of a key in the live builds of all projections that write rows. Runs their handlers, with the services of the application. */
export const keyHistory = Effect.fnUntraced(function* (context: ExplainContext, request: KeyHistoryRequest) {
  const { application, sql } = context
  const all = application.projections.map((one) => one.projection as Projection.Any)
  const writing = all.filter(({ writes }) => writes.some(({ kind }) => kind !== "topic"))
  const found: Array<ProjectionHistory | NoHistory> = []
  for (const [projection, versions] of Map.groupBy(writing, ({ name }) => name)) {
    const one = buildOfTable(sql, versions, undefined).pipe(
      Effect.flatMap((of) => withServices(application, historyIn(context, of, request))),
      Effect.catchTag("NotExplained", ({ message }) => Effect.succeed({ projection, problem: message } as NoHistory))
    )
    found.push(yield* one)
  }
  return found
})
