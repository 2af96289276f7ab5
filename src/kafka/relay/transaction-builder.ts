// What goes into one transaction of the relay to Kafka: segments that can go become batches, others stop their stream. It reads and sends nothing.
import { setImmediate } from "node:timers/promises"
import { UnknownTopic } from "../../log/log.ts"
import { type FollowingSegments, streamName, type OutboxPosition, type Segment } from "../../relay/outbox.ts"
import type { Client } from "../protocol/client.ts"
import { reasonOf, typeOf } from "../protocol/errors.ts"
import type { Compression } from "../protocol/options.ts"
import { Batches, type Encoded, type Origin, streamHeader } from "./segment-encode.ts"
import { gap, type Halted, unfit } from "./position.ts"
import type { PartitionRefused } from "../protocol/transactional-producer.ts"

/** A transaction, ready to be sent. */
export interface Work {
  readonly batches: ReadonlyArray<Encoded>
  readonly messages: number
  /** Where the streams stand after it. */
  readonly after: ReadonlyMap<string, OutboxPosition>
  /** Why streams stop, by name. */
  readonly halted: ReadonlyMap<string, string>
  readonly more: boolean
}

/** What a batch may take, unpacked. Topics take a mebibyte unless told, and more at once gains nothing. */
const batchBytes = 1_000_000
/** How often what a topic refused, or lacks, is tried again. */
const blockedMs = 5_000
const missingMs = 250
/** Encoding lets others run after so many bytes. */
const turnBytes = 512 << 10

const tooLarge = /^(MESSAGE_TOO_LARGE|RECORD_LIST_TOO_LARGE)$/

interface Blocked extends Halted {
  readonly until: number
  /** Of a stream: the message that is refused. */
  readonly seq?: number
}
type Partitions = ReadonlyMap<string, number | undefined>

/** Makes transactions of what follows the streams of a lane, and remembers what brokers refused. */
export class Press {
  private readonly accepts: (topic: string) => boolean
  private readonly compression: Compression
  /** By topic, and by stream. */
  private readonly blocked = new Map<string, Blocked>()
  private readonly limits = new Map<string, number>()
  private readonly others = new Set<string>()
  private readonly origins = new Map<string, Origin>()

  constructor(accepts: (topic: string) => boolean, compression: Compression) {
    this.accepts = accepts
    this.compression = compression
  }
  /** Topics that were met and go elsewhere. */
  get passed(): ReadonlyArray<string> {
    return [...this.others]
  }

  /** What can go, each stream up to its first obstacle. Rejects where brokers do not answer. */
  async make(client: Client, following: ReadonlyArray<FollowingSegments>): Promise<Work> {
    const partitions = new Map<string, number | undefined>()
    for (const { place, segments } of following) {
      if (segments.length > 0) partitions.set(place.source, undefined)
      for (const { topic } of segments) {
        if (this.accepts(topic)) partitions.set(topic, undefined)
        else this.others.add(topic)
      }
    }
    for (const topic of partitions.keys()) partitions.set(topic, await this.partitions(client, topic))
    while (true) {
      // a segment that is broken blocks its stream, and then all is encoded again without it
      const work = await this.encode(following, partitions)
      if (work !== undefined) return work
    }
  }

  /**
   * A broker refused a partition's records for what they are, and so the transaction: the next one has smaller batches, or goes around the
   * message or the topic. Throws the refusal where it was about something else.
   */
  refused(work: Work, cause: PartitionRefused): void {
    const { partition, topic } = cause
    const until = performance.now() + blockedMs
    const [retryable, reason] = reasonOf(cause)
    const [largest] = work.batches
      .filter((one) => one.topic === topic && one.partition === partition)
      .toSorted((a, b) => b.bytes.length - a.bytes.length)
    if (retryable || largest === undefined) throw cause
    if (!tooLarge.test(typeOf(cause))) this.blocked.set(topic, { reason: `${topic}: ${reason}`, until })
    else if (largest.records > 1) this.limits.set(topic, Math.ceil((this.limits.get(topic) ?? batchBytes) / 2))
    else {
      const what = `message ${largest.seq}, of ${largest.bytes.length} bytes, for ${topic}`
      this.blocked.set(largest.stream, { seq: largest.seq, until, reason: `${what}: ${reason}` })
    }
  }

  /** How many partitions a topic has; undefined: there is none. */
  private async partitions(client: Client, topic: string): Promise<number | undefined> {
    const name = `topic ${topic}`
    if ((this.blocked.get(name)?.until ?? 0) > performance.now()) return undefined
    try {
      return (await client.topic(topic)).leaders.length
    } catch (cause) {
      const until = performance.now() + missingMs
      if (cause instanceof UnknownTopic) this.blocked.set(name, { reason: "", until })
      else if (typeOf(cause) === "TOPIC_AUTHORIZATION_FAILED")
        this.blocked.set(topic, { reason: `${topic}: ${reasonOf(cause)[1]}`, until })
      else throw cause
      return undefined
    }
  }

  private async encode(following: ReadonlyArray<FollowingSegments>, partitions: Partitions): Promise<Work | undefined> {
    const halted = new Map<string, string>()
    const batches = new Batches(this.compression, Date.now())
    const after = new Map<string, OutboxPosition>()
    let messages = 0
    let more = false
    let turnAt = turnBytes
    for (const one of following) {
      const name = streamName(one.place)
      const origin = this.origin(name)
      let stop = one.segments.length > 0 ? sourceless(one.place, partitions) : undefined
      let { seq } = one.place
      for (const segment of stop === undefined ? one.segments : []) {
        stop =
          gap(seq + 1, segment) ??
          (this.others.has(segment.topic) ? undefined : this.obstacle(name, segment, partitions))
        if (stop !== undefined) break
        if (!this.others.has(segment.topic)) {
          if (!this.add(batches, segment, origin, partitions.get(segment.topic)!)) return undefined
          messages += segment.messages
          if (batches.bytes > turnAt) {
            turnAt = batches.bytes + turnBytes
            await setImmediate()
          }
        }
        seq += segment.messages
        after.set(name, { ...one.place, seq, incarnation: segment.incarnation })
      }
      if (stop !== undefined) halted.set(name, stop.reason)
      more ||= one.more && stop === undefined
    }
    return { batches: batches.seal(), messages, after, halted, more }
  }
  private add(batches: Batches, segment: Segment, origin: Origin, partitions: number): boolean {
    try {
      batches.add(segment, origin, partitions, this.limits.get(segment.topic) ?? batchBytes)
      return true
    } catch (cause) {
      if (!(cause instanceof SyntaxError)) throw cause
      const seq = segment.firstSeq
      const reason = `the segment of message ${seq} is broken: ${cause.message}`
      this.blocked.set(origin.stream, { seq, reason, until: performance.now() + blockedMs })
      return false
    }
  }
  private origin(stream: string): Origin {
    const there = this.origins.get(stream)
    if (there !== undefined) return there
    const made = { stream, header: streamHeader(stream) }
    this.origins.set(stream, made)
    return made
  }
  private obstacle(name: string, segment: Segment, partitions: Partitions): Halted | undefined {
    const now = performance.now()
    const stream = this.blocked.get(name)
    if (stream !== undefined && stream.until > now) {
      const { seq = 0 } = stream
      if (seq >= segment.firstSeq && seq < segment.firstSeq + segment.messages) return stream
    }
    const topic = this.blocked.get(segment.topic)
    if (topic !== undefined && topic.until > now) return topic
    return unfit(segment, partitions.get(segment.topic))
  }
}
/** Why there is no place on Kafka for the stream's position. */
const sourceless = ({ partition, source }: OutboxPosition, partitions: Partitions): Halted | undefined => {
  const count = partitions.get(source)
  if (count !== undefined && partition < count) return undefined
  const reason = `Kafka keeps the position under ${source}/${partition}, and has no such partition: run 'millrace topics apply'`
  return { reason }
}
