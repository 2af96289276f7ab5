// Reads several partitions of a log side by side, in the order in which the log stored their records, up to a position of each.
import * as Effect from "effect/Effect"
import type { Log, LogRecord, Position, ReadError } from "../log/log.ts"

/** A partition to read. */
export interface PartitionRange {
  readonly topic: string
  readonly partition: number
  readonly from: Position
  /** The position to stop before. */
  readonly to: Position
}
interface Cursor {
  readonly range: PartitionRange
  next: Position
  records: ReadonlyArray<LogRecord>
  at: number
}

/**
 * Calls `use` for every record of the ranges, one after another: those of a partition in their order, those of several in the order of their
 * append times. Holds one read of each partition in memory. `use` returns false for a partition of which no more records are wanted.
 */
export const inAppendOrder = Effect.fnUntraced(function* <E, R>(
  log: Pick<Log["Service"], "read">,
  ranges: ReadonlyArray<PartitionRange>,
  use: (range: PartitionRange, record: LogRecord) => Effect.Effect<boolean, E, R>
): Effect.fn.Return<void, E | ReadError, R> {
  let cursors = ranges.map((range): Cursor => ({ range, next: range.from, records: [], at: 0 }))
  while (true) {
    for (const cursor of cursors) yield* fill(log, cursor)
    cursors = cursors.filter(({ at, records }) => at < records.length)
    const [first, ...others] = cursors
    if (first === undefined) return
    const earliest = others.reduce((best, other) => (appendTime(other) < appendTime(best) ? other : best), first)
    const wants = yield* use(earliest.range, earliest.records[earliest.at++]!)
    if (!wants) cursors = cursors.filter((cursor) => cursor !== earliest)
  }
})
const appendTime = ({ at, records }: Cursor) => records[at]!.appendedAt
/** Reads on if all records that were read have been used. */
const fill = Effect.fnUntraced(function* (log: Pick<Log["Service"], "read">, cursor: Cursor) {
  const { partition, to, topic } = cursor.range
  while (cursor.at >= cursor.records.length && cursor.next < to) {
    const batch = yield* log.read(topic, partition, cursor.next)
    // nothing more can come: the rest of the partition is gone
    if (batch.next <= cursor.next) return
    cursor.next = batch.next
    cursor.records = batch.records.filter(({ position }) => position < to)
    cursor.at = 0
  }
})

/** The records of the first read from `from` on that has any, all of them at `from` or later. None if there are none before `to`. */
export const firstRecords = Effect.fnUntraced(function* (
  log: Pick<Log["Service"], "read">,
  { from, partition, to, topic }: PartitionRange
): Effect.fn.Return<ReadonlyArray<LogRecord>, ReadError> {
  for (let next = from; next < to;) {
    const batch = yield* log.read(topic, partition, next, { maxBytes: 1 })
    const records = batch.records.filter(({ position }) => position >= from)
    // a read may have control records of Kafka alone, or end in positions that were compacted away
    if (records.length > 0 || batch.next <= next) return records
    next = batch.next
  }
  return []
})

/** The first position from `start` on whose record was appended at `time` or later; `end` if there is none. Append times must not decrease. */
export const positionAt = Effect.fnUntraced(function* (
  log: Pick<Log["Service"], "read">,
  { from, partition, to, topic }: PartitionRange,
  time: number
): Effect.fn.Return<Position, ReadError> {
  let [low, high] = [from, to]
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    const [record] = yield* firstRecords(log, { topic, partition, from: middle, to: high })
    if (record === undefined || record.position >= high || record.appendedAt >= time) high = middle
    else low = record.position + 1
  }
  return low
})
