// Encodes segments of the outbox as Kafka record batches, from bytes to bytes in one pass, without an object or a string for each record. Pure.
import { envelopeHeaders, incarnationDigits, streamHeaders } from "../../log/envelope.ts"
import { murmur2, partitionOf } from "../../model/partitioner.ts"
import type { Segment } from "../../relay/outbox.ts"
import { headersOf } from "../log/records.ts"
import { bytesOf, type Compression, finish, headBytes, type TransactionBatch } from "../protocol/protocol.ts"
import { element, SegmentMeta } from "./segment-meta.ts"

const newline = 10
const zero = 48

/** How many bytes the varint of a length takes. */
const sizeOf = (length: number): number =>
  length < 64 ? 1 : length < 8192 ? 2 : length < 1_048_576 ? 3 : length < 134_217_728 ? 4 : 5
/** Length and bytes of a text, as a header's name or value stands in a record. */
const sized = (text: string): Buffer => {
  const bytes = bytesOf(text)
  const size = sizeOf(bytes.length)
  const all = Buffer.allocUnsafe(size + bytes.length)
  let at = 0
  let rest = bytes.length << 1
  for (; rest > 127; rest >>>= 7) all[at++] = (rest & 127) | 128
  all[at] = rest
  bytes.copy(all, size)
  return all
}
/** The names of the headers as they stand in a record: length and bytes. */
const names = {
  eventTime: sized(envelopeHeaders.eventTime),
  eventId: sized(envelopeHeaders.eventId),
  tenant: sized(envelopeHeaders.tenant),
  traceId: sized(envelopeHeaders.traceId),
  traceparent: sized(envelopeHeaders.traceparent),
  schemaVersion: sized(envelopeHeaders.schemaVersion),
  seq: sized(streamHeaders.sequence)
}
const none: ReadonlyArray<readonly [Buffer, Buffer]> = []
const streamName = sized(streamHeaders.stream)
const incarnationName = sized(streamHeaders.incarnation)
/** The header that names a stream, as it stands in each of its records. */
export const streamHeader = (stream: string): Buffer => Buffer.concat([streamName, sized(stream)])

const nothing = Buffer.alloc(0)
/** The records of one partition while they are written. Most transactions have few, so the buffer starts small. */
class PartitionBody {
  readonly topic: string
  readonly partition: number
  buffer: Buffer = nothing
  at = headBytes
  records = 0
  /** The stream of the first record, and its sequence number there. */
  stream = ""
  seq = 0

  constructor(topic: string, partition: number) {
    this.topic = topic
    this.partition = partition
  }
  begin(stream: string, seq: number) {
    this.stream = stream
    this.seq = seq
  }
  /** Starts again with a new buffer; the old one belongs to a batch now. */
  clear() {
    this.buffer = nothing
    this.at = headBytes
    this.records = 0
  }
  room(bytes: number) {
    if (this.at + bytes <= this.buffer.length) return
    const grown = Buffer.allocUnsafe(Math.max(1 << 10, this.buffer.length * 2, this.at + bytes))
    this.buffer.copy(grown, 0, 0, this.at)
    this.buffer = grown
  }
  byte(value: number) {
    this.buffer[this.at++] = value
  }
  /** Writes a length or a count. */
  varint(value: number) {
    const { buffer } = this
    let { at } = this
    let rest = (value << 1) >>> 0
    while (rest > 127) {
      buffer[at++] = (rest & 127) | 128
      rest >>>= 7
    }
    buffer[at++] = rest
    this.at = at
  }
  copy(from: Uint8Array, start: number, end: number) {
    const { at, buffer } = this
    const size = end - start
    this.at = at + size
    // a call of `set` costs about as much as forty steps of this loop
    if (size > 48) buffer.set(from.subarray(start, end), at)
    else for (let i = 0; i < size; i++) buffer[at + i] = from[start + i]!
  }
  /** Writes length and bytes; null if `start` is negative. */
  text(from: Uint8Array, start: number, end: number) {
    if (start < 0) return this.byte(1)
    this.varint(end - start)
    this.copy(from, start, end)
  }
}

/** The envelope's headers in their order: the element of `meta`, and the name. */
const envelope = [
  [element.eventTime, names.eventTime],
  [element.eventId, names.eventId],
  [element.tenant, names.tenant],
  [element.traceId, names.traceId],
  [element.traceparent, names.traceparent],
  [element.schemaVersion, names.schemaVersion]
] as const
const { key, userHeaders } = element
/** Headers that the relay adds, which users cannot have. */
const added = new Set<string>(Object.values(streamHeaders))

const scratch = new Uint8Array(512)
/** A record without anything but its headers. */
const bare = {
  partition: 0,
  key: null,
  value: null,
  eventTime: 0,
  eventId: undefined,
  tenant: undefined,
  traceparent: undefined,
  schemaVersion: undefined
}

/** A batch, with the stream and sequence number of its first record, which are reported if it is refused. */
export interface EncodedBatch extends TransactionBatch {
  readonly stream: string
  readonly seq: number
}
/** The stream that records come from. */
export interface StreamOrigin {
  readonly stream: string
  /** The header that names it, from `streamHeader`. */
  readonly header: Buffer
}

/** Encodes the segments of a transaction as batches. Records of a partition keep the order in which they were added. */
export class SegmentEncoder {
  /** The bytes of all records so far, before compression. */
  bytes = 0
  private readonly meta = new SegmentMeta()
  private readonly topics = new Map<string, Array<PartitionBody>>()
  private readonly sealed: Array<EncodedBatch> = []
  private readonly compression: Compression
  private readonly now: number
  private readonly digits = new Uint8Array(16)
  /** The header with the segment's incarnation. */
  private incarnation: Uint8Array = this.digits
  /** Headers of the segment's earlier messages, by index, to which later ones refer. */
  private readonly shared = new Map<number, Record<string, string>>()

  constructor(compression: Compression, now: number) {
    this.compression = compression
    this.now = now
  }

  /**
   * Adds a segment's messages. `limit` is how many bytes a batch of the topic may take before compression; a single message may take more.
   * Throws if the segment is damaged; then nothing of this encoder may be used.
   */
  add(segment: Segment, origin: StreamOrigin, partitions: number, limit: number): void {
    const { firstSeq, messages, meta, topic, vals } = segment
    let bodies = this.topics.get(topic)
    if (bodies === undefined) this.topics.set(topic, (bodies = []))
    this.shared.clear()
    this.incarnation = Buffer.concat([incarnationName, sized(segment.incarnation.slice(0, incarnationDigits))])
    this.meta.begin(meta)
    let from = 0
    for (let i = 0; i < messages; i++) {
      if (!this.meta.next() || from > vals.length)
        throw new SyntaxError(`the segment has texts for ${i} of ${messages} messages`)
      const found = vals.indexOf(newline, from)
      const to = found < 0 ? vals.length : found
      const partition = segment.partition ?? this.partition(partitions)
      const body = (bodies[partition] ??= new PartitionBody(topic, partition))
      this.record(body, origin, firstSeq, i, vals, from, to, limit)
      from = to + 1
    }
    if (this.meta.next() || from <= vals.length)
      throw new SyntaxError(`the segment has texts for more than ${messages} messages`)
  }
  /** All batches, those of a partition in their order. */
  seal(): ReadonlyArray<EncodedBatch> {
    for (const bodies of this.topics.values()) for (const body of bodies) if (body !== undefined) this.close(body)
    this.topics.clear()
    return this.sealed
  }

  private close(body: PartitionBody) {
    const { at, buffer, partition, records, seq, stream, topic } = body
    if (records === 0) return
    const bytes = finish(buffer.subarray(0, at), records, this.compression, this.now)
    this.sealed.push({ topic, partition, records, bytes, stream, seq })
    body.clear()
  }
  private partition(partitions: number): number {
    const { meta } = this
    const start = meta.from[key]!
    if (start < 0) return partitionOf("", partitions)
    const size = meta.to[key]! - start
    if (size > scratch.length || (meta.escaped & 1) !== 0) return partitionOf(meta.string(key)!, partitions)
    const source = meta.source[key]!
    for (let i = 0; i < size; i++) scratch[i] = source[start + i]!
    return (murmur2(scratch, size) & 0x7fffffff) % partitions
  }
  /** Writes a number's digits, and returns how many there are. */
  private decimal(value: number): number {
    let count = 0
    for (let rest = value; count === 0 || rest > 0; rest = Math.floor(rest / 10))
      this.digits[15 - count++] = zero + (rest % 10)
    return count
  }
  private others(i: number): ReadonlyArray<readonly [Buffer, Buffer]> {
    const text = this.meta.string(userHeaders)
    if (text === undefined) return none
    const found = JSON.parse(text) as Record<string, string> | number
    const headers = typeof found === "number" ? this.shared.get(found) : found
    if (headers === undefined)
      throw new SyntaxError(`message ${i} refers to the headers of message ${found}, which has none`)
    this.shared.set(i, headers)
    return headersOf({ ...bare, headers })
      .slice(1)
      .filter(([name]) => !added.has(name))
      .map(([name, value]) => [sized(name), sized(value)])
  }

  private record(
    body: PartitionBody,
    { header, stream }: StreamOrigin,
    firstSeq: number,
    i: number,
    vals: Uint8Array,
    from: number,
    to: number,
    limit: number
  ) {
    const { meta } = this
    meta.normalize()
    const others = meta.from[userHeaders]! < 0 ? none : this.others(i)
    const seqSize = this.decimal(firstSeq + i)
    const { incarnation } = this
    let count = 3 + others.length
    let bytes = header.length + names.seq.length + 1 + seqSize + incarnation.length
    for (const [n, name] of envelope) {
      if (meta.from[n]! < 0) continue
      const size = meta.to[n]! - meta.from[n]!
      count++
      bytes += name.length + sizeOf(size) + size
    }
    for (const [name, value] of others) bytes += name.length + value.length
    const keySize = meta.from[key]! < 0 ? 0 : meta.to[key]! - meta.from[key]!
    bytes += 2 + sizeOf(keySize) + keySize + sizeOf(to - from) + (to - from) + sizeOf(count)
    if (body.records > 0 && body.at + bytes + 8 > limit) this.close(body)
    if (body.records === 0) body.begin(stream, firstSeq + i)
    const size = bytes + sizeOf(body.records)
    this.bytes += size
    body.room(size + 5)

    body.varint(size)
    body.byte(0)
    body.byte(0)
    body.varint(body.records++)
    body.text(meta.source[key]!, meta.from[key]!, meta.to[key]!)
    // an empty line deletes the key
    body.text(vals, from === to ? -1 : from, to)
    body.varint(count)
    for (const [n, name] of envelope) {
      if (meta.from[n]! < 0) continue
      body.copy(name, 0, name.length)
      body.text(meta.source[n]!, meta.from[n]!, meta.to[n]!)
    }
    for (const [name, value] of others) {
      body.copy(name, 0, name.length)
      body.copy(value, 0, value.length)
    }
    body.copy(header, 0, header.length)
    body.copy(names.seq, 0, names.seq.length)
    body.text(this.digits, 16 - seqSize, 16)
    body.copy(incarnation, 0, incarnation.length)
  }
}
