// Rebuilds the rows of some keys: copies the live build, replays the log beside it up to where the copy was made, and puts the rows of the keys into the
// copy. Events of all keys are replayed, because stream time and duplicates depend on them.
import * as Effect from "effect/Effect"
import { buildOf } from "../model/build.ts"
import type { Projection } from "../model/projection.ts"
import { type Session, type Sql, type SqlError, transaction } from "../postgres/client/client.ts"
import { retrying } from "../postgres/client/retrying.ts"
import { createBuild, lockProjections, readBuilds } from "../postgres/store/builds.ts"
import { copyLiveBuild } from "../postgres/store/copy-build.ts"
import { deleteBuild } from "../postgres/store/delete-build.ts"
import { noteRepair, replaceKeys, type RepairedTable } from "../postgres/store/key-repair.ts"
import * as Lookups from "../postgres/store/lookups.ts"
import { type BuildId, type RebuildLimits, readRebuildPositions, startRebuild } from "../postgres/store/rebuild.ts"
import { readRetryOwner } from "../postgres/store/row-history.ts"
import { KeyScan } from "../runner/key-scan.ts"
import { makeSubjectKeys } from "../postgres/store/subject-keys.ts"
import { keyEncryptionKey } from "./environment.ts"
import { RebuildRefused, RebuildStopped } from "./errors.ts"
import { readLookups, readSources } from "./explain.ts"
import { withServices } from "./services.ts"
import { awayMs, cancelBuild, rebuild, type RebuildReports, type Rebuilt, sourcesOf } from "./rebuild.ts"
import {
  buildToContinue,
  declaredProjection,
  type KeySelection,
  planRebuild,
  type RebuildContext,
  type RebuildPlan,
  tablesToCopy
} from "./rebuild-plan.ts"
import type { System } from "./system.ts"

/** The events of a projection's log, as far as they were scanned for keys. */
export interface ScannedKeys {
  readonly scan: KeyScan<unknown, unknown>
  /** Scans on, up to where a build is: the live one, or another one. Fails with `RebuildRefused` if rows cannot be told apart by keys. */
  readonly upTo: (build: number | undefined) => Effect.Effect<void, Effect.Error<ReturnType<typeof scanUpTo>>>
}
/** Is called from time to time with the number of records that were scanned, and of all. */
export type OnScanned = (done: number, total: number) => Effect.Effect<void>

/** Every so many records the progress is reported. */
const reportEvery = 100_000

const scanUpTo = Effect.fnUntraced(function* (
  { log, sql }: RebuildContext,
  { name, scan }: { readonly name: string; readonly scan: KeyScan<unknown, unknown> },
  sources: Effect.Success<ReturnType<typeof readSources>>,
  scanned: Map<string, number>,
  build: number | undefined,
  onScanned: OnScanned
) {
  const ranges: Array<{
    readonly topic: string
    readonly partition: number
    readonly from: number
    readonly to: number
  }> = []
  const positions = yield* readRebuildPositions(sql, name, build)
  for (const { topic } of sources)
    for (const { end, partition, start } of yield* log.bounds(topic.name)) {
      const at = positions.find((one) => one.topic === topic.name && one.partition === partition)
      const from = scanned.get(`${topic.name}/${partition}`) ?? Math.max(start, at?.first ?? start)
      ranges.push({
        topic: topic.name,
        partition,
        from,
        to: Math.min(end, (build === undefined ? at?.live : at?.follower) ?? 0)
      })
    }
  const total = ranges.reduce((sum, { from, to }) => sum + Math.max(0, to - from), 0)
  let done = 0
  for (const { from, partition, to, topic } of ranges) {
    const source = sources.find((one) => one.topic.name === topic)!
    let at = from
    while (at < to) {
      const batch = yield* log.read(topic, partition, at)
      // nothing more can come: the rest of the partition is gone
      if (batch.next <= at) break
      const next = Math.min(batch.next, to)
      const records = batch.records.filter(({ position }) => position < to)
      yield* scan.process(source, partition, { records, next })
      if (scan.problem !== undefined)
        return yield* new RebuildRefused({
          message: `the rows of some keys of projection ${name} cannot be rebuilt alone: ${scan.problem}`,
          try: `rebuild all: millrace rebuild ${name}`
        })
      if (Math.floor((done + next - at) / reportEvery) > Math.floor(done / reportEvery))
        yield* onScanned(done + next - at, total)
      done += next - at
      at = next
      scanned.set(`${topic}/${partition}`, at)
    }
  }
})

/** Begins to scan a projection's log for keys. It calls the projection's handlers, with the services of the application. */
const openScan = Effect.fnUntraced(function* (
  context: RebuildContext,
  declared: Projection.Any,
  live: number,
  { keys }: KeySelection,
  onScanned: OnScanned
) {
  const { application, log, sql } = context
  const projection = buildOf(declared, live)
  const lookups = Lookups.readOnly(sql, yield* Lookups.readJournalNumber(sql, projection.name, live))
  const sources = yield* readSources(context, projection)
  const scan = new KeyScan<unknown, unknown>({
    projection,
    keys: new Set(keys),
    lookups,
    lookupTables: yield* readLookups(log, projection, lookups),
    owner: yield* readRetryOwner(sql),
    subjectKeys: makeSubjectKeys(sql, { keyEncryptionKey: yield* keyEncryptionKey })
  })
  const scanned = new Map<string, number>()
  return {
    scan,
    upTo: (build) =>
      withServices(application, scanUpTo(context, { name: projection.name, scan }, sources, scanned, build, onScanned))
  } satisfies ScannedKeys
})

/** What a rebuild of the rows of some keys would do. Reads the whole log. Fails with `RebuildRefused` if it is not possible. */
export const planKeys = Effect.fnUntraced(function* (
  context: RebuildContext,
  name: string,
  rate: number | null | undefined,
  keys: KeySelection,
  onScanned: OnScanned
) {
  const plan = yield* planRebuild(context, name, rate, { keys })
  const declared = yield* declaredProjection(context.application, name)
  const scanned = yield* openScan(context, declared, plan.live.build, keys, onScanned)
  yield* scanned.upTo(undefined)
  const { events, found, owned } = scanned.scan
  if (found.size === 0)
    return yield* new RebuildRefused({
      message: `no event of ${declared.sources.map(({ name: topic }) => topic).join(", ")} has ${keys.keys.length === 1 ? "the key" : `one of the ${keys.keys.length} keys`}`,
      try: "give keys of events, one a line, as millrace explain shows them"
    })
  const unwritten = declared.writes.filter(
    (target) => target.kind !== "topic" && !target.shared && !owned.some((model) => model.name === target.name)
  )
  const differs = [
    `rows of all other keys stay as those of build ${plan.live.build}`,
    ...unwritten.map((target) => `${target.name}: no event writes it, so its rows stay, too`)
  ]
  return {
    plan: {
      ...plan,
      keys: { given: keys.keys.length, found: found.size, unknown: keys.keys.length - found.size, events },
      not_reproduced: [...differs, ...plan.not_reproduced]
    } satisfies RebuildPlan,
    scanned
  }
})

/** Creates the copy and the build that replays, or finds those to continue. */
const beginKeys = Effect.fnUntraced(function* (
  { application, database: { sql }, log }: Pick<System, "application" | "database" | "log">,
  name: string,
  limits: RebuildLimits,
  keys: KeySelection
) {
  const projection = yield* declaredProjection(application, name)
  const sources = yield* sourcesOf(log, projection)
  return yield* transaction(
    sql,
    Effect.fnUntraced(function* (tx) {
      yield* lockProjections(tx)
      const builds = yield* readBuilds(tx, name)
      const known = yield* buildToContinue(projection, builds, { keys })
      if (known !== undefined) {
        const scratch = known.repair?.scratch ?? undefined
        yield* startRebuild(tx, { projection: name, version: scratch ?? known.number }, limits)
        return {
          copy: buildOf(projection, known.number),
          scratch: scratch === undefined ? undefined : buildOf(projection, scratch)
        }
      }
      const live = builds.find((build) => build.live)
      if (live === undefined) return yield* noLiveBuild(name)
      const copy = yield* createBuild(tx, projection, sources)
      yield* copyLiveBuild(tx, copy, live.number, yield* tablesToCopy(tx, copy, live.number))
      const scratch = yield* createBuild(tx, projection, sources)
      yield* noteRepair(tx, {
        projection: name,
        version: copy.version,
        base: live.number,
        scratch: scratch.version,
        keysHash: keys.hash
      })
      yield* startRebuild(tx, { projection: name, version: scratch.version }, limits)
      return { copy, scratch }
    })
  )
})
const noLiveBuild = (name: string) =>
  new RebuildRefused({
    message: `projection ${name} has no live build that could be copied`,
    try: "start the application: its first build is live at once"
  })

/** Whether the copy has the rows of the keys, which another process may have put there; fails with `RebuildStopped` if it was cancelled. */
const isFinished = Effect.fnUntraced(function* (sql: Session | Sql, { projection, version }: BuildId) {
  const copy = (yield* readBuilds(sql, projection)).find(({ number }) => number === version)
  if (copy !== undefined && !copy.retired) return copy.repair?.scratch === null
  return yield* new RebuildStopped({
    message: `the rebuild of projection ${projection} was cancelled, and its build ${version} deleted`,
    try: `start it again: millrace rebuild ${projection} --keys FILE`
  })
})

/** Puts the rows of the keys into the copy, and deletes the build that replayed them. */
const finishKeys = (sql: Sql, copy: Projection.Any, limits: RebuildLimits, { scan }: ScannedKeys) =>
  transaction(
    sql,
    Effect.fnUntraced(function* (tx) {
      const { name: projection, version } = copy
      const id = { projection, version }
      yield* lockProjections(tx)
      if (yield* isFinished(tx, id)) return []
      const builds = yield* readBuilds(tx, projection)
      const stored = builds.find(({ number }) => number === version)!
      const scratch = builds.find(({ number }) => number === stored.repair?.scratch)
      const isBase = builds.some(({ live, number }) => live && number === stored.repair?.base)
      if (!isBase || scratch === undefined || scratch.retired || !scratch.ended || !stored.ended)
        return yield* new RebuildRefused({
          message: isBase
            ? `build ${stored.repair?.scratch} of projection ${projection}, which replays the rows of the keys, is not where build ${version} is`
            : `build ${stored.repair?.base} of projection ${projection}, of which build ${version} is a copy, is not the live one any more`,
          try: `begin again: millrace rebuild ${projection} --cancel`
        })
      const tables = yield* replaceKeys(tx, copy, scratch.number, scan.owned, [...scan.found])
      yield* deleteBuild(tx, projection, scratch.number)
      yield* startRebuild(tx, id, limits)
      return tables
    })
  )

/** Deletes the builds of a rebuild of keys that is not finished. */
const giveUp = (sql: Sql, name: string, number: number) =>
  transaction(
    sql,
    Effect.fnUntraced(function* (tx) {
      yield* lockProjections(tx)
      const builds = yield* readBuilds(tx, name)
      const copy = builds.find((build) => build.number === number)
      if (copy !== undefined && !copy.live) yield* cancelBuild(tx, builds, copy)
    })
  )

/** What is called while the rows of keys are rebuilt. */
export interface RebuildKeysReports extends RebuildReports {
  /** Called once with the number of the copy, and of the build that is processed first. */
  readonly onBuild: (copy: number, first: number) => Effect.Effect<void, SqlError>
}
/** The result of a rebuild of some keys. */
export interface RebuiltKeys extends Rebuilt {
  /** How many rows were replaced; empty if that was done by an earlier call. */
  readonly tables: ReadonlyArray<RepairedTable>
}

/**
 * Rebuilds the rows of some keys in a copy of the live build, until the copy is where the live build is. A process that dies leaves what the next call
 * with the same keys continues.
 */
export const rebuildKeys = Effect.fnUntraced(function* (
  system: System,
  name: string,
  limits: RebuildLimits,
  { keys, scanned }: { readonly keys: KeySelection; readonly scanned: ScannedKeys },
  { onBuild, ...reports }: RebuildKeysReports
) {
  const { sql } = system.database
  const patient = <A, E extends { readonly message: string }>(call: Effect.Effect<A, E>) =>
    retrying(call, { forMs: awayMs, onRetry: reports.onRetry })
  const { copy, scratch } = yield* patient(beginKeys(system, name, limits, keys))
  yield* onBuild(copy.version, scratch?.version ?? copy.version)
  let before = { events: 0, seconds: 0 }
  let tables: ReadonlyArray<RepairedTable> = []
  if (scratch !== undefined) {
    // what came since the plan was made
    yield* Effect.tapErrorTag(scanned.upTo(copy.version), "RebuildRefused", () =>
      patient(giveUp(sql, name, copy.version))
    )
    before = yield* rebuild(system, scratch, reports).pipe(
      Effect.catchTag("RebuildStopped", (error) =>
        Effect.flatMap(patient(isFinished(sql, { projection: name, version: copy.version })), (isDone) =>
          isDone ? Effect.succeed(before) : Effect.fail(error)
        )
      )
    )
    tables = yield* patient(finishKeys(sql, copy, limits, scanned))
  }
  const rebuilt = yield* rebuild(system, copy, reports)
  return {
    ...rebuilt,
    events: before.events + rebuilt.events,
    seconds: before.seconds + rebuilt.seconds,
    tables
  } satisfies RebuiltKeys
})
