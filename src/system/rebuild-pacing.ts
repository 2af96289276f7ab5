// Paces the builds that follow as their rebuilds ask: paused, at a rate that all processes share, or behind the live build's own work.
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import type { Log, ReadError } from "../log/log.ts"
import type { Pacing } from "../runner/pacing.ts"
import { type ProjectionPartition, StoreError } from "../runner/store.ts"
import type { Sql, SqlError } from "../postgres/client/client.ts"
import { readBuilds } from "../postgres/store/builds.ts"
import { readProcesses } from "../postgres/store/processes.ts"
import { readRebuild, readRebuildPositions, type StoredRebuild, takeTurn } from "../postgres/store/rebuild.ts"
import { readClock } from "../postgres/store/status.ts"
import { isAlive } from "./findings.ts"
import { makePauseGate } from "./pause.ts"

/** For how long what was read of a rebuild or of the live build counts, in milliseconds. */
const freshMs = 250
/** How long a follower waits before it looks again whether it may go on, in milliseconds. */
const waitMs = 250
/** With a rate, a partition takes events of so many seconds at once; where the live build's lag is limited, so many events. */
const turn = { seconds: 0.25, events: 2_000 }

const failed = (error: SqlError | ReadError): StoreError =>
  new StoreError({
    operation: "look how fast a rebuild may go",
    retryable: !("retryable" in error) || error.retryable,
    reason: error.message,
    cause: error
  })

/** Keeps the result of a reading for a moment, for all who ask by the same name: while it is read the others wait for it, and read nothing. */
const kept = <A, E>(read: (name: string) => Effect.Effect<A, E>) => {
  const known = new Map<string, { readonly at: number; readonly value: A }>()
  const turn = Semaphore.makeUnsafe(1)
  const fresh = (name: string) => {
    const found = known.get(name)
    return found !== undefined && performance.now() - found.at < freshMs ? found : undefined
  }
  return (name: string): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      const found = fresh(name)
      if (found !== undefined) return Effect.succeed(found.value)
      const reading = Effect.suspend(() => {
        const meanwhile = fresh(name)
        if (meanwhile !== undefined) return Effect.succeed(meanwhile.value)
        return Effect.tap(read(name), (value) => Effect.sync(() => known.set(name, { at: performance.now(), value })))
      })
      return turn.withPermits(1)(reading)
    })
}

/** For how long the oldest event waits that the live build of a projection has not processed, in milliseconds; 0 if no process runs it. */
export const readLiveLag = Effect.fnUntraced(function* (
  { log, sql }: { readonly sql: Sql; readonly log: Log["Service"] },
  projection: string,
  live: number
): Effect.fn.Return<number, SqlError | ReadError> {
  const processes = yield* readProcesses(sql)
  if (!processes.some((one) => isAlive(one) && one.projections.includes(`${projection}_v${live}`))) return 0
  const positions = yield* readRebuildPositions(sql, projection, undefined)
  const ends = new Map<string, ReadonlyArray<number>>()
  for (const topic of new Set(positions.map((one) => one.topic))) ends.set(topic, yield* log.ends(topic))
  const behind = positions.filter((one) => (one.live ?? 0) < (ends.get(one.topic)![one.partition] ?? 0))
  const appended = yield* Effect.forEach(
    behind,
    (one) =>
      log.read(one.topic, one.partition, one.live!, { maxBytes: 1 }).pipe(
        Effect.map(({ records }) => records[0]?.appendedAt),
        Effect.catchTag("OutOfRange", () => Effect.undefined)
      ),
    { concurrency: 8 }
  )
  const oldest = Math.min(...appended.flatMap((at) => (at === undefined ? [] : [at])))
  return oldest === Infinity ? 0 : (yield* readClock(sql)) - oldest
})

/** The pacing by the rows of `millrace.rebuild`, which `millrace rebuild` writes. A build without a row goes as fast as it can. */
export const makePacing = (sql: Sql, log: Log["Service"]): Pacing => {
  const stateOf = new Map<string, Effect.Effect<StoredRebuild | undefined, SqlError>>()
  const readState = (at: ProjectionPartition) => {
    const name = `${at.projection}_v${at.version}`
    let read = stateOf.get(name)
    if (read === undefined) {
      const keep = kept(() => readRebuild(sql, at))
      stateOf.set(name, (read = keep(name)))
    }
    return read
  }
  const liveOf = kept((projection) =>
    Effect.map(readBuilds(sql, projection), (builds) => builds.find((build) => build.live)?.number)
  )
  const lagOf = kept((projection) =>
    Effect.flatMap(readBuilds(sql, projection), (builds) => {
      const live = builds.find((build) => build.live)
      return live === undefined ? Effect.succeed(0) : readLiveLag({ sql, log }, projection, live.number)
    })
  )
  const admit = Effect.fnUntraced(function* (
    at: ProjectionPartition,
    records: number
  ): Effect.fn.Return<number, SqlError | ReadError> {
    while (true) {
      const rebuild = yield* readState(at)
      if (rebuild === undefined || rebuild.state === "done" || rebuild.state === "cancelled") return records
      const { maxLiveLagMs, rate, state } = rebuild
      if (state === "paused" || (maxLiveLagMs !== null && (yield* lagOf(at.projection)) > maxLiveLagMs)) {
        yield* Effect.sleep(waitMs)
        // nothing holds a live build: its partition notices the promotion when it commits
        if ((yield* liveOf(at.projection)) === at.version) return records
        continue
      }
      const most = maxLiveLagMs === null ? records : Math.min(records, turn.events)
      if (rate === null) return most
      const events = Math.max(1, Math.min(most, Math.floor(rate * turn.seconds)))
      const wait = yield* takeTurn(sql, at, events)
      // the state may have changed while this read it
      if (wait === undefined) continue
      if (wait > 0) yield* Effect.sleep(wait)
      return events
    }
  })
  return {
    whilePaused: makePauseGate(sql),
    admit: (at, records) => Effect.mapError(admit(at, records), failed)
  }
}

/**
 * What holds a rebuild back by its limits now, for people; undefined if nothing does. `perSecond`: how fast it is, which is compared with its rate.
 * Undefined, too, if that cannot be read.
 */
export const readWaits = Effect.fnUntraced(
  function* (
    { log, sql }: { readonly sql: Sql; readonly log: Log["Service"] },
    { maxLiveLagMs, projection, rate, state }: StoredRebuild,
    perSecond?: number
  ): Effect.fn.Return<string | undefined, SqlError | ReadError> {
    if (state !== "running") return undefined
    if (maxLiveLagMs !== null) {
      const live = (yield* readBuilds(sql, projection)).find((build) => build.live)
      const lagMs = live === undefined ? 0 : yield* readLiveLag({ sql, log }, projection, live.number)
      if (lagMs > maxLiveLagMs)
        return `live lag ${secondsText(lagMs)} is above --max-live-lag ${secondsText(maxLiveLagMs)}`
    }
    return rate !== null && perSecond !== undefined && perSecond >= 0.8 * rate
      ? `--rate ${rate} a second for all processes`
      : undefined
  },
  Effect.orElseSucceed((): string | undefined => undefined)
)
const secondsText = (ms: number) => `${ms < 9_950 ? Number((ms / 1000).toFixed(1)) : Math.round(ms / 1000)} s`
