// Plans the changes that make the topics of the log on PostgreSQL match an application's, and applies them.
import * as Effect from "effect/Effect"
import type postgres from "postgres"
import { specProblem } from "../../log/rules.ts"
import { type Log, LogError, type TopicSpec } from "../../log/log.ts"
import { planChange, planCreation, type PlanOptions, type TopicPlan, type TopicAdmin } from "../../log/topic-plan.ts"
import { arrayOf } from "../client/columns.ts"
import { logQuery } from "./errors.ts"

interface TopicRow {
  readonly name: string
  readonly partitions: number
  readonly compacted: boolean
  readonly aggregate: boolean
  readonly retention_ms: number | null
}
const ever = "for ever"
const retentionOf = (ms: number | null | undefined) => (ms == null ? ever : String(Math.round(ms)))

const planOf = (spec: TopicSpec, there: TopicRow | undefined, options: PlanOptions): TopicPlan => {
  const retention = retentionOf(spec.retentionMs)
  if (there === undefined) {
    return planCreation(spec, {
      "cleanup.policy": spec.compacted ? "compact" : "delete",
      "retention.ms": retention
    })
  }
  const { aggregate: isAggregate, compacted, partitions, retention_ms } = there
  const from = retentionOf(retention_ms)
  const settings = from === retention ? [] : [{ name: "retention.ms", from, to: retention }]
  // readers of this log assume that a topic's number of partitions never changes
  const { allowRepartition: _, ...others } = options
  return planChange(spec, { partitions, compacted, isAggregate, replication: undefined, settings }, undefined, others)
}

/** The topics of the log, whose tables must exist. Partitions are never added to a topic, even if `allowRepartition` is set. */
export const make = (sql: postgres.Sql, { declare }: Pick<Log["Service"], "declare">): TopicAdmin => ({
  plan: Effect.fnUntraced(function* (specs, options = {}) {
    for (const spec of specs) {
      const reason = specProblem(spec)
      if (reason !== undefined)
        return yield* new LogError({ operation: "declare", topic: spec.name, retryable: false, reason })
    }
    const rows = yield* logQuery(
      "declare",
      "",
      () => sql<Array<TopicRow>>`
        select name, partitions, compacted, aggregate, retention_ms from millrace.log_topic
        where name = any (${arrayOf(specs.map(({ name }) => name))}::text[])`
    )
    const there = new Map(rows.map((row) => [row.name, row]))
    return specs.map((spec) => planOf(spec, there.get(spec.name), options))
  }),
  apply: (specs, plans) => declare(specs.filter((_, i) => /create|change/.test(plans[i]!.action)))
})
