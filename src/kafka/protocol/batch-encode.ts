// Writes records as one Kafka record batch (format 2). What is only known when it is sent, producer and sequence, is stamped later.
import type { NewRecord } from "../../log/log.ts"
import { codecs } from "./compression.ts"
import { crc32c } from "./crc32c.ts"
import { headersOf } from "./headers.ts"
import type { Compression } from "./options.ts"
import { bytesOf } from "./utf8.ts"

/** Bytes of a batch before its records. */
export const headBytes = 61
/** An attribute of a batch. */
const transactional = 16

/** A buffer that grows. */
class Bytes {
  buffer = Buffer.allocUnsafe(64 << 10)
  at = 0

  private room(bytes: number) {
    if (this.at + bytes <= this.buffer.length) return
    const grown = Buffer.allocUnsafe(Math.max(this.buffer.length * 2, this.at + bytes))
    this.buffer.copy(grown, 0, 0, this.at)
    this.buffer = grown
  }
  /** A zigzag varint of a number of 32 bits. */
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
  /** Length and bytes; -1 for none. */
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
// one at a time is written, for nothing here waits
const body = new Bytes()
const one = new Bytes()

/**
 * A batch of all records. `now` is their time, epoch milliseconds, where the topic does not take the broker's. `inTransaction`: it is part
 * of one.
 */
export const encode = (
  records: ReadonlyArray<NewRecord>,
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
 * A transactional batch of records that were written by other means, from `headBytes` on; it takes the buffer over. `now` is their time,
 * as for `encode`.
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

/** Writes who sends a batch and its number within the partition, and the checksum. May be done again. */
export const stamp = (batch: Buffer, producerId: bigint, epoch: number, sequence: number): void => {
  batch.writeBigInt64BE(producerId, 43)
  batch.writeInt16BE(epoch, 51)
  batch.writeInt32BE(sequence, 53)
  batch.writeUInt32BE(crc32c(batch, 21, batch.length), 17)
}
