// Runs a rebuild from its plan to its end: that of a whole projection, or of the rows of some keys.
import * as Effect from "effect/Effect"
import type { SqlError } from "../postgres/client/client.ts"
import { retrying } from "../postgres/client/retrying.ts"
import type { RebuildLimits } from "../postgres/store/rebuild.ts"
import { InvalidOperation } from "./errors.ts"
import { awayMs, beginRebuild, rebuild, type RebuildReports, type Rebuilt } from "./rebuild.ts"
import { rebuildKeys, type RebuiltKeys, type ScannedKeys } from "./rebuild-keys.ts"
import { declaredProjection, type RebuildContext, type RebuildPlan, type RebuildRequest } from "./rebuild-plan.ts"
import { beginAt, endAt, momentText } from "./rebuild-until.ts"
import type { System } from "./system.ts"

/**
 * Which part of the log is replayed. `from`: `now` for a copy of the live build, or a time in epoch milliseconds. Fails with `InvalidOperation` if the
 * log has no record before `untilMs`.
 */
export const replayedPart = Effect.fnUntraced(function* (
  { application, log }: RebuildContext,
  name: string,
  from: "now" | number | undefined,
  untilMs: number | undefined
) {
  const projection = yield* declaredProjection(application, name)
  const begin = typeof from === "number" ? yield* beginAt(log, projection, from) : undefined
  const end = untilMs === undefined ? undefined : yield* endAt(log, projection, untilMs)
  if (untilMs !== undefined && end === undefined)
    return yield* new InvalidOperation({
      message: `--until ${momentText(untilMs)} is before all records that the log has of the sources of ${name}`,
      try: "a later time; millrace rebuild replays the whole log"
    })
  return { isCopy: from === "now", begin, end } satisfies RebuildRequest
})

/** What is called while a rebuild runs. */
export interface RunReports extends RebuildReports {
  /** Called once with the number of the build, and of the one that is processed first: another one in a rebuild of keys. */
  readonly onBuild: (build: number, replayed: number) => Effect.Effect<void, SqlError>
}
/** The result of a rebuild; `tables` if it was one of keys. */
export interface RunRebuilt extends Rebuilt {
  readonly tables?: RebuiltKeys["tables"]
}
/**
 * Begins a rebuild or continues the one that is there, and processes it in this process beside all others until its build is where the live one is.
 * `scanned`: the log as far as it was scanned for the keys of the request. A process that dies leaves a build that the next call continues.
 */
export const runRebuild = (
  system: System,
  name: string,
  limits: RebuildLimits,
  { request, scanned }: { readonly request: RebuildRequest; readonly scanned: ScannedKeys | undefined },
  reports: RunReports
) => {
  const { onBuild, onRetry } = reports
  const { keys } = request
  const whole = Effect.gen(function* () {
    // a second call continues what the first one may have created
    const build = yield* retrying(beginRebuild(system, name, limits, request), { forMs: awayMs, onRetry })
    yield* onBuild(build.version, build.version)
    const rebuilt: RunRebuilt = yield* rebuild(system, build, reports)
    return rebuilt
  })
  return keys === undefined || scanned === undefined
    ? whole
    : Effect.map(rebuildKeys(system, name, limits, { keys, scanned }, reports), (rebuilt): RunRebuilt => rebuilt)
}

/** The result as `millrace rebuild --json` prints it. */
export const rebuiltJson = (
  { from, keys, projection, until }: RebuildPlan,
  { build, events, live, seconds, tables }: RunRebuilt
) => ({
  projection,
  build,
  live,
  state: "done",
  ...(from !== null && { from }),
  ...(until !== null && { until }),
  ...(keys !== null && { keys, tables }),
  events,
  seconds: Number(seconds.toFixed(3)),
  events_per_second: seconds > 0 ? Math.round(events / seconds) : 0
})
