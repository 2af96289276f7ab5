// Buffers that are used again. Each new one is memory outside the heap, and V8 collects the whole heap after some megabytes of it: without the
// pool, a relay that catches up does so three times a second.

/** Smaller buffers are cheap, and are not kept. */
const leastBytes = 1 << 14
const classOf = (bytes: number) => 32 - Math.clz32(bytes - 1)

/** Buffers by their size, a power of two. Takers give back only what they took from it. */
export class BufferPool {
  private readonly free = new Map<number, Array<Buffer>>()
  private readonly most: number
  private kept = 0

  /** Keeps at most `most` bytes of buffers that nobody uses. */
  constructor(most: number) {
    this.most = most
  }
  /** A buffer of at least so many bytes, a kilobyte or more, with whatever was in it. */
  take(bytes: number): Buffer {
    const size = Math.max(10, classOf(bytes))
    const found = this.free.get(size)?.pop()
    if (found === undefined) return Buffer.allocUnsafeSlow(2 ** size)
    this.kept -= found.length
    return found
  }
  /** Takes back a buffer that nobody looks at, or at a part of it, any more. */
  give(buffer: Buffer): void {
    if (buffer.length < leastBytes || this.kept + buffer.length > this.most) return
    this.kept += buffer.length
    const size = classOf(buffer.length)
    const existing = this.free.get(size)
    if (existing === undefined) this.free.set(size, [buffer])
    else existing.push(buffer)
  }
}
