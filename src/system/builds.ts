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

/** The builds of the application's projections that this process has to do with, and those of them whose rows appends write. */
export interface WantedBuilds {
  readonly builds: ReadonlyArray<Projection.Any>
  readonly inline: ReadonlySet<Projection.Any>
}
/** The builds of the application's projections that are to run: those of its declared versions that are not retired, and not where they stop. */
export const buildsOf = (
  application: Pick<Application.Any, "projections">,
  sql: Sql
): Effect.Effect<WantedBuilds, SqlError> =>
  Effect.map(readBuilds(sql), (stored) => {
    const builds: Array<Projection.Any> = []
    const inlineBuilds = new Set<Projection.Any>()
    for (const { declared, ended, inline, name, number, retired } of stored) {
      const found = declaredVersion(application, name, declared)
      if (found === undefined || retired || ended) continue
      const build = buildOf(found, number)
      builds.push(build)
      if (inline) inlineBuilds.add(build)
    }
    return { builds, inline: inlineBuilds }
  })

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
 * retired or cancelled or have reached their end, which it stops. A build whose chains change, because another build of a projection that it reads from is live, is started again. One whose rows appends write
 * is not run, and is again once they do not. Fails as soon as the run of a build fails.
 */
export const runBuilds = Effect.fnUntraced(function* <E, R>(
  { application, builds, presence, sql }: BuildsContext,
  run: (build: Projection.Any, chains: Chains) => Effect.Effect<void, E, R>
): Effect.fn.Return<void, E, R | Scope.Scope> {
  const running = yield* FiberMap.make<Projection.Any, void, E>()
  /** What each running build depends on of the chains. */
  const around = new Map<Projection.Any, string>()
  const set = Effect.fnUntraced(function* ({ builds: wanted, inline }: WantedBuilds, chains: Chains) {
    const aroundOf = (build: Projection.Any) => (inline.has(build) ? "inline" : chainsAround(chains, build))
    const current = new Set(Array.from(running, ([build]) => build))
    const [added, removed] = [
      wanted.filter((one) => !current.has(one)),
      [...current].filter((one) => !wanted.includes(one))
    ]
    const changed = wanted.filter((one) => current.has(one) && around.get(one) !== aroundOf(one))
    if (added.length > 0 || removed.length > 0) {
      presence.change("projections", { projections: wanted.map(buildName) })
      yield* beginProjectionCounters(added.map(buildName))
    }
    for (const build of removed) {
      yield* Effect.logInfo(`${buildName(build)} is no longer run: it was retired or cancelled, or has reached its end`)
      yield* FiberMap.remove(running, build)
    }
    for (const build of changed) {
      const why = inline.has(build)
        ? "is no longer run: appends write its rows"
        : around.get(build) === "inline"
          ? "is run: appends no longer write its rows"
          : "is started again: the streams that it reads or feeds are others"
      yield* Effect.logInfo(`${buildName(build)} ${why}`)
      yield* FiberMap.remove(running, build)
    }
    for (const build of [...added, ...changed]) {
      around.set(build, aroundOf(build))
      yield* FiberMap.run(running, build, inline.has(build) ? Effect.never : run(build, chains))
    }
  })
  const chains = readChains(application, sql)
  const both = Effect.all([buildsOf(application, sql), chains])
  const [{ inline }, first] = yield* Effect.orDie(Effect.retry(both, Schedule.spaced(lookEvery)))
  yield* set({ builds, inline }, first)
  const look = Effect.matchEffect(both, {
    onSuccess: ([wanted, now]) => set(wanted, now),
    // the runners themselves report a database that is away
    onFailure: () => Effect.void
  })
  yield* Effect.raceFirst(FiberMap.join(running), Effect.forever(Effect.andThen(Effect.sleep(lookEvery), look)))
})
