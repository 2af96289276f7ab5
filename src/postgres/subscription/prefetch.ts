// What a consumer has read ahead of one partition, and the fiber that reads it. It claims nothing.
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type { Batch, Log, LogRecord, ReadError } from "../../log/log.ts"
import { murmur2 } from "../../model/partitioner.ts"
import type { Chunk, Examined } from "./leases-sql.ts"

/** How much of a partition is held read ahead, in bytes of values. */
const maxBytes = 256 << 10
/** Further than this many positions it is worth to leap rather than to read what others claimed. */
const leap = 10_000
const slots = 64
const utf8 = new TextEncoder()

/** The slot of a key, from 1. Other bits than those that chose the partition. */
export const slotOf = (key: string): number => 1 + ((murmur2(utf8.encode(key)) >>> 16) % slots)

/** One partition's records that may be claimed. */
export class Feed {
  readonly partition: number
  /** All before it is claimed, by us or another consumer. */
  first: number
  private last: number
  private records: ReadonlyArray<LogRecord> = []
  private readonly empty = Latch.makeUnsafe(true)

  constructor(partition: number, first: number) {
    this.partition = partition
    this.first = first
    this.last = first
  }
  /** Whether there is anything to claim, if only a hole. */
  get isEmpty(): boolean {
    return this.last <= this.first
  }
  private fill({ next, records }: Batch): void {
    this.records = records
    this.last = next
    this.forget(this.first)
  }
  /** The cursor is at `next`. */
  forget(next: number): void {
    this.first = Math.max(this.first, next)
    const at = this.records.findIndex(({ position }) => position >= this.first)
    this.records = at < 0 ? [] : this.records.slice(at)
    if (this.isEmpty) this.empty.openUnsafe()
    else this.empty.closeUnsafe()
  }
  /** The first records, `limit` at most, and the range that they and the holes among them fill. */
  peek(limit: number): { readonly records: ReadonlyArray<LogRecord>; readonly examined: Examined } {
    const records = this.records.length > limit ? this.records.slice(0, limit) : this.records
    const last = records.length < this.records.length ? this.records[records.length]!.position : this.last
    return { records, examined: { partition: this.partition, first: this.first, last } }
  }
  /** Reads on whenever everything was claimed. `arrived` is told. Ends with a failure only. */
  pump(log: Log["Service"], topic: string, arrived: () => void): Effect.Effect<never, ReadError> {
    const { partition } = this
    const from = Effect.fnUntraced(function* (feed: Feed) {
      let at = feed.first
      const reader = yield* log.open(topic, partition, at, { maxBytes })
      while (feed.first - at < leap) {
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

/** Records of a partition as chunks: one, or one for each slot. */
export const chunksOf = (
  partition: number,
  records: ReadonlyArray<LogRecord>,
  keyed: boolean
): ReadonlyArray<Chunk> => {
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
