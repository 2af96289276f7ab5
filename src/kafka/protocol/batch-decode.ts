// Reads Kafka record batches (format 2) as records of the log: leaves out control records, what was aborted, and what lies before a place.
import type { LogRecord, Position } from "../../log/log.ts"
import { singleLineJson } from "../../log/rules.ts"
import { codecOf } from "./compression.ts"
import { crc32c } from "./crc32c.ts"
import { headBytes } from "./batch-encode.ts"
import { headingOf } from "./headers.ts"
import { textOf } from "./utf8.ts"

/** A transaction that was aborted, and where it begins in this partition. */
export interface Aborted {
  readonly producerId: bigint
  readonly firstOffset: number
}
/** What a fetch brought of one partition. */
export interface Decoded {
  readonly records: ReadonlyArray<LogRecord>
  /** Past the last whole batch, whatever was left of it. */
  readonly next: Position
}

/** Reads numbers and text of records, one after another. */
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
  /** Of up to 64 bits; exact within JavaScript's integers. */
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
  /** A small one costs no big integer. */
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
}

const transactional = 16
const control = 32
const brokerTime = 8

/** What of a value the log hands out: one line where it is JSON, else as it is, for the reader to refuse. */
const valueOf = (text: string | null) => (text === null ? null : (singleLineJson(text) ?? text))

const recordsOf = (batch: Buffer, partition: number, from: Position, into: Array<LogRecord>): void => {
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
      const value = valueOf(cursor.text())
      const headers: Array<readonly [string, string]> = []
      for (let left = cursor.varint(); left > 0; left--) headers.push([cursor.text()!, cursor.text() ?? ""])
      const appendedAt = (attributes & brokerTime) !== 0 ? lastTime : firstTime + time
      const {
        eventId,
        eventTime = appendedAt,
        headers: others,
        schemaVersion,
        tenant,
        traceparent
      } = headingOf(headers)
      into.push({
        partition,
        key,
        value,
        eventTime,
        eventId,
        tenant,
        traceparent,
        schemaVersion,
        headers: others,
        position,
        appendedAt
      })
    }
    cursor.at = end
  }
}

/** Whether a control batch ends its transaction by aborting it. */
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
 * The records of fetched bytes from a position on, read committed. The last batch may be cut short, as brokers do. Throws where a
 * batch is damaged or of a format that no broker since 0.11 writes.
 */
export const decode = (bytes: Buffer, partition: number, from: Position, aborted: ReadonlyArray<Aborted>): Decoded => {
  // brokers promise no order, and a producer may be there several times
  const ahead = aborted.toSorted((a, b) => a.firstOffset - b.firstOffset)
  const open = new Set<bigint>()
  const records: Array<LogRecord> = []
  let next = from
  let seen = 0
  for (let at = 0; at + headBytes <= bytes.length;) {
    const end = at + 12 + bytes.readInt32BE(at + 8)
    if (end > bytes.length) break
    const batch = bytes.subarray(at, end)
    at = end
    if (batch[16] !== 2) throw new Error(`a batch has format ${batch[16]}, only 2 is known`)
    if (batch.readUInt32BE(17) !== crc32c(batch, 21, batch.length))
      throw new Error("a batch came damaged: its checksum differs")
    const last = Number(batch.readBigInt64BE(0)) + batch.readInt32BE(23)
    const attributes = batch.readInt16BE(21)
    const producerId = batch.readBigInt64BE(43)
    for (; seen < ahead.length && ahead[seen]!.firstOffset <= last; seen++) open.add(ahead[seen]!.producerId)
    if (last + 1 > next) next = last + 1
    if ((attributes & control) !== 0) {
      if (batch.readInt32BE(57) > 0 && aborts(batch)) open.delete(producerId)
    } else if (last >= from && !((attributes & transactional) !== 0 && open.has(producerId))) {
      recordsOf(batch, partition, from, records)
    }
  }
  return { records, next }
}
