// Builds the transactions of the relay to Kafka: segments that can be published become batches, and others halt their stream.
import { setImmediate } from "node:timers/promises"
import { describeError } from "../../dead-letter/event-failure.ts"
import { type FollowingSegments, streamName, type OutboxPosition, type Segment } from "../../relay/outbox.ts"
import { type Client, type Compression, failureOf, type KafkaFailure } from "../protocol/protocol.ts"
import type { BufferPool } from "./buffer-pool.ts"
import { type EncodedBatch, SegmentEncoder, type StreamOrigin, streamHeader } from "./segment-encode.ts"
import { type HaltReason, segmentGap, targetProblem } from "./position.ts"

/** A transaction, ready to be sent. */
export interface Transaction {
  readonly batches: ReadonlyArray<EncodedBatch>
  /** How many messages its batches have. */
  readonly messages: number
  /** The positions of streams after it, by the stream's name; streams that do not move are left out. */
  readonly after: ReadonlyMap<string, OutboxPosition>
  /** Why streams are halted, by the stream's name. */
  readonly halted: ReadonlyMap<string, string>
  /** Whether the outbox has more messages for these streams. */
  readonly more: boolean
}

/** How many bytes a batch takes before compression. Topics take a mebibyte by default, and larger batches gain nothing. */
const batchBytes = 1_000_000
/** How long a refusal is remembered before the topic or message is tried again, in milliseconds. */
const refusedMs = 5_000
/** How long it is remembered that a topic does not exist, in milliseconds. */
const missingMs = 250
/** Encoding yields to the event loop after so many bytes. */
const turnBytes = 512 << 10

interface Refusal extends HaltReason {
  /** When to try again, on the clock of `performance.now()`. */
  readonly until: number
  /** The message that was refused, if the refusal is about one message of a stream. */
  readonly seq?: number
}
/** Partition counts by topic; undefined for a topic that does not exist or may not be used. */
type PartitionCounts = ReadonlyMap<string, number | undefined>

/** Builds transactions from the segments that follow the streams' positions, and remembers what brokers refused. */
export class TransactionBuilder {
  private readonly accepts: (topic: string) => boolean
  private readonly compression: Compression
  private readonly pool: BufferPool
  /** Refusals by topic, by stream, and by `topic <name>` for topics that do not exist. */
  private readonly refusals = new Map<string, Refusal>()
  /** How many bytes a batch may take, by topic, after a larger one was refused. */
  private readonly limits = new Map<string, number>()
  private readonly others = new Set<string>()
  private readonly origins = new Map<string, StreamOrigin>()

  /** `pool` may be shared with other builders. */
  constructor(accepts: (topic: string) => boolean, compression: Compression, pool: BufferPool) {
    this.accepts = accepts
    this.compression = compression
    this.pool = pool
  }
  /** Topics seen so far that go to other targets. */
  get ignoredTopics(): ReadonlyArray<string> {
    return [...this.others]
  }

  /** A transaction of what can be published, each stream up to its first obstacle. Rejects with `KafkaFailure` if brokers do not answer. */
  async build(client: Client, following: ReadonlyArray<FollowingSegments>): Promise<Transaction> {
    const partitions = new Map<string, number | undefined>()
    for (const { place: position, segments } of following) {
      if (segments.length > 0) partitions.set(position.source, undefined)
      for (const { topic } of segments) {
        if (this.accepts(topic)) partitions.set(topic, undefined)
        else this.others.add(topic)
      }
    }
    for (const topic of partitions.keys()) partitions.set(topic, await this.partitionCount(client, topic))
    while (true) {
      // a damaged segment halts its stream, and then everything is encoded again without it
      const transaction = await this.encode(following, partitions)
      if (transaction !== undefined) return transaction
    }
  }

  /**
   * Remembers that a broker refused a partition's records because of their content, which failed the transaction: the next one has smaller
   * batches, or leaves out the message or the topic. Throws the failure if it is about something else.
   */
  refused(transaction: Transaction, failure: KafkaFailure): void {
    const { kind, message: reason, partition: at, retryable } = failure
    const until = performance.now() + refusedMs
    const [largest] = transaction.batches
      .filter(({ partition, topic }) => topic === at?.topic && partition === at.partition)
      .toSorted((a, b) => b.bytes.length - a.bytes.length)
    if (retryable || largest === undefined) throw failure
    const { topic } = largest
    if (kind !== "tooLarge") this.refusals.set(topic, { reason: `${topic}: ${reason}`, until })
    else if (largest.records > 1) this.limits.set(topic, Math.ceil((this.limits.get(topic) ?? batchBytes) / 2))
    else {
      const what = `message ${largest.seq}, of ${largest.bytes.length} bytes, for ${topic}`
      this.refusals.set(largest.stream, { seq: largest.seq, until, reason: `${what}: ${reason}` })
    }
  }

  /** How many partitions a topic has; undefined if it does not exist or may not be used. */
  private async partitionCount(client: Client, topic: string): Promise<number | undefined> {
    const name = `topic ${topic}`
    if ((this.refusals.get(name)?.until ?? 0) > performance.now()) return undefined
    try {
      return (await client.topic(topic)).leaders.length
    } catch (cause) {
      const until = performance.now() + missingMs
      const { code, kind, message } = failureOf(cause)
      if (kind === "unknownTopic") this.refusals.set(name, { reason: "", until })
      else if (code === "TOPIC_AUTHORIZATION_FAILED")
        this.refusals.set(topic, { reason: `${topic}: ${message}`, until })
      else throw cause
      return undefined
    }
  }

  private async encode(
    following: ReadonlyArray<FollowingSegments>,
    partitions: PartitionCounts
  ): Promise<Transaction | undefined> {
    const halted = new Map<string, string>()
    const encoder = new SegmentEncoder(this.compression, Date.now(), this.pool)
    const after = new Map<string, OutboxPosition>()
    let messages = 0
    let more = false
    let turnAt = turnBytes
    for (const one of following) {
      const name = streamName(one.place)
      const origin = this.origin(name)
      let obstacle = one.segments.length > 0 ? sourceProblem(one.place, partitions) : undefined
      let { seq } = one.place
      for (const segment of obstacle === undefined ? one.segments : []) {
        obstacle =
          segmentGap(seq + 1, segment) ??
          (this.others.has(segment.topic) ? undefined : this.obstacle(name, segment, partitions))
        if (obstacle !== undefined) break
        if (!this.others.has(segment.topic)) {
          if (!this.add(encoder, segment, origin, partitions.get(segment.topic)!)) return undefined
          messages += segment.messages
          if (encoder.bytes > turnAt) {
            turnAt = encoder.bytes + turnBytes
            await setImmediate()
          }
        }
        seq += segment.messages
        after.set(name, { ...one.place, seq, incarnation: segment.incarnation })
      }
      if (obstacle !== undefined) halted.set(name, obstacle.reason)
      more ||= one.more && obstacle === undefined
    }
    return { batches: encoder.seal(), messages, after, halted, more }
  }
  /** Encodes a segment. Returns whether that was possible; if not, its stream is halted. */
  private add(encoder: SegmentEncoder, segment: Segment, origin: StreamOrigin, partitions: number): boolean {
    try {
      encoder.add(segment, origin, partitions, this.limits.get(segment.topic) ?? batchBytes)
      return true
    } catch (cause) {
      // whatever it is, it is about this segment: encoding does nothing else, and other streams must go on
      const seq = segment.firstSeq
      const reason = `the segment of message ${seq} is damaged: ${describeError(cause).message}`
      this.refusals.set(origin.stream, { seq, reason, until: performance.now() + refusedMs })
      return false
    }
  }
  private origin(stream: string): StreamOrigin {
    const existing = this.origins.get(stream)
    if (existing !== undefined) return existing
    const origin = { stream, header: streamHeader(stream) }
    this.origins.set(stream, origin)
    return origin
  }
  private obstacle(name: string, segment: Segment, partitions: PartitionCounts): HaltReason | undefined {
    const now = performance.now()
    const stream = this.refusals.get(name)
    if (stream !== undefined && stream.until > now) {
      const { seq = 0 } = stream
      if (seq >= segment.firstSeq && seq < segment.firstSeq + segment.messages) return stream
    }
    const topic = this.refusals.get(segment.topic)
    if (topic !== undefined && topic.until > now) return topic
    return targetProblem(segment, partitions.get(segment.topic))
  }
}
/** Why Kafka cannot store the stream's position; undefined if it can. */
const sourceProblem = ({ partition, source }: OutboxPosition, partitions: PartitionCounts): HaltReason | undefined => {
  const count = partitions.get(source)
  if (count !== undefined && partition < count) return undefined
  const reason = `Kafka keeps the position under ${source}/${partition}, and has no such partition: run 'millrace topics apply'`
  return { reason }
}
