// Decodes Kafka record batches (format 2), leaving out control records, aborted records, and records before a position. Pure.
import { codecOf } from "./compression.ts"
import { crc32c } from "./crc32c.ts"
import { headBytes } from "./batch-encode.ts"
import { textOf } from "../../text/utf8.ts"

/** An aborted transaction, and where it starts in this partition. */
export interface Aborted {
  readonly producerId: bigint
  readonly firstOffset: number
}
/**
 * Creates the caller's record from the parts of one in a batch. `appendedAt` is in epoch milliseconds; `isOfBroker`: it is the broker's time, not
 * the producer's.
 */
export type RecordOf<A> = (
  partition: number,
  position: number,
  key: string | null,
  value: string | null,
  headers: ReadonlyArray<readonly [name: string, value: string]>,
  appendedAt: number,
  isOfBroker: boolean
) => A
/** The records of fetched batches. */
export interface Decoded<A> {
  readonly records: ReadonlyArray<A>
  /** The position after the last complete batch, even if none of its records is left. */
  readonly next: number
}

const longestName = 64
const places = 64
/**
 * The names of headers, which every record repeats: each is made once, and found again by its bytes. Two names with the same place take turns.
 */
class HeaderNames {
  private readonly known: Array<{ readonly bytes: Uint8Array; readonly text: string } | undefined> = Array.from({
    length: places
  })

  /** The text of the bytes from `from` to `to`. */
  text(bytes: Buffer, from: number, to: number): string {
    const size = to - from
    if (size === 0 || size > longestName) return textOf(bytes, from, to)
    const place = (size * 31 + bytes[from]! * 7 + bytes[to - 1]!) % places
    const known = this.known[place]
    if (known !== undefined && known.bytes.length === size) {
      let same = 0
      while (same < size && known.bytes[same] === bytes[from + same]) same++
      if (same === size) return known.text
    }
    const text = textOf(bytes, from, to)
    this.known[place] = { bytes: new Uint8Array(bytes.subarray(from, to)), text }
    return text
  }
}
const headerNames = new HeaderNames()

/** Reads the numbers and texts of records, one after another. */
class Cursor {
  at: number
  readonly bytes: Buffer
  constructor(bytes: Buffer, at: number) {
    this.bytes = bytes
    this.at = at
  }
  varint(): number {
    let value = 0
    let shift = 0
    let byte: number
    do {
      byte = this.bytes[this.at++]!
      value |= (byte & 127) << shift
      shift += 7
    } while (byte > 127)
    return (value >>> 1) ^ -(value & 1)
  }
  /** A zigzag varint of up to 64 bits; exact within JavaScript's safe integers. */
  varlong(): number {
    let value = 0n
    let shift = 0n
    let byte: number
    do {
      byte = this.bytes[this.at++]!
      value |= BigInt(byte & 127) << shift
      shift += 7n
    } while (byte > 127)
    return Number((value >> 1n) ^ -(value & 1n))
  }
  /** A varlong that is mostly small: one byte needs no big integer. */
  delta(): number {
    const byte = this.bytes[this.at]!
    if (byte > 127) return this.varlong()
    this.at++
    return (byte >>> 1) ^ -(byte & 1)
  }
  text(): string | null {
    const size = this.varint()
    if (size < 0) return null
    this.at += size
    return textOf(this.bytes, this.at - size, this.at)
  }
  name(): string {
    const size = this.varint()
    this.at += size
    return headerNames.text(this.bytes, this.at - size, this.at)
  }
}

const transactional = 16
const control = 32
const brokerTime = 8

const recordsOf = <A>(batch: Buffer, partition: number, from: number, recordOf: RecordOf<A>, into: Array<A>): void => {
  const attributes = batch.readInt16BE(21)
  const base = Number(batch.readBigInt64BE(0))
  const firstTime = Number(batch.readBigInt64BE(27))
  const lastTime = Number(batch.readBigInt64BE(35))
  const packed = batch.subarray(headBytes)
  const cursor = new Cursor(codecOf(attributes)?.unpack(packed) ?? packed, 0)
  const count = batch.readInt32BE(57)
  for (let i = 0; i < count; i++) {
    const size = cursor.varint()
    const end = cursor.at + size
    cursor.at++
    const time = cursor.delta()
    const position = base + cursor.varint()
    if (position >= from) {
      const key = cursor.text()
      const value = cursor.text()
      const headers: Array<readonly [string, string]> = []
      for (let left = cursor.varint(); left > 0; left--) headers.push([cursor.name(), cursor.text() ?? ""])
      const isOfBroker = (attributes & brokerTime) !== 0
      const appendedAt = isOfBroker ? lastTime : firstTime + time
      into.push(recordOf(partition, position, key, value, headers, appendedAt, isOfBroker))
    }
    cursor.at = end
  }
}

/** Whether a control batch aborts its transaction. */
const aborts = (batch: Buffer) => {
  const cursor = new Cursor(batch, headBytes)
  cursor.varint()
  cursor.at++
  cursor.delta()
  cursor.varint()
  cursor.varint()
  // version and type; 0 aborts, 1 commits
  return batch.readInt16BE(cursor.at + 2) === 0
}

/**
 * The committed records of fetched bytes from a position on. The last batch may be cut short, as brokers send it. Throws an Error if a batch
 * is damaged, is packed with an unknown codec, or has a format that no broker since 0.11 writes.
 */
export const decode = <A>(
  bytes: Buffer,
  partition: number,
  from: number,
  aborted: ReadonlyArray<Aborted>,
  recordOf: RecordOf<A>
): Decoded<A> => {
  // brokers promise no order, and a producer may be listed several times
  const ahead = aborted.toSorted((a, b) => a.firstOffset - b.firstOffset)
  const open = new Set<bigint>()
  const records: Array<A> = []
  let next = from
  let seen = 0
  for (let at = 0; at + headBytes <= bytes.length;) {
    const end = at + 12 + bytes.readInt32BE(at + 8)
    if (end > bytes.length) break
    const batch = bytes.subarray(at, end)
    at = end
    if (batch[16] !== 2) throw new Error(`unknown format ${batch[16]} of a record batch; only 2 is supported`)
    if (batch.readUInt32BE(17) !== crc32c(batch, 21, batch.length))
      throw new Error("a record batch is damaged: its checksum does not match; if it stays so, restore the topic")
    const last = Number(batch.readBigInt64BE(0)) + batch.readInt32BE(23)
    const attributes = batch.readInt16BE(21)
    const producerId = batch.readBigInt64BE(43)
    for (; seen < ahead.length && ahead[seen]!.firstOffset <= last; seen++) open.add(ahead[seen]!.producerId)
    if (last + 1 > next) next = last + 1
    if ((attributes & control) !== 0) {
      if (batch.readInt32BE(57) > 0 && aborts(batch)) open.delete(producerId)
    } else if (last >= from && !((attributes & transactional) !== 0 && open.has(producerId))) {
      recordsOf(batch, partition, from, recordOf, records)
    }
  }
  return { records, next }
}
