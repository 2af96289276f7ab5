// What one batch's events publish, by topic: each message as texts, and a topic's messages as one segment. It does no I/O.
import { isStorable, UnstorableValue } from "../dead-letter/event-failure.ts"
import { partitionOf } from "../model/partitioner.ts"
import { metaText } from "./segment-meta.ts"
import type { Segment } from "./store.ts"
import type { Topic } from "../model/topic.ts"

/** What a message has of its event where its topic does not say otherwise. */
interface Envelope {
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
interface Messages {
  readonly topic: Topic.Any
  partition: number | undefined
  readonly meta: Joined
  readonly vals: Joined
  count: number
}
/** Texts joined a few hundred at a time: one after the other they would become a tree of as many nodes, to be copied in the end. */
class Joined {
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

/** Messages of a batch while it grows. */
export class Published {
  private readonly byTopic = new Map<Topic.Any, Messages>()
  private readonly sourcePartitions: number

  /** `sourcePartitions`: how many a topic has that does not say. */
  constructor(sourcePartitions: number) {
    this.sourcePartitions = sourcePartitions
  }
  /** A value as a message of its topic. Throws `UnstorableValue` where it cannot be one. */
  message(topic: Topic.Any, value: unknown, origin: Envelope): Message {
    const key = topic.keyOf(value as never)
    if (typeof key !== "string" || !isStorable(key)) {
      throw new UnstorableValue({
        where: `the key of ${topic.name}`,
        reason: "it must be text without NUL and half surrogate pairs"
      })
    }
    const vals = topic.stringify(value as never)
    if (vals === undefined) throw new UnstorableValue({ where: topic.name, reason: "the value has no JSON form" })
    const eventTime = topic.timeOf?.(value as never) ?? origin.eventTime
    if (!Number.isFinite(eventTime)) {
      throw new UnstorableValue({
        where: topic.name,
        reason: `the value's event time is ${eventTime}, no number of milliseconds`
      })
    }
    const tenant = topic.tenantOf?.(value as never) ?? origin.tenant
    const meta = metaText(
      key,
      eventTime,
      topic.idOf?.(value as never),
      tenant,
      origin.traceparent,
      topic.versionOf(value as never)
    )
    return { topic, partition: partitionOf(key, topic.partitions ?? this.sourcePartitions), meta, vals }
  }

  /** Takes a message: nothing that can fail. */
  add({ meta, partition, topic, vals }: Message): void {
    let messages = this.byTopic.get(topic)
    if (messages === undefined) {
      messages = { topic, partition, meta: new Joined(","), vals: new Joined("\n"), count: 0 }
      this.byTopic.set(topic, messages)
    }
    messages.meta.add(meta)
    messages.vals.add(vals)
    messages.count++
    if (messages.partition !== partition) messages.partition = undefined
  }

  /** All of them, a segment a topic. */
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
