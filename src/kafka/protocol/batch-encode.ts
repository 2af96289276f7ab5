// Encodes records as one Kafka record batch (format 2). Producer and sequence number, known only when it is sent, are stamped later. Pure.
import { codecs } from "./compression.ts"
import { crc32c } from "./crc32c.ts"
import type { Compression } from "./options.ts"
import { bytesOf } from "../../text/utf8.ts"

/** The size of a batch's header in bytes; its records follow. */
export const headBytes = 61
/** The attribute of a batch that belongs to a transaction. */
const transactional = 16

/** What a batch needs of a record; its headers are given by a function. */
export interface EncodableRecord {
  readonly key: string | null
  readonly value: string | null
}

/** A buffer that grows. */
class GrowingBuffer {
  buffer = Buffer.allocUnsafe(64 << 10)
  at = 0

  private room(bytes: number) {
    if (this.at + bytes <= this.buffer.length) return
    const grown = Buffer.allocUnsafe(Math.max(this.buffer.length * 2, this.at + bytes))
    this.buffer.copy(grown, 0, 0, this.at)
    this.buffer = grown
  }
  /** Writes a 32-bit number as a zigzag varint. */
  varint(value: number) {
    this.room(5)
    let rest = ((value << 1) ^ (value >> 31)) >>> 0
    while (rest > 127) {
      this.buffer[this.at++] = (rest & 127) | 128
      rest >>>= 7
    }
    this.buffer[this.at++] = rest
  }
  byte(value: number) {
    this.room(1)
    this.buffer[this.at++] = value
  }
  /** Writes length and bytes; length -1 for null. */
  text(value: string | null) {
    if (value === null) return this.varint(-1)
    if (value.isWellFormed()) {
      const size = Buffer.byteLength(value)
      this.varint(size)
      this.room(size)
      this.buffer.write(value, this.at, "utf8")
      this.at += size
      return
    }
    this.raw(bytesOf(value))
  }
  raw(value: Buffer) {
    this.varint(value.length)
    this.room(value.length)
    value.copy(this.buffer, this.at)
    this.at += value.length
  }
}
// shared by all calls: encoding is synchronous, so only one batch is written at a time
const body = new GrowingBuffer()
const one = new GrowingBuffer()

/**
 * One batch of all records. `now` is their time in epoch milliseconds, unless the topic uses the broker's. With `inTransaction` the batch is
 * part of a transaction.
 */
export const encode = <A extends EncodableRecord>(
  records: ReadonlyArray<A>,
  headersOf: (record: A) => ReadonlyArray<readonly [name: string, value: string]>,
  compression: Compression,
  now: number,
  inTransaction = false
): Buffer => {
  body.at = 0
  for (let i = 0; i < records.length; i++) {
    const record = records[i]!
    one.at = 0
    one.byte(0)
    one.varint(0)
    one.varint(i)
    one.text(record.key)
    one.text(record.value)
    const headers = headersOf(record)
    one.varint(headers.length)
    for (const [name, value] of headers) {
      one.text(name)
      one.text(value)
    }
    body.raw(one.buffer.subarray(0, one.at))
  }
  const plain = body.buffer.subarray(0, body.at)
  const packed = compression === "none" ? plain : codecs[compression].pack(plain)
  const batch = Buffer.allocUnsafe(headBytes + packed.length)
  packed.copy(batch, headBytes)
  const packing = compression === "none" ? 0 : codecs[compression].id
  frame(batch, records.length, packing | (inTransaction ? transactional : 0), now)
  return batch
}

/**
 * A transactional batch of records that the caller encoded from `headBytes` on. The buffer belongs to the batch from now on. `now` is the
 * records' time, as for `encode`.
 */
export const finish = (written: Buffer, records: number, compression: Compression, now: number): Buffer => {
  if (compression === "none") {
    frame(written, records, transactional, now)
    return written
  }
  const { id, pack } = codecs[compression]
  const packed = pack(written.subarray(headBytes))
  const batch = Buffer.allocUnsafe(headBytes + packed.length)
  packed.copy(batch, headBytes)
  frame(batch, records, transactional | id, now)
  return batch
}
const frame = (batch: Buffer, records: number, attributes: number, now: number) => {
  batch.writeBigInt64BE(0n, 0)
  batch.writeInt32BE(batch.length - 12, 8)
  batch.writeInt32BE(-1, 12)
  batch[16] = 2
  batch.writeInt16BE(attributes, 21)
  batch.writeInt32BE(records - 1, 23)
  batch.writeBigInt64BE(BigInt(now), 27)
  batch.writeBigInt64BE(BigInt(now), 35)
  batch.writeInt32BE(records, 57)
}

/** Writes the producer, the sequence number within the partition and the checksum into a batch. May be repeated. */
export const stamp = (batch: Buffer, producerId: bigint, epoch: number, sequence: number): void => {
  batch.writeBigInt64BE(producerId, 43)
  batch.writeInt16BE(epoch, 51)
  batch.writeInt32BE(sequence, 53)
  batch.writeUInt32BE(crc32c(batch, 21, batch.length), 17)
}
