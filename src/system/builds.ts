// Runs the builds of an application's projections: all that are not retired, also those that appear while the process runs.
import * as Effect from "effect/Effect"
import * as FiberMap from "effect/FiberMap"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { Application } from "../model/application.ts"
import { buildName, buildOf, declaredVersion } from "../model/build.ts"
import type { Chains } from "../model/chains.ts"
import type { Projection } from "../model/projection.ts"
import type { Sql, SqlError } from "../postgres/client/client.ts"
import { readBuilds } from "../postgres/store/builds.ts"
import { chainsAround, readChains } from "./chains.ts"
import { beginProjectionCounters } from "./measured.ts"
import type { Presence } from "./presence.ts"

/** How often the process looks for builds that appeared or were retired. */
const lookEvery = "1 second"

/** The builds of the application's projections that are to run: those of its declared versions that are not retired, and not where they stop. */
export const buildsOf = (
  application: Pick<Application.Any, "projections">,
  sql: Sql
): Effect.Effect<ReadonlyArray<Projection.Any>, SqlError> =>
  Effect.map(readBuilds(sql), (stored) =>
    stored.flatMap(({ declared, ended, name, number, retired }) => {
      const found = declaredVersion(application, name, declared)
      return found === undefined || retired || ended ? [] : [buildOf(found, number)]
    })
  )

/** What `runBuilds` works on. */
export interface BuildsContext {
  readonly application: Pick<Application.Any, "projections">
  readonly sql: Sql
  readonly presence: Presence
  /** The builds to start with. */
  readonly builds: ReadonlyArray<Projection.Any>
}
/**
 * Runs each build by `run`, until interrupted. Looks every second for builds that a rebuild created, which it starts, and for those that were
 * retired or cancelled or have reached their end, which it stops. A build whose chains change, because another build of a projection that it reads from is live, is started again. Fails as soon as the run of a build fails.
 */
export const runBuilds = Effect.fnUntraced(function* <E, R>(
  { application, builds, presence, sql }: BuildsContext,
  run: (build: Projection.Any, chains: Chains) => Effect.Effect<void, E, R>
): Effect.fn.Return<void, E, R | Scope.Scope> {
  const running = yield* FiberMap.make<Projection.Any, void, E>()
  /** What each running build depends on of the chains. */
  const around = new Map<Projection.Any, string>()
  const set = Effect.fnUntraced(function* (wanted: ReadonlyArray<Projection.Any>, chains: Chains) {
    const current = new Set(Array.from(running, ([build]) => build))
    const [added, removed] = [
      wanted.filter((one) => !current.has(one)),
      [...current].filter((one) => !wanted.includes(one))
    ]
    const changed = wanted.filter((one) => current.has(one) && around.get(one) !== chainsAround(chains, one))
    if (added.length > 0 || removed.length > 0) {
      presence.change("projections", { projections: wanted.map(buildName) })
      yield* beginProjectionCounters(added.map(buildName))
    }
    for (const build of removed) {
      yield* Effect.logInfo(`${buildName(build)} is no longer run: it was retired or cancelled, or has reached its end`)
      yield* FiberMap.remove(running, build)
    }
    for (const build of changed) {
      yield* Effect.logInfo(`${buildName(build)} is started again: the streams that it reads or feeds are others`)
      yield* FiberMap.remove(running, build)
    }
    for (const build of [...added, ...changed]) {
      around.set(build, chainsAround(chains, build))
      yield* FiberMap.run(running, build, run(build, chains))
    }
  })
  const chains = readChains(application, sql)
  yield* set(builds, yield* Effect.orDie(Effect.retry(chains, Schedule.spaced(lookEvery))))
  const look = Effect.matchEffect(Effect.all([buildsOf(application, sql), chains]), {
    onSuccess: ([wanted, now]) => set(wanted, now),
    // the runners themselves report a database that is away
    onFailure: () => Effect.void
  })
  yield* Effect.raceFirst(FiberMap.join(running), Effect.forever(Effect.andThen(Effect.sleep(lookEvery), look)))
})
