// One rule of a bridge between Kafka and Pulsar, as users write it and as it is after the checks. Pure.
import type { BridgeRecord } from "./record.ts"
import type { TopicPattern } from "./topic-pattern.ts"

/** A condition on one header. Without `equals` and `matches` it holds if the record has the header. */
export interface HeaderFilter {
  /** The name of the header. */
  readonly header: string
  /** The value, or the values of which the header must have one. */
  readonly equals?: string | ReadonlyArray<string>
  /** A regular expression that must match somewhere in the header's value. */
  readonly matches?: string
  /** True to select the records for which the condition does not hold. */
  readonly not?: boolean
}
/** How headers change on the way. Headers are dropped first, then renamed, then set. */
export interface HeaderMapping {
  /** Names of headers that are left out. */
  readonly drop?: ReadonlyArray<string>
  /** Old name to new name. */
  readonly rename?: Readonly<Record<string, string>>
  /** Headers that every record gets, in place of those it has. */
  readonly set?: Readonly<Record<string, string>>
}
/** One rule: the records of the topics `from` on one side are mirrored to the topics `to` on the other side. */
export interface Rule {
  /**
   * Part of the names of groups, transactional ids, producers and subscriptions, so a rule that is renamed starts from the beginning. Default:
   * made from `from` and `to`.
   */
  readonly name?: string
  /**
   * `kafka:TOPIC` or `pulsar:persistent://TENANT/NAMESPACE/TOPIC`. `{word}` in it stands for any part of a name without a slash, and can be
   * used in `to`.
   */
  readonly from: string
  /** The same for the other side. `{tenant}` that `from` does not have is the record's header `tenant`. */
  readonly to: string
  /** Only records for which all conditions hold are mirrored. If a function throws, the record becomes a dead letter. */
  readonly where?: HeaderFilter | ReadonlyArray<HeaderFilter> | ((record: BridgeRecord) => boolean)
  /** Default: the same key. A record that lacks the header becomes a dead letter. */
  readonly key?: { readonly header: string } | ((record: BridgeRecord) => string | null)
  /** How headers change on the way. Default: they stay as they are. */
  readonly headers?: HeaderMapping
  /** Names of tenants on Kafka, with their names on Pulsar. Tenants that are not listed have the same name on both sides. */
  readonly tenants?: Readonly<Record<string, string>>
  /** Where a rule begins that has no position yet. Default `earliest`. */
  readonly start?: "earliest" | "latest"
  /**
   * What happens if records disappeared from the source before they were mirrored, or if the source was deleted and created again: `halt` until
   * a person decides, or `continue` with the records that are left. Default `halt`.
   */
  readonly lost?: "halt" | "continue"
  /** Whether messages to Pulsar are sent in batches. Set false for topics with `keyShared` consumers. Default true. */
  readonly batching?: boolean
  /** The topic of dead letters, on the source's side. Default: the source's name followed by `.bridge-errors`. */
  readonly errors?: string
}
/** A rule that has passed the checks, with its name decided and its patterns parsed. */
export interface CheckedRule extends Rule {
  /** The rule's name: the given one, or one made from `from` and `to`. */
  readonly name: string
  /** The topics that are read. */
  readonly source: TopicPattern
  /** The topics that are written. */
  readonly target: TopicPattern
}
/** A definition that cannot work: a rule is wrong, rules contradict one another, or they form a circle. The message says what to change. */
export class InvalidBridge extends Error {
  /** The name of the error. */
  override readonly name = "InvalidBridge"
}

/** Ends the default name of an error topic, where dead letters go. No pattern matches such a topic. */
export const errorTopicSuffix = ".bridge-errors"
/** The error topic for the dead letters of a source topic under a rule. */
export const errorTopicOf = ({ errors }: Rule, topic: string): string => errors ?? `${topic}${errorTopicSuffix}`
