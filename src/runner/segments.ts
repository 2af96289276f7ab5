// What one batch publishes, by topic: each message as texts, and a topic's messages packed as one segment. No I/O.
import { isStorable, UnstorableValue } from "../dead-letter/event-failure.ts"
import { quoted } from "../model/json-codec.ts"
import { partitionOf } from "../model/partitioner.ts"
import type { Topic } from "../model/topic.ts"
import type { Segment } from "./store.ts"
import { isTooDeep, mostLevels } from "./stored-values.ts"

/**
 * One element of a segment's `meta`, as in the log's batches: key, event time, event id, tenant, traceparent, and the schema's version
 * unless it is 1.
 */
export const metaText = (
  key: string,
  eventTime: number,
  eventId: string | undefined,
  tenant: string | undefined,
  traceparent: string | undefined,
  schemaVersion = 1
): string =>
  `[${quoted(key)},${eventTime},${eventId === undefined ? "null" : quoted(eventId)},` +
  `${tenant === undefined ? "null" : quoted(tenant)},${traceparent === undefined ? "null" : quoted(traceparent)}` +
  (schemaVersion === 1 ? "]" : `,${schemaVersion}]`)

/** What a message takes over from its event unless its topic says otherwise. */
interface EventEnvelope {
  readonly eventTime: number
  readonly tenant: string | undefined
  readonly traceparent: string | undefined
}
/** A message that can be published. */
export interface Message {
  readonly topic: Topic.Any
  readonly partition: number
  readonly meta: string
  readonly vals: string
}
interface TopicMessages {
  readonly topic: Topic.Any
  /** Of all messages; undefined if they go to several partitions. */
  partition: number | undefined
  readonly meta: JoinedText
  readonly vals: JoinedText
  count: number
}
/** Texts joined a few hundred at a time: one after the other they would become a tree of as many nodes, to be copied in the end. */
class JoinedText {
  private joined = ""
  private readonly pieces: Array<string> = []
  private readonly separator: string

  constructor(separator: string) {
    this.separator = separator
  }
  add(text: string): void {
    if (this.pieces.push(text) === 512) this.text()
  }
  text(): string {
    const more = this.pieces.join(this.separator)
    if (this.pieces.length > 0) this.joined = this.joined === "" ? more : this.joined + this.separator + more
    this.pieces.length = 0
    return this.joined
  }
}

/** The key of a value's message. Throws `UnstorableValue` if it cannot be one. */
export const messageKey = (topic: Topic.Any, value: unknown): string => {
  const key: unknown = topic.keyOf(value as never)
  if (typeof key === "string" && isStorable(key)) return key
  throw new UnstorableValue({
    where: `the key of ${topic.name}`,
    reason: "it must be text without NUL and half surrogate pairs"
  })
}

/**
 * A value as a message of its topic. `sourcePartitions`: the partitions of a topic that does not declare how many it has. Throws
 * `UnstorableValue` if it cannot be published, a `SchemaError` if it does not fit.
 */
export const messageFor = (
  topic: Topic.Any,
  value: unknown,
  event: EventEnvelope,
  sourcePartitions: number
): Message => {
  const key = messageKey(topic, value)
  const vals = topic.stringify(value as never)
  if (vals === undefined) throw new UnstorableValue({ where: topic.name, reason: "the value has no JSON form" })
  if (isTooDeep(vals))
    throw new UnstorableValue({ where: topic.name, reason: `the value is nested deeper than ${mostLevels} levels` })
  const eventTime = topic.timeOf?.(value as never) ?? event.eventTime
  if (!Number.isFinite(eventTime)) {
    throw new UnstorableValue({
      where: topic.name,
      reason: `the value's event time is ${eventTime}, not a number of milliseconds`
    })
  }
  const tenant = topic.tenantOf?.(value as never) ?? event.tenant
  const meta = metaText(
    key,
    eventTime,
    topic.idOf?.(value as never),
    tenant,
    event.traceparent,
    topic.versionOf(value as never)
  )
  return { topic, partition: partitionOf(key, topic.partitions ?? sourcePartitions), meta, vals }
}

/** The messages of a batch while it grows. */
export class BatchMessages {
  private readonly byTopic = new Map<Topic.Any, TopicMessages>()

  /** Adds a message. Never throws. */
  add({ meta, partition, topic, vals }: Message): void {
    let messages = this.byTopic.get(topic)
    if (messages === undefined) {
      messages = { topic, partition, meta: new JoinedText(","), vals: new JoinedText("\n"), count: 0 }
      this.byTopic.set(topic, messages)
    }
    messages.meta.add(meta)
    messages.vals.add(vals)
    messages.count++
    if (messages.partition !== partition) messages.partition = undefined
  }

  /** One segment a topic, in the order in which the topics were first published to. */
  segments(): ReadonlyArray<Segment> {
    return [...this.byTopic.values()].map(({ count, meta, partition, topic, vals }) => ({
      topic: topic.name,
      partition,
      messages: count,
      meta: `[${meta.text()}]`,
      vals: vals.text()
    }))
  }
}
