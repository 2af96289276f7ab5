// Finds where an investigation build stops: the position in each partition at which the log stored the first record at a time or later.
import * as Effect from "effect/Effect"
import type { Log, ReadError } from "../log/log.ts"
import type { Projection } from "../model/projection.ts"
import type { StoredBuild } from "../postgres/store/builds.ts"
import type { BuildEnd } from "../postgres/store/rebuild-until.ts"
import { positionAt } from "../runner/in-append-order.ts"

/** Where a build of a projection stops that has what the log stored before a time. Undefined if the log has no such record. */
export const endAt = Effect.fnUntraced(function* (
  log: Pick<Log["Service"], "bounds" | "read">,
  { sources }: Projection.Any,
  untilMs: number
): Effect.fn.Return<BuildEnd | undefined, ReadError> {
  const stops: Array<BuildEnd["stops"][number]> = []
  let hasRecords = false
  for (const { name: topic } of sources)
    for (const { end, partition, start } of yield* log.bounds(topic)) {
      const position = yield* positionAt(log, { topic, partition, from: start, to: end }, untilMs)
      stops.push({ topic, partition, position })
      hasRecords ||= position > start
    }
  return hasRecords ? { untilMs, stops } : undefined
})

/** The investigation build of a projection that has what the log stored before a time, the newest if there are several; undefined if there is none. */
export const investigationOf = (builds: ReadonlyArray<StoredBuild>, untilMs: number): StoredBuild | undefined =>
  builds.findLast((build) => build.untilMs === untilMs && !build.retired)

/** A time as messages have it. */
export const momentText = (ms: number): string => new Date(ms).toISOString()
