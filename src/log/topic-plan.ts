// Topic plans: what has to change so that a log's topics are as an application declares them. Pure; the adapters read and change topics.
import type * as Effect from "effect/Effect"
import type { LogError, TopicSpec } from "./log.ts"
import { specConflict } from "./rules.ts"
import { counted } from "../text/counted.ts"

/** A setting of a topic that differs from its declaration, by the log's own name for it. */
export interface SettingChange {
  readonly name: string
  /** Undefined if the topic does not set it, or does not exist. */
  readonly from: string | undefined
  readonly to: string
}
/** What has to be done about one topic. */
export interface TopicPlan {
  readonly topic: string
  readonly action: "create" | "change" | "nothing" | "refused"
  readonly partitions: { readonly from: number | undefined; readonly to: number }
  readonly settings: ReadonlyArray<SettingChange>
  /** Why the plan is refused, what the change breaks, or what differs and has to be changed with other tools. */
  readonly notes: ReadonlyArray<string>
}
/** A topic as it exists in the log. */
export interface ExistingTopic {
  readonly partitions: number
  readonly compacted: boolean
  /** Whether it has the events of an aggregate. Default: false. */
  readonly isAggregate?: boolean
  /** Replicas of each partition; undefined if the log has none. */
  readonly replication: number | undefined
  /** The declared settings that differ. */
  readonly settings: ReadonlyArray<SettingChange>
}
/** What a plan may include that is refused by default. */
export interface PlanOptions {
  /** Add partitions to topics that have fewer than declared, although a key's later records may then be in another partition. */
  readonly allowRepartition?: boolean
}
/** Plans and applies changes of a log's topics. */
export interface TopicAdmin {
  /** Compares, and changes nothing. Returns one plan for each of `specs`, in their order. */
  readonly plan: (
    specs: ReadonlyArray<TopicSpec>,
    options?: PlanOptions
  ) => Effect.Effect<ReadonlyArray<TopicPlan>, LogError>
  /** Applies plans one topic after another; refused ones are skipped. Fails at the first change that the log refuses. */
  readonly apply: (specs: ReadonlyArray<TopicSpec>, plans: ReadonlyArray<TopicPlan>) => Effect.Effect<void, LogError>
}

/** The plan for a topic that does not exist. `settings` are those that it will be created with. */
export const planCreation = (
  { name, partitions }: TopicSpec,
  settings: Readonly<Record<string, string>>,
  replication?: number
): TopicPlan => ({
  topic: name,
  action: "create",
  partitions: { from: undefined, to: partitions },
  settings: [
    ...(replication === undefined ? [] : [["replication.factor", String(replication)] as const]),
    ...Object.entries(settings)
  ].map(([setting, to]) => ({ name: setting, from: undefined, to })),
  notes: []
})

const repartitioned = (from: number, to: number) =>
  `partitions ${from} to ${to - 1} are new, and most keys move to another partition: a key's later records are no longer in one order with ` +
  "its earlier ones, and the new partition does not see the rows, windows and seen ids of the old one. Every projection over the topic must start over: under its next version, or under a new name if it publishes"

/** The plan for a topic that exists. */
export const planChange = (
  spec: TopicSpec,
  there: ExistingTopic,
  replication: number | undefined,
  { allowRepartition = false }: PlanOptions = {}
): TopicPlan => {
  const { name, partitions } = spec
  const grows =
    allowRepartition && spec.isAggregate !== true && partitions > there.partitions && there.compacted === spec.compacted
  const refused = grows ? undefined : specConflict(there, spec)
  const notes = [
    ...(refused === undefined ? [] : [refused]),
    ...(grows ? [repartitioned(there.partitions, partitions)] : []),
    ...(replication === undefined || there.replication === undefined || there.replication === replication
      ? []
      : [
          `the topic has ${counted(there.replication, "replica")} but ${replication} ${replication === 1 ? "is" : "are"} declared; move its partitions with kafka-reassign-partitions.sh`
        ])
  ]
  const changes = grows || there.settings.length > 0
  return {
    topic: name,
    action: refused !== undefined ? "refused" : changes ? "change" : "nothing",
    partitions: { from: there.partitions, to: partitions },
    settings: refused === undefined ? there.settings : [],
    notes
  }
}

/** Whether a topic differs from its declaration. */
export const differs = ({ action, notes }: TopicPlan): boolean => action !== "nothing" || notes.length > 0
