// Reads the topics of an application as the log has them, against their declarations.
import * as Effect from "effect/Effect"
import type { LogError, PartitionBounds, ReadError } from "../log/log.ts"
import { differs, type TopicPlan } from "../log/topic-plan.ts"
import type { System } from "./system.ts"
import { declaredTopics } from "./topic-list.ts"
import { specsOf } from "./topics.ts"

/** A topic of an application. */
export interface TopicState {
  readonly name: string
  readonly declared: { readonly partitions: number; readonly compacted: boolean; readonly retentionMs: number | null }
  /** The partitions that the log has; empty if the topic does not exist. */
  readonly partitions: ReadonlyArray<PartitionBounds>
  readonly differs: boolean
  readonly plan: TopicPlan
  /** The projections that publish it, or `commands`; and those that read it. */
  readonly writtenBy: ReadonlyArray<string>
  readonly readBy: ReadonlyArray<string>
}

/** The declared topics. Fails if the log does not answer. */
export const readTopicStates = Effect.fnUntraced(function* ({
  application,
  log,
  on,
  topics
}: Pick<System, "application" | "log" | "on" | "topics">): Effect.fn.Return<
  ReadonlyArray<TopicState>,
  LogError | ReadError
> {
  const specs = specsOf(application, on)
  const plans = yield* topics.plan(specs)
  const uses = new Map(declaredTopics(application).map((one) => [one.topic, one]))
  return yield* Effect.forEach(
    specs,
    Effect.fnUntraced(function* ({ compacted, name, partitions, retentionMs = null }, i) {
      const plan = plans[i]!
      const bounds =
        plan.action === "create"
          ? []
          : yield* Effect.catchTag(log.bounds(name), "UnknownTopic", () => Effect.succeed([]))
      const declared = { partitions, compacted, retentionMs }
      const { readBy = [], writtenBy = [] } = uses.get(name) ?? {}
      return { name, declared, partitions: bounds, differs: differs(plan), plan, writtenBy, readBy }
    }),
    { concurrency: 8 }
  )
})
