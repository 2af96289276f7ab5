// The ids that a replay in memory has seen, in chunks, as a store keeps them.
import type { PackedIds } from "./store.ts"

const chunkBytes = 64 * 1024

interface Chunk {
  minTime: number
  maxTime: number
  length: number
  readonly bytes: Uint8Array
}

/** Packed ids of one partition. */
export class SeenChunks {
  private readonly chunks: Array<Chunk> = []

  add({ maxTime, minTime, packed }: PackedIds): void {
    let last = this.chunks.at(-1)
    if (last === undefined || last.length + packed.byteLength > last.bytes.byteLength) {
      const bytes = new Uint8Array(Math.max(chunkBytes, packed.byteLength))
      this.chunks.push((last = { minTime: Infinity, maxTime: -Infinity, length: 0, bytes }))
    }
    last.bytes.set(packed, last.length)
    last.length += packed.byteLength
    last.minTime = Math.min(last.minTime, minTime)
    last.maxTime = Math.max(last.maxTime, maxTime)
  }
  /** The chunks whose times overlap one of the ranges, ends included. */
  within(ranges: ReadonlyArray<{ readonly from: number; readonly to: number }>): ReadonlyArray<Uint8Array> {
    return this.chunks
      .filter(({ maxTime, minTime }) => ranges.some(({ from, to }) => maxTime >= from && minTime <= to))
      .map(({ bytes, length }) => bytes.subarray(0, length))
  }
}
