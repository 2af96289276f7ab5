// Finds where builds begin and stop that have only a part of the log: the position in each partition at which the log stored the first record at a time or
// later.
import * as Effect from "effect/Effect"
import type { Log, ReadError } from "../log/log.ts"
import type { Projection } from "../model/projection.ts"
import type { BuildBegin } from "../postgres/store/build-scope.ts"
import type { StoredBuild } from "../postgres/store/builds.ts"
import type { BuildEnd } from "../postgres/store/rebuild-until.ts"
import { positionAt } from "../runner/in-append-order.ts"

/** The position at a time in each partition of a projection's sources, and where the partition starts. */
const positionsAt = Effect.fnUntraced(function* (
  log: Pick<Log["Service"], "bounds" | "read">,
  { sources }: Projection.Any,
  time: number
) {
  const found: Array<BuildEnd["stops"][number] & { readonly start: number }> = []
  for (const { name: topic } of sources)
    for (const { end, partition, start } of yield* log.bounds(topic)) {
      const position = yield* positionAt(log, { topic, partition, from: start, to: end }, time)
      found.push({ topic, partition, start, position })
    }
  return found
})

/** Where a build of a projection stops that has what the log stored before a time. Undefined if the log has no such record. */
export const endAt = Effect.fnUntraced(function* (
  log: Pick<Log["Service"], "bounds" | "read">,
  projection: Projection.Any,
  untilMs: number
): Effect.fn.Return<BuildEnd | undefined, ReadError> {
  const stops = yield* positionsAt(log, projection, untilMs)
  return stops.some(({ position, start }) => position > start) ? { untilMs, stops } : undefined
})

/** Where a build of a projection begins that has what the log stored at a time or later. */
export const beginAt = Effect.fnUntraced(function* (
  log: Pick<Log["Service"], "bounds" | "read">,
  projection: Projection.Any,
  fromMs: number
): Effect.fn.Return<BuildBegin, ReadError> {
  return { fromMs, starts: yield* positionsAt(log, projection, fromMs) }
})

/** The investigation build of a projection that has what the log stored before a time, the newest if there are several; undefined if there is none. */
export const investigationOf = (builds: ReadonlyArray<StoredBuild>, untilMs: number): StoredBuild | undefined =>
  builds.findLast((build) => build.untilMs === untilMs && !build.retired)

/** A time as messages have it. */
export const momentText = (ms: number): string => new Date(ms).toISOString()
