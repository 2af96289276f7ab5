// Dead-letter topics of projections: their names, and the messages that describe parked events. Pure.
import * as Schema from "effect/Schema"
import type { FailurePolicy } from "./failure-policy.ts"
import type { TypeOf } from "./fields.ts"
import { Topic } from "./topic.ts"

const fields = {
  /** The error's tag or name. */
  error: Schema.String,
  /** The error's message. */
  message: Schema.String,
  /** How often the handler ran. */
  attempts: Schema.Int,
  /** The name of the projection. */
  projection: Schema.String,
  /** The version of the projection. */
  version: Schema.Int,
  /** The topic of the record. */
  topic: Schema.String,
  /** The partition of the record. */
  partition: Schema.Int,
  /** The position of the record in its partition. */
  position: Schema.Int,
  /** The record's key. */
  key: Schema.NullOr(Schema.String),
  /** The record's value, the text as it was read. */
  value: Schema.NullOr(Schema.String),
  /** The record's headers. */
  headers: Schema.Record(Schema.String, Schema.String),
  /** Whether value, message or headers were too large and were cut. */
  truncated: Schema.Boolean,
  /** The event time in epoch milliseconds; null if the event has none. */
  event_time: Schema.NullOr(Schema.Finite),
  /** The id of the trace that the event belongs to. */
  trace_id: Schema.NullOr(Schema.String)
}
/**
 * A parked event as it is published: why it failed (`error`, `message`, `attempts`), in which `projection` and `version`, and the record's
 * topic, partition, position, key, value (the text as it was read) and headers. `truncated`: value, message or headers were too large and
 * were cut; the row in `millrace.dead_letters` has all of it. Times are epoch milliseconds.
 */
export type DeadLetterMessage = TypeOf<typeof fields>

interface EventSource {
  /** The name of the source. */
  readonly name: string
}
/** What a dead-letter topic depends on: the projection's name and its failure policy. */
interface NamedPolicy {
  /** The name of the projection. */
  readonly name: string
  /** Its failure policy. */
  readonly failure: FailurePolicy
}
/** The same with the projection's sources; every projection is one. */
interface NamedPolicyAndSources extends NamedPolicy {
  /** The topics and aggregates that it reads. */
  readonly sources: ReadonlyArray<EventSource>
}

/**
 * The topic that a projection's parked events of a source are published to: `<source>.<projection>.dlq`, or the one that its failure policy
 * names, which has one partition so that projections can share it. Undefined if the policy does not park or does not publish. Throws
 * `InvalidTopicName`.
 */
export const deadLetterTopic = (
  { failure, name }: NamedPolicy,
  source: EventSource
): Topic<string, DeadLetterMessage> | undefined => {
  const { deadLetterTopic: given, then = "park" } = failure
  if (then !== "park" || given === false) return undefined
  return Topic.records(given ?? `${source.name}.${name}.dlq`, {
    value: fields,
    ...(given !== undefined && { partitions: 1 }),
    key: ({ key }) => key ?? "",
    eventTime: ({ event_time }) => event_time ?? 0
  })
}
/** The dead-letter topics of all sources of a projection, each once. */
export const deadLetterTopics = (
  projection: NamedPolicyAndSources
): ReadonlyArray<Topic<string, DeadLetterMessage>> => {
  const found = new Map<string, Topic<string, DeadLetterMessage>>()
  for (const source of projection.sources) {
    const topic = deadLetterTopic(projection, source)
    if (topic !== undefined && !found.has(topic.name)) found.set(topic.name, topic)
  }
  return [...found.values()]
}

/** Dead-letter topics of projections, for subscriptions. */
export const DeadLetters = {
  /**
   * The topic that parked events of a projection's source (by default its first) are published to. Throws if the failure policy publishes
   * none.
   *
   * ```ts
   * const failed = Subscription.make({ topic: DeadLetters.topic(signals), name: "failed", type: "shared" })
   * ```
   */
  topic: (
    projection: NamedPolicyAndSources,
    source: Topic.Any = projection.sources[0] as never
  ): Topic<string, DeadLetterMessage> => {
    const topic = deadLetterTopic(projection, source)
    if (topic === undefined) {
      throw new Error(
        `projection ${projection.name} publishes no dead letters; its failure policy needs \`then: "park"\` and a \`deadLetterTopic\` that is not false`
      )
    }
    return topic
  }
}
