// A set of offsets that takes one bit for each, for partitions of millions of records.

const chunkSize = 65_536

/** A set of whole numbers from 0 up. Memory is allocated in chunks around the numbers that are added. */
export class OffsetSet {
  private readonly chunks = new Map<number, Uint8Array>()
  has(offset: number): boolean {
    const chunk = this.chunks.get(Math.floor(offset / chunkSize))
    return chunk !== undefined && (chunk[(offset % chunkSize) >> 3]! & (1 << (offset & 7))) !== 0
  }
  add(offset: number): void {
    const number = Math.floor(offset / chunkSize)
    let chunk = this.chunks.get(number)
    if (chunk === undefined) this.chunks.set(number, (chunk = new Uint8Array(chunkSize / 8)))
    chunk[(offset % chunkSize) >> 3]! |= 1 << (offset & 7)
  }
}
