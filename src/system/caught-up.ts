// Brings a follower to the positions of the live build, and stops both there for a moment: to promote the follower, or to compare both.
import { randomUUID } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Log } from "../log/log.ts"
import type { Application } from "../model/application.ts"
import { buildOf, declaredVersion } from "../model/build.ts"
import type { Projection } from "../model/projection.ts"
import type { Sql, SqlError } from "../postgres/client/client.ts"
import type { StoredBuild } from "../postgres/store/builds.ts"
import { makeNotifier } from "../postgres/relay/notify.ts"
import { readIdentity } from "../postgres/store/identity.ts"
import { readProcesses } from "../postgres/store/processes.ts"
import { readRebuild } from "../postgres/store/rebuild.ts"
import { type FollowerPosition, freeze, readFollowerPositions, thaw } from "../postgres/store/promotion.ts"
import * as PostgresStore from "../postgres/store/store.ts"
import { makeSubjectKeys } from "../postgres/store/subject-keys.ts"
import type { InvalidEnvironment } from "./errors.ts"
import { keyEncryptionKey } from "./environment.ts"
import { NotCaughtUp } from "./errors.ts"
import { isAlive } from "./findings.ts"
import { goalsOf } from "./goals.ts"
import type { OpenedLog } from "./open-log.ts"
import { Presence } from "./presence.ts"
import { groupNames, runBuild } from "./system.ts"

/** What a follower is run with. */
export interface FollowerContext {
  readonly application: Application.Any
  readonly sql: Sql
  readonly log: Log["Service"]
  readonly on: OpenedLog["on"]
}
/** The live build of a projection, and one that follows it. */
export interface BuildPair {
  readonly live: StoredBuild
  readonly follower: StoredBuild
}
/** How long it may take. */
export interface CatchUpOptions {
  /** After so long it fails, with nothing changed, in milliseconds. */
  readonly timeoutMs: number
}

/** How often positions are read, in milliseconds: while the follower is far behind, and while the live build is frozen. */
const pollMs = { behind: 50, close: 15, frozen: 3 }
/** For how long a follower that is close is watched, and how long a moment is waited for at which it is as close as it was at best, in milliseconds. */
const watchMs = { first: 300, most: 1_500 }
/** A follower is close if it reaches within this time the positions that the live build had at its start, in milliseconds. */
const closeMs = 1_000
/** How long the live build is frozen at most, and how much of that the follower has for the rest of its way, in milliseconds. */
const freezeMs = { deadline: 5_000, drain: 2_000 }
/** The pause before the next freeze, in which the live build catches up, in milliseconds. */
const pauseMs = 500
/** A follower that does not move for so long is run here as well; one that is halted for so long is given up. In milliseconds. */
const stalledMs = 5_000

/** Runs the follower in this process, until the scope closes. */
const runHere = Effect.fnUntraced(function* (
  { application, log, on, sql }: FollowerContext,
  build: Projection.Any
): Effect.fn.Return<void, SqlError | InvalidEnvironment, Scope.Scope> {
  const groups = groupNames(on === "Kafka" ? yield* readIdentity(sql) : undefined)
  const presence = new Presence()
  yield* presence.announce(sql)
  // it may be promoted while it runs here
  const subjectKeys = makeSubjectKeys(sql, { keyEncryptionKey: yield* keyEncryptionKey })
  const store = PostgresStore.make(sql, { published: makeNotifier(sql), processId: presence.id, subjectKeys })
  yield* Effect.forkScoped(runBuild({ application, database: { sql }, groups, log, presence, store }, build))
})

const behindOf = (positions: ReadonlyArray<FollowerPosition>) =>
  positions.reduce((sum, { follower, live }) => sum + Math.max(0, (live ?? 0) - (follower ?? 0)), 0)
const placesOf = ({ partition, topic }: FollowerPosition) => `${topic}/${partition}`
const records = (count: number) => `${count} record${count === 1 ? "" : "s"}`

/** Fails with `NotCaughtUp` if the rebuild of the build is paused. */
export const assertNotPaused = Effect.fnUntraced(function* (sql: Sql, { name, number }: StoredBuild) {
  const rebuild = yield* readRebuild(sql, { projection: name, version: number })
  if (rebuild?.state === "paused")
    return yield* new NotCaughtUp({
      message: `the rebuild of build ${number} of projection ${name} is paused`,
      try: `millrace rebuild ${name} --resume`,
      timedOut: false
    })
})

const replaced = ({ name, number }: StoredBuild) =>
  new NotCaughtUp({
    message: `build ${number} of projection ${name} is not the live one any more`,
    try: "run the command again",
    timedOut: false
  })

/** Follows how far a build has to go, and runs it here if no other process does. */
const follow = Effect.fnUntraced(function* (
  context: FollowerContext,
  { follower, live }: BuildPair,
  { timeoutMs }: CatchUpOptions
) {
  const { application, log, sql } = context
  const scope = yield* Effect.scope
  const pair = { projection: follower.name, live: live.number, follower: follower.number }
  const what = `build ${follower.number} of projection ${follower.name}`
  const declared = declaredVersion(application, follower.name, follower.declared)
  const deadline = performance.now() + timeoutMs
  let isHere = false
  let state = ""
  let goals: Effect.Success<ReturnType<typeof goalsOf>> | undefined
  let movedAt = performance.now()
  const startHere = Effect.gen(function* () {
    if (isHere) return
    yield* assertNotPaused(sql, follower)
    if (declared === undefined)
      return yield* new NotCaughtUp({
        message: `${what} is not at the positions of build ${live.number}, and no process runs it`,
        try: `start a process whose configuration has version ${follower.declared} of the projection, or give this command that configuration with --config`,
        timedOut: false
      })
    isHere = true
    movedAt = performance.now()
    yield* Effect.logDebug(`running ${what} in this process`)
    yield* Scope.provide(runHere(context, buildOf(declared, follower.number)), scope)
  })
  /** The positions of both builds. Fails if the follower is halted, or the time is over. */
  const positions = Effect.gen(function* () {
    const read = yield* readFollowerPositions(sql, pair)
    if (read.length === 0) return yield* replaced(live)
    goals ??= yield* goalsOf(log, read)
    const found = goals(read)
    const behind = behindOf(found)
    const now = performance.now()
    const next = JSON.stringify(found)
    if (next !== state) movedAt = now
    state = next
    const isStalled = behind > 0 && now - movedAt > stalledMs
    const halted = found.find((one) => one.halted !== null)
    if (isStalled && halted !== undefined)
      return yield* new NotCaughtUp({
        message: `${what} is halted at ${placesOf(halted)}: ${halted.halted}`,
        try: "remove the cause, which millrace status shows, too, and try again",
        timedOut: false
      })
    if (isStalled) yield* startHere
    if (now > deadline)
      return yield* new NotCaughtUp({
        message: `${what} has ${records(behind)} to go until it is where build ${live.number} is; nothing was changed`,
        try: "wait until millrace status shows that it has caught up, or allow more time with --timeout",
        timedOut: true
      })
    return found
  })
  const first = yield* positions
  if (behindOf(first) > 0) {
    yield* assertNotPaused(sql, follower)
    const name = `${follower.name}_v${follower.number}`
    const processes = yield* readProcesses(sql)
    if (!processes.some((one) => isAlive(one) && one.projections.includes(name))) yield* startHere
  }
  return { positions, pair }
})

const isDrained = (positions: ReadonlyArray<FollowerPosition>) =>
  // where only the follower reads a topic, it need not stop
  positions.every(({ follower, live, own }) =>
    own === null ? follower !== null && follower === live : follower !== null && follower >= (live ?? 0)
  )
const hasReached = (positions: ReadonlyArray<FollowerPosition>, goal: ReadonlyMap<string, number>) =>
  positions.every((one) => (one.follower ?? 0) >= (goal.get(placesOf(one)) ?? 0))

/** The result of what was done at equal positions, and for how long the live build was frozen for it, in milliseconds. */
export interface AtEqualPositions<A> {
  readonly value: A
  readonly frozenMs: number
  /** From the freeze until `use` had done it, in milliseconds. */
  readonly usedMs: number
}
/**
 * Waits until the follower is close to the live build, freezes the live build, and once both are at the same positions does `use`, which must be
 * short; then thaws it. Runs the follower in this process if no other one does. `use` gets the freeze's token, and returns undefined if
 * both were not at the same positions after all: then it is tried again. `unfrozen` is tried first, without a freeze, each time when both seem to
 * be there. Fails with `NotCaughtUp` if that takes too long or is not possible; then nothing was changed.
 */
export const atEqualPositions = Effect.fnUntraced(function* <A, E, R, E2 = never, R2 = never>(
  context: FollowerContext,
  builds: BuildPair,
  options: CatchUpOptions,
  {
    unfrozen = Effect.undefined,
    use
  }: {
    readonly use: (token: string) => Effect.Effect<A | undefined, E, R>
    readonly unfrozen?: Effect.Effect<A | undefined, E2, R2>
  }
) {
  // the follower is no longer run here when this returns
  const running = yield* Scope.make()
  const { sql } = context
  const run = Effect.gen(function* () {
    const { pair, positions } = yield* Scope.provide(follow(context, builds, options), running)
    const close = Effect.gen(function* () {
      while (true) {
        const startedAt = performance.now()
        const goal = new Map((yield* positions).map((one) => [placesOf(one), one.live ?? 0]))
        while (!hasReached(yield* positions, goal)) yield* Effect.sleep(pollMs.behind)
        if (performance.now() - startedAt < closeMs) return
      }
    })
    /** Waits for a moment at which the follower has little to go, so that the freeze is short. */
    const closest = Effect.gen(function* () {
      const startedAt = performance.now()
      let least = Infinity
      while (true) {
        const behind = behindOf(yield* positions)
        const watchedMs = performance.now() - startedAt
        if (behind === 0 || watchedMs > watchMs.most || (watchedMs > watchMs.first && behind <= least)) return
        if (watchedMs <= watchMs.first) least = Math.min(least, behind)
        yield* Effect.sleep(pollMs.close)
      }
    })
    while (true) {
      yield* close
      yield* closest
      if (isDrained(yield* positions)) {
        const value = yield* unfrozen
        if (value !== undefined) return { value, frozenMs: 0, usedMs: 0 } satisfies AtEqualPositions<A>
      }
      const token = randomUUID()
      const held = { projection: pair.projection, live: pair.live, token }
      // partitions are frozen one after the other, so the first one from here on
      const frozenAt = performance.now()
      let usedAt = frozenAt
      let value: A | undefined
      yield* Effect.acquireUseRelease(
        freeze(sql, held, freezeMs.deadline),
        Effect.fnUntraced(function* (frozen) {
          if (frozen === undefined) return
          while (!isDrained(yield* positions)) {
            if (performance.now() - frozenAt > freezeMs.drain) return
            yield* Effect.sleep(pollMs.frozen)
          }
          value = yield* use(token)
          usedAt = performance.now()
        }),
        // it ends by itself if this fails
        () => Effect.ignore(thaw(sql, held))
      )
      const frozenMs = performance.now() - frozenAt
      if (value !== undefined) return { value, frozenMs, usedMs: usedAt - frozenAt } satisfies AtEqualPositions<A>
      yield* positions
      yield* Effect.sleep(pauseMs)
    }
  })
  return yield* Effect.onExit(run, () => Scope.close(running, Exit.void))
})
