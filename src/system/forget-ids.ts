// Deletes now and then the ids by which duplicates were found, once their records are beyond the retention of their topics.
import * as Effect from "effect/Effect"
import type { Application } from "../model/application.ts"
import type { Projection } from "../model/projection.ts"
import type { Topic } from "../model/topic.ts"
import type { OngoingFailures } from "../monitor/ongoing-failures.ts"
import type { Sql } from "../postgres/client/client.ts"
import { type DedupedSource, pruneSeen } from "../postgres/store/seen.ts"
import { again } from "../relay/supervised.ts"

/** How often a process looks for ids that it can forget, in milliseconds. */
const everyMs = 60_000

/** The sources whose ids can be forgotten: a topic without a retention keeps its records, and the ids of them. */
const dedupedSources = ({ projections }: Application.Any): ReadonlyArray<DedupedSource> =>
  projections.flatMap(({ projection }) => {
    const { dedupe, name, sources, version } = projection as Projection.Any
    return (sources as ReadonlyArray<Topic.Any>).flatMap(({ name: topic, retentionMs }) =>
      dedupe === undefined || retentionMs === undefined
        ? []
        : [{ projection: name, declared: version, topic, retentionMs, withinMs: dedupe.withinMs }]
    )
  })

/** Runs until it is interrupted. Several processes may run it at once. */
export const forgetIds = (application: Application.Any, sql: Sql, failures: OngoingFailures): Effect.Effect<never> => {
  const sources = dedupedSources(application)
  const forgetting = "the deletion of ids of old events"
  const ended = (reason: string, againMs: number) => failures.report(forgetting, reason, againMs)
  const once = Effect.repeat(pruneSeen(sql, sources), { while: (deleted) => deleted > 0 })
  const loop = Effect.forever(Effect.andThen(Effect.sleep(everyMs), once))
  return sources.length === 0 ? Effect.never : again(forgetting, loop, { ended })
}
