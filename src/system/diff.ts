// Compares a candidate with the live build of its projection, at the same positions: rows, late events, dead letters and published messages.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ReadError } from "../log/log.ts"
import { declaredVersion } from "../model/build.ts"
import type { Table } from "../model/read-model.ts"
import type { Topic } from "../model/topic.ts"
import {
  countLookupDeadLetters,
  deadLettersOf,
  lateEventsOf,
  type PublishedMessages,
  readPublished
} from "../postgres/store/build-records.ts"
import { type BuildTables, readBuildTables } from "../postgres/store/build-tables.ts"
import type { Sql } from "../postgres/client/client.ts"
import { candidateOf, readBuilds, type StoredBuild } from "../postgres/store/builds.ts"
import { compare, type CompareOptions, type ComparedRelations, type Differences } from "../postgres/store/compare.ts"
import { isEven, readFollowerPositions } from "../postgres/store/promotion.ts"
import { retrying } from "../postgres/client/retrying.ts"
import { joinSnapshot, leaveSnapshot, openSnapshotSession, takeSnapshot } from "../postgres/store/snapshot.ts"
import { atEqualPositions, type BuildPair, type CatchUpOptions, type FollowerContext } from "./caught-up.ts"
import { NoCandidate } from "./errors.ts"
import { lookupDifferences } from "./rebuild-differences.ts"
import { momentText } from "./rebuild-until.ts"

/** What is compared, and how. */
export interface DiffRequest extends CompareOptions, CatchUpOptions {
  /** The name of the projection. */
  readonly name: string
  /** The number of a build that follows the live one; undefined: the candidate. */
  readonly with?: number | undefined
  /** Called when one of the things to compare is compared: how many are, of how many, and which one. */
  readonly onCompared?: (done: number, total: number, name: string) => void
}
/** A read model's table in both builds. Tables that are not compared have no rows that differ. */
export interface TableDiff extends Differences, Omit<BuildTables, "compared" | "comparedWithAdded"> {
  /** Whether rows may depend on the order of events of different partitions, which a replay does not repeat. */
  readonly isByOrder: boolean
}
/** What differs between two builds. */
export interface Diff {
  readonly projection: string
  /** The numbers of the builds. */
  readonly live: number
  readonly candidate: number
  readonly tables: ReadonlyArray<TableDiff>
  readonly late: Differences
  readonly deadLetters: Differences
  /** How many dead letters of lookup topics the builds have. They are not compared. */
  readonly lookupDeadLetters: Differences["rows"]
  /** The messages of handlers by topic; undefined if they were not counted from the start of both builds. */
  readonly messages: ReadonlyArray<PublishedMessages> | undefined
  /** What the candidate saw of lookups otherwise than the live build, as sentences. Rows may differ because of it. */
  readonly lookups: ReadonlyArray<string>
  /** Whether nothing differs but by rounding. A column or a table that only one build has is no difference. */
  readonly equal: boolean
  /** For how long the live build was frozen, in milliseconds. */
  readonly frozenMs: number
}

/** How many sessions compare at the same time. */
const sessions = 3

const nothing: Differences = {
  missing: 0,
  extra: 0,
  changed: 0,
  rounding: 0,
  rows: { live: 0, candidate: 0 },
  samples: []
}
const isEqual = ({ changed, extra, missing }: Differences) => missing + extra + changed === 0

/** The live build of a projection and the one that it is compared with. Fails with `NoCandidate` if one of them does not exist. */
export const pairOf = Effect.fnUntraced(function* (
  builds: ReadonlyArray<StoredBuild>,
  { name, with: asked }: Pick<DiffRequest, "name" | "with">
): Effect.fn.Return<BuildPair, NoCandidate> {
  const live = builds.find((build) => build.live)
  const followers = builds.filter((build) => !build.live && !build.retired)
  const follower = asked === undefined ? candidateOf(builds) : followers.find(({ number }) => number === asked)
  if (live !== undefined && follower !== undefined) return { live, follower }
  if (live === undefined)
    return yield* new NoCandidate({
      message: `projection ${name} has no live build`,
      try: "start the application with millrace dev or millrace start, which makes its build the live one"
    })
  const others = followers
    .filter(({ untilMs }) => untilMs === null)
    .map(({ number }) => number)
    .join(", ")
  return yield* new NoCandidate(
    asked === undefined
      ? {
          message: `projection ${name} has no candidate: no build is newer than the live one, build ${live.number}`,
          try: `millrace rebuild ${name} builds one${others === "" ? "" : `; --with compares the live build with an older one: ${others}`}`
        }
      : {
          message: `projection ${name} has no build ${asked} that follows the live one, build ${live.number}`,
          try: others === "" ? `millrace rebuild ${name} builds one` : `one of ${others}`
        }
  )
})

/** Fails if the follower is an investigation build that is not where the live build is: it does not get there. */
const assertComparable = Effect.fnUntraced(function* (sql: Sql, { follower, live }: BuildPair) {
  const { name, number, untilMs } = follower
  if (untilMs === null) return
  const positions = yield* readFollowerPositions(sql, { projection: name, live: live.number, follower: number })
  if (isEven(positions)) return
  return yield* new NoCandidate({
    message: `build ${number} of projection ${name} ends at ${momentText(untilMs)}, and is not at the positions of the live build, build ${live.number}; a comparison would show what happened in between`,
    try: `read its tables: ${name}_v${number}.TABLE; or compare a build of the whole log: millrace rebuild ${name}`
  })
})

/**
 * Compares two builds as they are at the same positions, see `compareOnce`. A failure that may pass, as a lost connection, is tried again while the
 * time allows.
 */
export const diff = (context: FollowerContext, request: DiffRequest) => {
  const deadline = performance.now() + request.timeoutMs
  const once = Effect.suspend(() =>
    Effect.scoped(compareOnce(context, { ...request, timeoutMs: Math.max(1, deadline - performance.now()) }))
  )
  return retrying(once, {
    forMs: request.timeoutMs,
    onRetry: ({ message }) =>
      performance.now() < deadline ? Effect.logWarning(`diff: ${message}; retrying`) : Effect.void
  })
}

/**
 * Compares two builds as they are at the same positions. Both may run: the live one is frozen until a snapshot of the database was taken, and
 * only if there is no moment at which both are at the same positions anyway. Fails with `NotCaughtUp` if the follower does not get there.
 */
const compareOnce = Effect.fnUntraced(function* (
  context: FollowerContext,
  request: DiffRequest
): Effect.fn.Return<
  Diff,
  ReadError | Effect.Error<ReturnType<typeof pairOf>> | Effect.Error<ReturnType<typeof atSnapshot>>,
  Scope.Scope
> {
  const { sql } = context
  const { name } = request
  const builds = yield* pairOf(yield* readBuilds(sql, name), request)
  yield* assertComparable(sql, builds)
  const { frozenMs, value: snapshot } = yield* atSnapshot(context, builds, request)
  const numbers = { live: builds.live.number, candidate: builds.follower.number }
  const compareIn = (relations: ComparedRelations) =>
    Effect.scoped(Effect.flatMap(joinSnapshot(sql, snapshot), (tx) => compare(tx, relations, request)))
  const [found, messages, lookupDeadLetters] = yield* Effect.scoped(
    Effect.flatMap(joinSnapshot(sql, snapshot), (tx) =>
      Effect.all([
        readBuildTables(tx, name, numbers),
        readPublished(tx, name, numbers),
        countLookupDeadLetters(tx, name, numbers)
      ])
    )
  )
  const wanted = [
    ...found.map((table) => ({ name: table.name, relations: table.compared })),
    { name: "late events", relations: lateEventsOf(name, numbers) },
    { name: "dead letters", relations: deadLettersOf(name, numbers) }
  ]
  let done = 0
  const compared = yield* Effect.forEach(
    wanted,
    ({ name: what, relations }) =>
      Effect.tap(relations === undefined ? Effect.succeed(nothing) : compareIn(relations), () =>
        Effect.sync(() => request.onCompared?.(++done, wanted.length, what))
      ),
    { concurrency: sessions }
  )
  const isByOrder = byOrderOf(context, builds)
  const tables = found.map(({ compared: _, comparedWithAdded: __, ...table }, i): TableDiff => ({
    ...table,
    ...compared[i]!,
    isByOrder: isByOrder(table.name)
  }))
  const [late, deadLetters] = compared.slice(found.length) as [Differences, Differences]
  const isComparable = ({ notCompared, onlyIn, retyped }: TableDiff) =>
    (notCompared === undefined || onlyIn !== undefined) && retyped.length === 0
  const equal =
    tables.every((table) => isEqual(table) && isComparable(table)) &&
    isEqual(late) &&
    isEqual(deadLetters) &&
    (messages ?? []).every((one) => one.live === one.candidate)
  const lookups = yield* lookupsOf(context, builds)
  return {
    projection: name,
    ...numbers,
    tables,
    late,
    deadLetters,
    lookupDeadLetters,
    messages,
    lookups,
    equal,
    frozenMs
  }
})

/**
 * Which read models have rows that may depend on the order of events of different partitions: tables whose key does not have that of the events.
 * Windows add up what comes, in any order, or (with folds) have rows that one partition alone writes. Also true where the code is not known.
 */
const byOrderOf = ({ application }: FollowerContext, { follower }: BuildPair) => {
  const declared = declaredVersion(application, follower.name, follower.declared)
  return (name: string): boolean => {
    const target = declared?.writes.find((one) => one.kind !== "topic" && one.name === name)
    if (declared === undefined || target === undefined) return true
    if (target.kind !== "table") return false
    const { primaryKey } = target as Table.Any
    return !(declared.sources as ReadonlyArray<Topic.Any>).every(
      ({ keyField }) => keyField !== undefined && primaryKey.includes(keyField)
    )
  }
}

/** What a follower saw of lookups otherwise. Empty also if the configuration does not have its version. */
const lookupsOf = Effect.fnUntraced(function* ({ application, log, sql }: FollowerContext, { follower }: BuildPair) {
  const declared = declaredVersion(application, follower.name, follower.declared)
  if (declared === undefined || Object.keys(declared.enrich).length === 0) return []
  const starts = yield* Effect.forEach(declared.sources as ReadonlyArray<Topic.Any>, ({ name: topic }) =>
    Effect.map(log.bounds(topic), (bounds) => bounds.map(({ partition, start }) => ({ topic, partition, start })))
  )
  return yield* lookupDifferences(sql, declared, starts.flat(), follower.lookups)
})

/** Takes a snapshot in which both builds are at the same positions. It can be joined until the scope closes. */
const atSnapshot = Effect.fnUntraced(function* (context: FollowerContext, builds: BuildPair, options: CatchUpOptions) {
  const one = yield* openSnapshotSession(context.sql)
  const take = Effect.gen(function* () {
    const id = yield* takeSnapshot(one)
    const pair = { projection: builds.live.name, live: builds.live.number, follower: builds.follower.number }
    // a freeze ends by itself: only what the snapshot shows counts
    const positions = yield* readFollowerPositions(one, pair)
    if (positions.length > 0 && isEven(positions)) return id
    yield* leaveSnapshot(one)
    return undefined
  })
  return yield* atEqualPositions(context, builds, options, { unfrozen: take, use: () => take })
})
