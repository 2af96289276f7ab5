// A partition of the log in memory: its records, the readers that wait for more, and its cleaning.
import type * as Latch from "effect/Latch"
import { splitBatch } from "../log/rules.ts"
import { type Batch, type LogRecord, type NewRecord, OutOfRange, type Position } from "../log/log.ts"

/** The most records of one read: a limit in bytes does not limit records without values. */
const recordsAtOnce = 5_000
const bytesOf = ({ key, value }: LogRecord) => (key?.length ?? 0) + (value?.length ?? 0)
const sum = (records: ReadonlyArray<LogRecord>) => records.reduce((bytes, record) => bytes + bytesOf(record), 0)

/** One partition of a topic in memory. Nothing of it is asynchronous. */
export class Partition {
  readonly topic: string
  readonly partition: number
  /** Latches of waiting readers; `wake` opens them. */
  readonly latches = new Set<Latch.Latch>()
  private records: Array<LogRecord> = []
  private start: Position = 0
  private end: Position = 0
  /** Records before this position are compacted. */
  private clean: Position = 0
  /** When a deletion may be removed, by position; epoch milliseconds. */
  private readonly forgetAt = new Map<Position, number>()

  constructor(topic: string, partition: number) {
    this.topic = topic
    this.partition = partition
  }
  bounds() {
    return { partition: this.partition, start: this.start, end: this.end }
  }
  append(record: NewRecord, appendedAt: number): Position {
    const { eventId, eventTime, headers, key, partition, schemaVersion, tenant, traceparent, value } = record
    const position = this.end++
    this.records.push({
      partition,
      position,
      key,
      value,
      eventTime,
      eventId,
      tenant,
      traceparent,
      schemaVersion,
      headers,
      appendedAt
    })
    return position
  }
  wake(): void {
    for (const latch of this.latches) latch.openUnsafe()
  }
  /** The records from a position on, `maxBytes` of values at most but at least one record. */
  read(position: Position, maxBytes: number): Batch | OutOfRange {
    const { end, partition, start, topic } = this
    if (!(position >= start && position <= end)) return new OutOfRange({ topic, partition, position, start, end })
    let from = 0
    for (let to = this.records.length; from < to;) {
      const middle = (from + to) >> 1
      if (this.records[middle]!.position < position) from = middle + 1
      else to = middle
    }
    const records = this.records.slice(from, from + recordsAtOnce)
    const next = this.records[from + records.length]?.position ?? end
    return splitBatch({ records, next, end }, maxBytes)[0]
  }
  /** Deletes records from the front that were appended before `time`. Returns how many. */
  expire(time: number): number {
    const young = this.records.findIndex((record) => record.appendedAt >= time)
    const count = young < 0 ? this.records.length : young
    if (count === 0) return 0
    this.records.splice(0, count)
    this.start = this.records[0]?.position ?? this.end
    return count
  }
  /** Keeps the newest record of each key, if more than `dirtyShare` of the bytes is new. Returns how many records were removed. */
  compact(now: number, dirtyShare: number, deletionsMs: number): number {
    const dirty = sum(this.records.filter(({ position }) => position >= this.clean))
    if (dirtyShare > 0 && !(dirty > dirtyShare * sum(this.records))) return 0
    const newest = new Map(this.records.map(({ key, position }) => [key, position]))
    const before = this.records.length
    this.records = this.records.filter(({ key, position, value }) => {
      if (key === null) return true
      if (newest.get(key) !== position) return false
      if (value !== null) return true
      const at = this.forgetAt.get(position) ?? now + deletionsMs
      if (at > now) this.forgetAt.set(position, at)
      else this.forgetAt.delete(position)
      return at > now
    })
    this.clean = this.end
    return before - this.records.length
  }
}
