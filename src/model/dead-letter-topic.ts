// A dead letter as a message: which topic a projection's parked events are published to, and what is in one. It publishes nothing.
import * as Schema from "effect/Schema"
import type { FailurePolicy } from "./failure-policy.ts"
import type { TypeOf } from "./fields.ts"
import { Topic } from "./topic.ts"

const fields = {
  error: Schema.String,
  message: Schema.String,
  attempts: Schema.Int,
  projection: Schema.String,
  version: Schema.Int,
  topic: Schema.String,
  partition: Schema.Int,
  position: Schema.Int,
  key: Schema.NullOr(Schema.String),
  value: Schema.NullOr(Schema.String),
  headers: Schema.Record(Schema.String, Schema.String),
  truncated: Schema.Boolean,
  event_time: Schema.NullOr(Schema.Finite),
  trace_id: Schema.NullOr(Schema.String)
}
/**
 * A parked event, as it is published: what failed (`error`, `message`, `attempts`), where (`projection`, `version`), and the record by
 * its place, key, value as it was read and headers. `truncated`: value, message or headers were too large and are cut; the row of
 * `millrace.dead_letters` has all of it. Times are epoch milliseconds.
 */
export type DeadLetterMessage = TypeOf<typeof fields>

interface EventSource {
  readonly kind: string
  readonly name: string
}
/** What a dead-letter topic depends on: the projection's name and its failure policy. */
interface NamedPolicy {
  readonly name: string
  readonly failure: FailurePolicy
}
/** The same with the projection's sources; every projection is one. */
interface NamedPolicyAndSources extends NamedPolicy {
  readonly sources: ReadonlyArray<EventSource>
}

/**
 * Where a projection's parked events of a source are published: `<source>.<projection>.dlq`, or as its failure policy says. Undefined
 * where it parks none or publishes none. A topic that is named has one partition, so that projections may share it. Throws `InvalidTopicName` where a topic cannot have the name.
 */
export const deadLetterTopic = (
  { failure, name }: NamedPolicy,
  source: EventSource
): Topic<string, DeadLetterMessage> | undefined => {
  const { deadLetterTopic: given, then = "park" } = failure
  if (source.kind !== "topic" || then !== "park" || given === false) return undefined
  return Topic.records(given ?? `${source.name}.${name}.dlq`, {
    value: fields,
    ...(given !== undefined && { partitions: 1 }),
    key: ({ key }) => key ?? "",
    eventTime: ({ event_time }) => event_time ?? 0
  })
}
/** The topics of all its sources, each once. */
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

/** For subscriptions of parked events. */
export const DeadLetters = {
  /** The topic that parked events of a projection's source, its first one by default, are published to. Throws where there is none. */
  topic: (
    projection: NamedPolicyAndSources,
    source: Topic.Any = projection.sources[0] as never
  ): Topic<string, DeadLetterMessage> => {
    const topic = deadLetterTopic(projection, source)
    if (topic === undefined) {
      throw new Error(
        `projection ${projection.name} publishes no dead letters; let its failure policy park, and not say no topic`
      )
    }
    return topic
  }
}
