// What is to be done so that a log's topics are what an application declares. Compared here; read and changed by the adapters.
import type * as Effect from "effect/Effect"
import type { LogError, TopicSpec } from "./log.ts"
import { specConflict } from "./rules.ts"

/** A setting of a topic that differs from what is declared, by the log's own names. */
export interface SettingChange {
  readonly name: string
  /** Undefined: the topic does not say, or is not there. */
  readonly from: string | undefined
  readonly to: string
}
/** What is to be done about one topic. */
export interface TopicPlan {
  readonly topic: string
  readonly action: "create" | "change" | "nothing" | "refused"
  readonly partitions: { readonly from: number | undefined; readonly to: number }
  readonly settings: ReadonlyArray<SettingChange>
  /** Why it is refused, what the change breaks, or what differs and must be changed by other means. */
  readonly notes: ReadonlyArray<string>
}
/** A topic as the log has it. */
export interface ExistingTopic {
  readonly partitions: number
  readonly compacted: boolean
  /** Copies of each partition; undefined where the log has no such thing. */
  readonly replication: number | undefined
  /** Of the declared settings, those that differ. */
  readonly settings: ReadonlyArray<SettingChange>
}
/** What may be done that is refused otherwise. */
export interface PlanOptions {
  /** Add partitions to topics that have fewer than declared, though a key's later records then lie elsewhere than its earlier ones. */
  readonly allowRepartition?: boolean
}
/** Reads and changes a log's topics. */
export interface TopicAdmin {
  /** What is to be done, in the order of `specs`. Changes nothing. */
  readonly plan: (
    specs: ReadonlyArray<TopicSpec>,
    options?: PlanOptions
  ) => Effect.Effect<ReadonlyArray<TopicPlan>, LogError>
  /** Does what `plan` says, one topic after another; refused ones stay as they are. Fails with the first that the log refuses. */
  readonly apply: (specs: ReadonlyArray<TopicSpec>, plans: ReadonlyArray<TopicPlan>) => Effect.Effect<void, LogError>
}

/** What is to be done about a topic that is not there. `settings` are those that it will be made with. */
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
  `partitions ${from} to ${to - 1} are new, and most keys move: a key's later records are no longer in one order with its earlier ones, ` +
  "and rows, windows and handled ids that its old partition has are not seen from the new one. Rebuild every projection over the topic"

/** What is to be done about a topic that is there. */
export const planChange = (
  spec: TopicSpec,
  there: ExistingTopic,
  replication: number | undefined,
  { allowRepartition = false }: PlanOptions = {}
): TopicPlan => {
  const { name, partitions } = spec
  const grows = allowRepartition && partitions > there.partitions && there.compacted === spec.compacted
  const refused = grows ? undefined : specConflict(there, spec)
  const notes = [
    ...(refused === undefined ? [] : [refused]),
    ...(grows ? [repartitioned(there.partitions, partitions)] : []),
    ...(replication === undefined || there.replication === undefined || there.replication === replication
      ? []
      : [
          `it has ${there.replication} copies and ${replication} are declared: move its partitions with kafka-reassign-partitions.sh`
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

/** Whether a topic is not what is declared. */
export const differs = ({ action, notes }: TopicPlan): boolean => action !== "nothing" || notes.length > 0
