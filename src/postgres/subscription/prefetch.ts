// Reads ahead of a consumer's claims in one partition, and divides records into chunks to claim.
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type { Batch, Log, LogRecord, ReadError } from "../../log/log.ts"
import { withoutTimeMarks } from "../../log/time-mark.ts"
import { murmur2 } from "../../model/partitioner.ts"
import type { PositionChunk, ExaminedRange } from "./leases-sql.ts"

/** How much of a partition is read ahead, in bytes of values. */
const maxBytes = 256 << 10
/** If other consumers claimed more positions than this, reading continues behind them instead of through them. */
const skipPositions = 10_000
const slots = 64
const utf8 = new TextEncoder()

/** The slot of a key, from 1. It uses other bits of the hash than the choice of the partition. */
export const slotOf = (key: string): number => 1 + ((murmur2(utf8.encode(key)) >>> 16) % slots)

/** The records of one partition that can be claimed next. */
export class PartitionFeed {
  readonly partition: number
  /** Everything before this position is claimed, by this consumer or another one. */
  first: number
  private last: number
  private records: ReadonlyArray<LogRecord> = []
  private readonly empty = Latch.makeUnsafe(true)

  constructor(partition: number, first: number) {
    this.partition = partition
    this.first = first
    this.last = first
  }
  /** Whether there is nothing to claim. Positions that compaction removed count as something. */
  get isEmpty(): boolean {
    return this.last <= this.first
  }
  private fill({ next, records }: Batch): void {
    // what is left out counts like a position that compaction removed
    this.records = withoutTimeMarks(records)
    this.last = next
    this.forget(this.first)
  }
  /** Drops what is before `next`, where the cursor is. */
  forget(next: number): void {
    this.first = Math.max(this.first, next)
    const at = this.records.findIndex(({ position }) => position >= this.first)
    this.records = at < 0 ? [] : this.records.slice(at)
    if (this.isEmpty) this.empty.openUnsafe()
    else this.empty.closeUnsafe()
  }
  /** The first records, at most `limit`, and the range of positions from the cursor to the last of them. */
  peek(limit: number): { readonly records: ReadonlyArray<LogRecord>; readonly examined: ExaminedRange } {
    const records = this.records.length > limit ? this.records.slice(0, limit) : this.records
    const last = records.length < this.records.length ? this.records[records.length]!.position : this.last
    return { records, examined: { partition: this.partition, first: this.first, last } }
  }
  /** Reads on whenever everything was claimed, and calls `arrived` after each read. Ends only by a failure. */
  pump(log: Log["Service"], topic: string, arrived: () => void): Effect.Effect<never, ReadError> {
    const { partition } = this
    const from = Effect.fnUntraced(function* (feed: PartitionFeed) {
      let at = feed.first
      const reader = yield* log.open(topic, partition, at, { maxBytes })
      while (feed.first - at < skipPositions) {
        const batch = yield* reader.take
        at = batch.next
        if (at <= feed.first) continue
        feed.fill(batch)
        arrived()
        yield* feed.empty.await
      }
    }, Effect.scoped)
    return Effect.forever(Effect.suspend(() => from(this)))
  }
}

/** Divides records of a partition into chunks: one for each slot if `keyed`, else one for all. */
export const chunksOf = (
  partition: number,
  records: ReadonlyArray<LogRecord>,
  keyed: boolean
): ReadonlyArray<PositionChunk> => {
  if (!keyed)
    return records.length === 0 ? [] : [{ partition, slot: 0, positions: records.map(({ position }) => position) }]
  const chunks = new Map<number, { partition: number; slot: number; positions: Array<number> }>()
  for (const { key, position } of records) {
    const slot = slotOf(key ?? "")
    const chunk = chunks.get(slot)
    if (chunk === undefined) chunks.set(slot, { partition, slot, positions: [position] })
    else chunk.positions.push(position)
  }
  return [...chunks.values()]
}
