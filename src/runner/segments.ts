// What one batch publishes, by topic: each message as texts, and a topic's messages packed as one segment. No I/O.
import { describeError, UnstorableValue } from "../dead-letter/event-failure.ts"
import { nameProblem } from "../log/acceptable.ts"
import { assertTexts, isDeeper, maxDepth } from "../log/json.ts"
import { timeHeader } from "../log/time-mark.ts"
import { quoted } from "../model/json-codec.ts"
import { partitionOf } from "../model/partitioner.ts"
import type { Topic } from "../model/topic.ts"
import { isStorable } from "../text/text.ts"
import type { Segment } from "./store.ts"

/**
 * One element of a segment's `meta`, as in the log's batches: key, event time, event id, tenant, traceparent, the schema's version unless
 * it is 1, and the header `millrace-time` if the message has one.
 */
export const metaText = (
  key: string | null,
  eventTime: number,
  eventId: string | undefined,
  tenant: string | undefined,
  traceparent: string | undefined,
  schemaVersion = 1,
  sentTime?: string
): string =>
  `[${key === null ? "null" : quoted(key)},${eventTime},${eventId === undefined ? "null" : quoted(eventId)},` +
  `${tenant === undefined ? "null" : quoted(tenant)},${traceparent === undefined ? "null" : quoted(traceparent)}` +
  (sentTime !== undefined
    ? `,${schemaVersion === 1 ? "null" : schemaVersion},{"${timeHeader}":"${sentTime}"}]`
    : schemaVersion === 1
      ? "]"
      : `,${schemaVersion}]`)

/** The times of an event that messages are made of. */
export interface SendingEvent {
  readonly eventTime: number
  /** The stream time of the projection's partition at the event; undefined if it has none yet. */
  readonly reached: number | undefined
}
/** Takes notice of the times of messages. */
export interface MessageTimes {
  /** Whether a topic's messages announce the stream time. */
  readonly isAnnounced: (topic: string) => boolean
  /** The text of a message's header `millrace-time`; undefined if it needs none. */
  readonly header: (topic: string, time: number, event: SendingEvent) => string | undefined
  /** The message is part of the batch. */
  readonly sent: (topic: string, partition: number, time: number, event: SendingEvent) => void
  /** The same of a window's message. */
  readonly sentByWindow: (topic: string, partition: number, time: number, event: SendingEvent) => void
}

/** What a message takes over from its event unless its topic says otherwise. */
interface EventEnvelope extends SendingEvent {
  readonly tenant: string | undefined
  readonly traceparent: string | undefined
}
/** A message that can be published. */
export interface Message {
  readonly topic: Topic.Any
  readonly partition: number
  readonly meta: string
  readonly vals: string
  readonly eventTime: number
  readonly event: SendingEvent
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

/** The last moment that a JavaScript date can be, in epoch milliseconds. */
const lastDate = 8.64e15
/** An id or a tenant of a value's message. Throws `UnstorableValue` if it cannot be one. */
const named = (topic: Topic.Any, what: "id" | "tenant", name: string | undefined): string | undefined => {
  const problem = name === undefined ? undefined : nameProblem(name)
  if (problem === undefined) return name
  throw new UnstorableValue({ where: `the ${what} of a message for ${topic.name}`, reason: `it ${problem}` })
}

/** How messages are made of values. */
export interface MessageOptions {
  /** The partitions of a topic that does not declare how many it has. */
  readonly sourcePartitions: number
  /** Says which messages carry the stream time, if other projections read them. */
  readonly times?: MessageTimes | undefined
  /** The messages are checked and counted, but not published, so they have no texts. */
  readonly isMuted?: boolean
}

/** The JSON text of a message's value. Throws `UnstorableValue` if it cannot be published, a `SchemaError` if it does not fit. */
const messageText = (topic: Topic.Any, value: unknown): string => {
  const plain = topic.plainText?.(value as never)
  if (plain !== undefined) return plain
  const text = topic.stringify(value as never)
  if (text === undefined) throw new UnstorableValue({ where: topic.name, reason: "the value has no JSON form" })
  if (isDeeper(text, maxDepth))
    throw new UnstorableValue({ where: topic.name, reason: `the value is nested deeper than ${maxDepth} levels` })
  try {
    assertTexts(text)
  } catch (error) {
    throw new UnstorableValue({ where: topic.name, reason: describeError(error).message })
  }
  return text
}
/** A value as a message of its topic. Throws `UnstorableValue` if it cannot be published, a `SchemaError` if it does not fit. */
export const messageFor = (
  topic: Topic.Any,
  value: unknown,
  event: EventEnvelope,
  { isMuted = false, sourcePartitions, times }: MessageOptions
): Message => {
  const key = messageKey(topic, value)
  // of a muted message only that it could be published matters
  const vals = isMuted && topic.isPlain?.(value as never) === true ? "" : messageText(topic, value)
  const eventTime = topic.timeOf?.(value as never) ?? event.eventTime
  if (!(Math.abs(eventTime) <= lastDate)) {
    throw new UnstorableValue({
      where: topic.name,
      reason: `the value's event time is ${eventTime}, not a number of milliseconds that a date can be`
    })
  }
  const id = named(topic, "id", topic.idOf?.(value as never))
  const tenant = named(topic, "tenant", topic.tenantOf?.(value as never)) ?? event.tenant
  const version = topic.versionOf(value as never)
  if (isMuted) return { topic, partition: 0, meta: "", vals: "", eventTime, event }
  const header = times?.header(topic.name, eventTime, event)
  const meta = metaText(key, eventTime, id, tenant, event.traceparent, version, header)
  return { topic, partition: partitionOf(key, topic.partitions ?? sourcePartitions), meta, vals, eventTime, event }
}

/** The messages of a batch while it grows. */
export class BatchMessages {
  private readonly byTopic = new Map<Topic.Any, TopicMessages>()
  private readonly times: MessageTimes | undefined
  private readonly isMuted: boolean

  /** `times` takes notice of the messages, if other projections read them. */
  constructor({ isMuted = false, times }: Pick<MessageOptions, "isMuted" | "times">) {
    this.times = times
    this.isMuted = isMuted
  }

  /** Adds a message. Never throws. */
  add({ event, eventTime, meta, partition, topic, vals }: Message): void {
    this.times?.sent(topic.name, partition, eventTime, event)
    let messages = this.byTopic.get(topic)
    if (messages === undefined) {
      messages = { topic, partition, meta: new JoinedText(","), vals: new JoinedText("\n"), count: 0 }
      this.byTopic.set(topic, messages)
    }
    messages.count++
    if (this.isMuted) return
    messages.meta.add(meta)
    messages.vals.add(vals)
    if (messages.partition !== partition) messages.partition = undefined
  }

  /** How many messages there are, by topic. */
  counts(): Readonly<Record<string, number>> {
    return Object.fromEntries([...this.byTopic.values()].map(({ count, topic }) => [topic.name, count]))
  }

  /** One segment a topic, in the order in which the topics were first published to; none of muted messages. */
  segments(): ReadonlyArray<Segment> {
    if (this.isMuted) return []
    return [...this.byTopic.values()].map(({ count, meta, partition, topic, vals }) => ({
      topic: topic.name,
      partition,
      messages: count,
      meta: `[${meta.text()}]`,
      vals: vals.text()
    }))
  }
}
