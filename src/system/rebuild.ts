// Rebuilds a projection: creates its next build, or continues the one that is there, and processes it beside other processes until it is where the
// live build is.
import * as Effect from "effect/Effect"
import type { Projection } from "../model/projection.ts"
import { buildOf } from "../model/build.ts"
import { type Session, type Sql, type SqlError, transaction } from "../postgres/client/client.ts"
import { retrying, wasUndone } from "../postgres/client/retrying.ts"
import {
  candidateOf,
  createBuild,
  lockProjections,
  readBuilds,
  type SourceTopics,
  type StoredBuild
} from "../postgres/store/builds.ts"
import { noteEnd } from "../postgres/store/rebuild-until.ts"
import { noteBegin, noteCopy } from "../postgres/store/build-scope.ts"
import { copyLiveBuild } from "../postgres/store/copy-build.ts"
import { deleteBuild } from "../postgres/store/delete-build.ts"
import {
  type BuildId,
  readRebuild,
  type RebuildLimits,
  type RebuildPosition,
  type RebuildState,
  readRebuildPositions,
  setRebuildState,
  startRebuild
} from "../postgres/store/rebuild.ts"
import { RebuildRefused, RebuildStopped } from "./errors.ts"
import { goalsOf } from "./goals.ts"
import { buildToContinue, declaredProjection, type RebuildRequest, tablesToCopy } from "./rebuild-plan.ts"
import { readWaits } from "./rebuild-pacing.ts"
import { investigationOf } from "./rebuild-until.ts"
import { runBuild, type System } from "./system.ts"

/** How often the positions are read, and how often progress is reported, in milliseconds. */
const every = { pollMs: 100, reportMs: 2_000 }
/** The build is where the live one is once it reaches within this time all positions that the live one had at its start, in milliseconds. */
const closeMs = 1_000
/** For how long a rebuild waits for a database that is away, in milliseconds. */
export const awayMs = 300_000
/** A build that is halted and does not move for so long is given up, in milliseconds. */
const haltedMs = 10_000

/** How far a rebuild is. */
export interface RebuildProgress {
  readonly state: RebuildState
  /** What holds it back although it is not paused: a limit of the rebuild; undefined if nothing does. */
  readonly waits: string | undefined
  /** Records that were processed since this command began, and those that are left. */
  readonly processed: number
  readonly left: number
  /** Over the last seconds; 0 before anything was processed. */
  readonly perSecond: number
  /** Until the build is where the live one is now, at this rate; undefined while nothing moves. */
  readonly secondsLeft: number | undefined
}
/** The result of a rebuild. */
export interface Rebuilt {
  readonly build: number
  readonly live: number
  readonly events: number
  readonly seconds: number
}

const sum = (positions: ReadonlyArray<RebuildPosition>, of: (one: RebuildPosition) => number) =>
  positions.reduce((all, one) => all + of(one), 0)
const leftOf = ({ follower, live }: RebuildPosition) => Math.max(0, (live ?? 0) - (follower ?? 0))

/** Where the partitions of the projection's sources start, and how many there are. */
export const sourcesOf = Effect.fnUntraced(function* (log: System["log"], { sources }: Projection.Any) {
  const bounds = new Map(
    yield* Effect.forEach(sources, ({ name }) => Effect.map(log.bounds(name), (found) => [name, found] as const))
  )
  return {
    partitionsOf: (topic) => bounds.get(topic)?.length ?? 0,
    startOf: (topic, partition) => bounds.get(topic)?.[partition]?.start ?? 0
  } satisfies SourceTopics
})

/** Copies the live build into one that was just created, and which replaces the candidate. */
const copyLive = Effect.fnUntraced(function* (tx: Session, build: Projection.Any, before: ReadonlyArray<StoredBuild>) {
  const { name } = build
  const live = before.find((one) => one.live)
  if (live === undefined)
    return yield* new RebuildRefused({
      message: `projection ${name} has no live build that could be copied`,
      try: "start the application: its first build is live at once"
    })
  yield* copyLiveBuild(tx, build, live.number, yield* tablesToCopy(tx, build, live.number))
  yield* noteCopy(tx, { projection: name, version: build.version }, live.number)
  const replaced = candidateOf(before)
  if (replaced === undefined) return
  yield* deleteBuild(tx, name, replaced.number)
  yield* setRebuildState(tx, { projection: name, version: replaced.number }, "cancelled")
})

/**
 * Creates the next build of a projection, or finds the one to continue, and notes that its rebuild runs. Safe while others do the same. A copy of the
 * live build is a new one, which replaces the candidate.
 */
export const beginRebuild = Effect.fnUntraced(function* (
  { application, database: { sql }, log }: Pick<System, "application" | "database" | "log">,
  name: string,
  limits: RebuildLimits,
  request: RebuildRequest = {}
) {
  const { begin, end, isCopy = false, lookups = "asSeen" } = request
  const projection = yield* declaredProjection(application, name)
  const sources = yield* sourcesOf(log, projection)
  return yield* transaction(
    sql,
    Effect.fnUntraced(function* (tx) {
      yield* lockProjections(tx)
      const builds = yield* readBuilds(tx, name)
      const known = yield* buildToContinue(projection, builds, request)
      const build =
        known === undefined
          ? yield* createBuild(tx, projection, sources, { lookups })
          : buildOf(projection, known.number)
      if (isCopy) yield* copyLive(tx, build, builds)
      const id = { projection: name, version: build.version }
      if (known === undefined && begin !== undefined) yield* noteBegin(tx, id, begin)
      if (known === undefined && end !== undefined) yield* noteEnd(tx, id, end)
      yield* startRebuild(tx, id, limits)
      return build
    })
  )
})

/** Measures how fast positions move, over the last ten seconds. */
class Speed {
  private readonly seen: Array<{ readonly at: number; readonly processed: number }> = []

  note(processed: number): number {
    const at = performance.now()
    this.seen.push({ at, processed })
    while (this.seen.length > 2 && this.seen[0]!.at < at - 10_000) this.seen.shift()
    const first = this.seen[0]!
    return at === first.at ? 0 : ((processed - first.processed) / (at - first.at)) * 1000
  }
}

/** With the position at which an investigation build stops as the goal. */
const untilStop = (one: RebuildPosition): RebuildPosition =>
  one.stop === null ? one : Object.assign({}, one, { live: Math.min(one.live ?? one.stop, one.stop) })

/** Waits until the build is where the live one is, or where it stops. Fails with `RebuildStopped` if it was cancelled, or is halted. */
const untilThere = Effect.fnUntraced(function* (
  { database: { sql }, log }: Pick<System, "database" | "log">,
  build: BuildId,
  { onRetry, report }: RebuildReports
) {
  const { projection, version } = build
  const patient = <A, E extends { readonly message: string }>(reading: Effect.Effect<A, E>) =>
    retrying(reading, { forMs: awayMs, onRetry })
  const read = patient(readRebuildPositions(sql, projection, version))
  const goalsOfLive = yield* patient(goalsOf(log, yield* read))
  const goals = (positions: ReadonlyArray<RebuildPosition>) => goalsOfLive(positions).map(untilStop)
  const first = goals(yield* read)
  const begun = sum(first, ({ follower }) => follower ?? 0)
  const speed = new Speed()
  let goal = new Map(first.map((one) => [`${one.topic}/${one.partition}`, one.live ?? 0]))
  let goalAt = performance.now()
  let reportAt = performance.now() + every.reportMs
  let moved = { at: performance.now(), processed: 0 }
  while (true) {
    const builds = yield* patient(readBuilds(sql, projection))
    const own = builds.find(({ number }) => number === version)
    // it was promoted meanwhile: only a build that is where the live one is can be
    if (own?.live === true) return 0
    const stored = yield* patient(readRebuild(sql, build))
    const state = own === undefined || own.retired ? "cancelled" : (stored?.state ?? "running")
    if (state === "cancelled")
      return yield* new RebuildStopped({
        message: `the rebuild of projection ${projection} was cancelled, and its build ${version} deleted`,
        try: `start it again: millrace rebuild ${projection}`
      })
    const positions = goals(yield* read)
    const processed = sum(positions, ({ follower }) => follower ?? 0) - begun
    const left = sum(positions, leftOf)
    const perSecond = speed.note(processed)
    const now = performance.now()
    if (processed !== moved.processed || state === "paused") moved = { at: now, processed }
    const halted = positions.find((one) => one.halted !== null)
    if (halted !== undefined && now - moved.at > haltedMs)
      return yield* new RebuildStopped({
        message: `build ${version} of projection ${projection} is halted at ${halted.topic}/${halted.partition}: ${halted.halted}`,
        try: `remove the cause and run it again: millrace rebuild ${projection}. Or give it up: millrace rebuild ${projection} --cancel`
      })
    if (now > reportAt) {
      reportAt = now + every.reportMs
      const secondsLeft = perSecond > 0 ? left / perSecond : undefined
      const waits = stored === undefined ? undefined : yield* readWaits({ sql, log }, stored, perSecond)
      yield* report({ state, waits, processed, left, perSecond, secondsLeft })
    }
    if (positions.every((one) => (one.follower ?? 0) >= (goal.get(`${one.topic}/${one.partition}`) ?? 0))) {
      if (left === 0 || now - goalAt < closeMs) return processed
      goal = new Map(positions.map((one) => [`${one.topic}/${one.partition}`, one.live ?? 0]))
      goalAt = now
      continue
    }
    yield* Effect.sleep(every.pollMs)
  }
})

/** What is called while a rebuild runs. */
export interface RebuildReports {
  /** Called every two seconds. */
  readonly report: (progress: RebuildProgress) => Effect.Effect<void>
  /** Called when the database was away, and is asked again. */
  readonly onRetry: (error: { readonly message: string }) => Effect.Effect<void>
}
/**
 * Rebuilds a projection: processes its build in this process, beside all others that run it, until it is where the live build is, or where it stops. A process that dies
 * leaves a build that the next call continues.
 */
export const rebuild = Effect.fnUntraced(function* (system: System, build: Projection.Any, reports: RebuildReports) {
  const { sql } = system.database
  const patient = <A>(call: Effect.Effect<A, SqlError>) => retrying(call, { forMs: awayMs, onRetry: reports.onRetry })
  const id = { projection: build.name, version: build.version }
  const live = (yield* patient(readBuilds(sql, build.name))).find((one) => one.live)?.number ?? 0
  const started = performance.now()
  const events = yield* Effect.raceFirst(
    untilThere(system, id, reports),
    Effect.andThen(runBuild(system, build), Effect.never)
  )
  const seconds = (performance.now() - started) / 1000
  yield* patient(setRebuildState(sql, id, "done", events >= leastMeasured ? events / seconds : undefined))
  return { build: build.version, live, events, seconds } satisfies Rebuilt
})
/** The speed of a smaller rebuild says nothing. */
const leastMeasured = 10_000

/** The build that a rebuild makes: the investigation build that ends at a time, or else the candidate, or the newest investigation build. */
const rebuiltBuild = (builds: ReadonlyArray<StoredBuild>, untilMs: number | undefined): StoredBuild | undefined =>
  untilMs === undefined
    ? (candidateOf(builds) ?? builds.findLast((build) => build.untilMs !== null && !build.retired))
    : investigationOf(builds, untilMs)

/** The build whose rebuild is paused or goes on. */
const openRebuild = Effect.fnUntraced(function* (sql: Sql, name: string, untilMs: number | undefined) {
  const candidate = rebuiltBuild(yield* readBuilds(sql, name), untilMs)
  if (candidate !== undefined) return { projection: name, version: candidate.number } satisfies BuildId
  return yield* new RebuildRefused({
    message: `projection ${name} has no build that follows the live one, so no rebuild is under way`,
    try: `start one: millrace rebuild ${name}`
  })
})

/** Pauses a rebuild: in all processes, between two batches. Returns the number of its build. */
export const pauseRebuild = Effect.fnUntraced(function* (sql: Sql, name: string, untilMs?: number) {
  const id = yield* openRebuild(sql, name, untilMs)
  yield* setRebuildState(sql, id, "paused")
  return id.version
})
/** Lets a paused rebuild go on, with these limits. Returns the number of its build. */
export const resumeRebuild = Effect.fnUntraced(function* (
  sql: Sql,
  name: string,
  limits: RebuildLimits,
  untilMs?: number
) {
  const id = yield* openRebuild(sql, name, untilMs)
  yield* startRebuild(sql, id, limits)
  return id.version
})

/**
 * Cancels a rebuild: its build and everything of it is deleted, and no process can commit for it any more. The live build stays as it is. Returns the
 * number of the build that was deleted; undefined if there is none, as after an earlier call. The build is the investigation build that ends at
 * `untilMs`, or else the candidate, or the newest investigation build. Fails with `RebuildRefused` while a view shows a table of the build, as during
 * its promotion. `isDryRun`: changes nothing, and returns the number of the build that would be deleted.
 */
export const cancelRebuild = (sql: Sql, name: string, untilMs?: number, isDryRun = false) =>
  retrying(
    transaction(
      sql,
      Effect.fnUntraced(function* (tx) {
        yield* lockProjections(tx)
        const builds = yield* readBuilds(tx, name)
        const candidate = rebuiltBuild(builds, untilMs)
        if (candidate === undefined) return undefined
        return isDryRun ? copyOf(builds, candidate).number : yield* cancelBuild(tx, builds, candidate)
      })
    ),
    // not where it may have been done: then another build would be deleted as well
    { forMs: deadlockMs, while: wasUndone }
  ).pipe(
    Effect.mapError((error) =>
      error.code === othersDepend
        ? new RebuildRefused({
            message: `the rebuild of ${name} cannot be cancelled now: ${error.message}`,
            try: "the build is being promoted, or a view of yours shows its table: wait for the promotion to end, or drop the view"
          })
        : error
    )
  )
/** PostgreSQL's code where a table cannot be dropped because a view shows it. */
const othersDepend = "2BP01"
/** For how long a cancellation is tried again that PostgreSQL rolled back, in milliseconds. */
const deadlockMs = 30_000
/** The build that a build of keys is a part of; any other build is itself. */
const copyOf = (builds: ReadonlyArray<StoredBuild>, build: StoredBuild): StoredBuild =>
  builds.find(({ repair }) => repair !== null && repair.scratch === build.number) ?? build
/** Deletes a build with what belongs to its rebuild: one of keys has two. Returns the number of the build that was to be promoted. */
export const cancelBuild = Effect.fnUntraced(function* (
  tx: Session,
  builds: ReadonlyArray<StoredBuild>,
  build: StoredBuild
) {
  const { name } = build
  const copy = copyOf(builds, build)
  const scratch = copy.repair?.scratch ?? null
  for (const number of scratch === null ? [copy.number] : [scratch, copy.number]) {
    yield* deleteBuild(tx, name, number)
    yield* setRebuildState(tx, { projection: name, version: number }, "cancelled")
  }
  return copy.number
})
