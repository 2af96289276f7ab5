// Encodes segments of the outbox as Kafka record batches, from bytes to bytes in one pass, without an object or a string for each record. Pure.
import { envelopeHeaders, incarnationDigits, streamHeaders } from "../../log/envelope.ts"
import { murmur2, partitionOf } from "../../model/partitioner.ts"
import type { Segment } from "../../relay/outbox.ts"
import { headersOf } from "../log/records.ts"
import { bytesOf, type Compression, finish, headBytes, type TransactionBatch } from "../protocol/protocol.ts"
import type { BufferPool } from "./buffer-pool.ts"
import { element, SegmentMeta, viewOf } from "./segment-meta.ts"

const newline = 10
const zero = 48

/** How many bytes the varint of a length takes. */
const sizeOf = (length: number): number =>
  length < 64 ? 1 : length < 8192 ? 2 : length < 1_048_576 ? 3 : length < 134_217_728 ? 4 : 5
/** Length and bytes of a text, as a header's name or value stands in a record. */
const sizedBytes = (text: string): Buffer => {
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
const sized = (text: string): DataView => viewOf(sizedBytes(text))
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
const none: ReadonlyArray<readonly [DataView, DataView]> = []
const header = (name: string, value: string): DataView => viewOf(Buffer.concat([sizedBytes(name), sizedBytes(value)]))
/** The header that names a stream, as it stands in each of its records. */
export const streamHeader = (stream: string): DataView => header(streamHeaders.stream, stream)

const nothing = Buffer.alloc(0)
/** The records of one partition while they are written. Most transactions have few, so the buffer starts small. */
class PartitionBody {
  readonly topic: string
  readonly partition: number
  buffer: Buffer = nothing
  private view = viewOf(nothing)
  at = headBytes
  records = 0
  /** The stream of the first record, and its sequence number there. */
  stream = ""
  seq = 0

  private readonly pool: BufferPool

  constructor(topic: string, partition: number, pool: BufferPool) {
    this.topic = topic
    this.partition = partition
    this.pool = pool
  }
  begin(stream: string, seq: number) {
    this.stream = stream
    this.seq = seq
  }
  /** Starts again with a new buffer. The old one belongs to a batch now, unless nobody looks at it any more (`isFree`). */
  clear(isFree: boolean) {
    if (isFree) this.pool.give(this.buffer)
    this.use(nothing)
    this.at = headBytes
    this.records = 0
  }
  private use(buffer: Buffer) {
    this.buffer = buffer
    this.view = viewOf(buffer)
  }
  room(bytes: number) {
    if (this.at + bytes <= this.buffer.length) return
    const before = this.buffer
    this.use(this.pool.take(Math.max(before.length * 2, this.at + bytes)))
    before.copy(this.buffer, 0, 0, this.at)
    this.pool.give(before)
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
  copy(from: DataView, start: number, end: number) {
    const { at, buffer, view } = this
    const size = end - start
    this.at = at + size
    // a call of `set` costs as much as 200 bytes of this loop, which takes eight at a time: compiled, they are a load and a store
    if (size > 200) return buffer.set(new Uint8Array(from.buffer, from.byteOffset + start, size), at)
    let i = 0
    for (; i + 8 <= size; i += 8) view.setBigUint64(at + i, from.getBigUint64(start + i))
    for (; i < size; i++) view.setUint8(at + i, from.getUint8(start + i))
  }
  /** Writes bytes as they are. */
  all(from: DataView) {
    this.copy(from, 0, from.byteLength)
  }
  /** Writes length and bytes; null if `start` is negative. */
  text(from: DataView, start: number, end: number) {
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
  readonly header: DataView
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
  private readonly pool: BufferPool
  private readonly digits = new Uint8Array(16)
  private readonly digitsView = viewOf(this.digits)
  /** The header with the segment's incarnation. */
  private incarnation = this.digitsView
  /** Headers of the segment's earlier messages, by index, to which later ones refer. */
  private readonly shared = new Map<number, Record<string, string>>()

  constructor(compression: Compression, now: number, pool: BufferPool) {
    this.compression = compression
    this.now = now
    this.pool = pool
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
    this.incarnation = header(streamHeaders.incarnation, segment.incarnation.slice(0, incarnationDigits))
    const lines = viewOf(vals)
    this.meta.begin(meta)
    let from = 0
    for (let i = 0; i < messages; i++) {
      if (!this.meta.next() || from > vals.length)
        throw new SyntaxError(`the segment has texts for ${i} of ${messages} messages`)
      const found = vals.indexOf(newline, from)
      const to = found < 0 ? vals.length : found
      const partition = segment.partition ?? this.partition(partitions)
      const body = (bodies[partition] ??= new PartitionBody(topic, partition, this.pool))
      this.record(body, origin, firstSeq, i, lines, from, to, limit)
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
    body.clear(this.compression !== "none")
  }
  private partition(partitions: number): number {
    const { meta } = this
    const start = meta.from[key]!
    if (start < 0) return partitionOf("", partitions)
    const size = meta.to[key]! - start
    if (size > scratch.length || (meta.escaped & 1) !== 0) return partitionOf(meta.string(key)!, partitions)
    const source = meta.source[key]!
    for (let i = 0; i < size; i++) scratch[i] = source.getUint8(start + i)
    return (murmur2(scratch, size) & 0x7fffffff) % partitions
  }
  /** Writes a number's digits, and returns how many there are. */
  private decimal(value: number): number {
    let count = 0
    for (let rest = value; count === 0 || rest > 0; rest = Math.floor(rest / 10))
      this.digits[15 - count++] = zero + (rest % 10)
    return count
  }
  private others(i: number): ReadonlyArray<readonly [DataView, DataView]> {
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
    vals: DataView,
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
    let bytes = header.byteLength + names.seq.byteLength + 1 + seqSize + incarnation.byteLength
    for (const [n, name] of envelope) {
      if (meta.from[n]! < 0) continue
      const size = meta.to[n]! - meta.from[n]!
      count++
      bytes += name.byteLength + sizeOf(size) + size
    }
    for (const [name, value] of others) bytes += name.byteLength + value.byteLength
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
      body.all(name)
      body.text(meta.source[n]!, meta.from[n]!, meta.to[n]!)
    }
    for (const [name, value] of others) {
      body.all(name)
      body.all(value)
    }
    body.all(header)
    body.all(names.seq)
    body.text(this.digitsView, 16 - seqSize, 16)
    body.all(incarnation)
  }
}
