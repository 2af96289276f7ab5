// The event ids that a partition has seen, to find duplicates: exact within a time bound, 20 bytes an id. The log alone decides.
import { hash } from "node:crypto"

/**
 * A record is a duplicate if an earlier record of its partition has its tenant and id, and a time at most `within` from its own.
 * Neither arrival nor stream time matters, so a replay finds the same duplicates, and a file that is sent again is all duplicates.
 *
 * Ids are kept as the first 96 bits of a SHA-1 (among a billion ids an hour, two collide once in 10^11 hours), in buckets of event
 * time. Buckets that are not in memory are loaded from the store. For each batch, call `missing` and `load`, then `test` for each
 * event, then `onCommitted` after the commit, or `reset` if there was none.
 *
 * In memory are the buckets that the last batch needed, however many ids they have (34 to 67 bytes each), and more of them up to `maxIds` ids.
 */
export class SeenIds {
  private readonly withinMs: number
  private readonly widthMs: number
  private readonly buckets = new Map<number, Bucket>()
  /** Those that were needed since the last commit. */
  private readonly needed = new Set<number>()
  private readonly maxIds: number
  private readonly pending = new PendingIds()
  /** The pending ids once more, in a table to look them up in. */
  private pendingTable = new Bucket()
  private ids = 0
  /** The newest bucket of which commits may have stored ids; undefined if nothing was stored. */
  private newest: number | undefined

  /**
   * `newestTime` is the greatest event time of a stored id. Stream time would not do: an event may be dated ahead of it, and a retried
   * one further still.
   */
  constructor(withinMs: number, newestTime: number | undefined, maxIds = 2_000_000) {
    this.withinMs = withinMs
    this.widthMs = Math.max(withinMs, 60_000)
    this.maxIds = maxIds
    this.newest = newestTime === undefined ? undefined : this.bucketOf(newestTime)
  }

  private bucketOf(time: number): number {
    return Math.floor(time / this.widthMs)
  }

  /** The ranges of event time (ends included) that must be loaded before events of these times are tested. */
  missing(times: Iterable<number>): ReadonlyArray<{ readonly from: number; readonly to: number }> {
    const asked = new Set<number>()
    for (const time of times) {
      const last = this.bucketOf(time + this.withinMs)
      for (let bucket = this.bucketOf(time - this.withinMs); bucket <= last; bucket++) asked.add(bucket)
    }
    const wanted: Array<number> = []
    for (const bucket of asked) {
      this.needed.add(bucket)
      if (this.buckets.has(bucket)) this.touch(bucket)
      else if (this.newest === undefined || bucket > this.newest) this.buckets.set(bucket, new Bucket())
      else wanted.push(bucket)
    }
    const ranges: Array<{ from: number; to: number }> = []
    for (const bucket of wanted.toSorted((a, b) => a - b)) {
      const from = bucket * this.widthMs
      const before = ranges.at(-1)
      if (before !== undefined && before.to + 1 === from) before.to = from + this.widthMs - 1
      else ranges.push({ from, to: from + this.widthMs - 1 })
    }
    return ranges
  }

  /** Adds what was stored for the ranges that `missing` returned. Ids outside of the ranges are ignored. */
  load(ranges: ReadonlyArray<{ readonly from: number; readonly to: number }>, chunks: ReadonlyArray<Uint8Array>): void {
    const loading = new Set<number>()
    for (const { from, to } of ranges) {
      for (let bucket = this.bucketOf(from); bucket <= this.bucketOf(to); bucket++) {
        this.buckets.set(bucket, new Bucket())
        loading.add(bucket)
      }
    }
    for (const chunk of chunks) {
      const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength)
      for (let at = 0; at < chunk.byteLength; at += entryBytes) {
        const entry = entryAt(view, at)
        if (loading.has(this.bucketOf(entry.time))) this.insert(entry)
      }
    }
  }

  /** Whether the event is a duplicate. Its id is pending until `onCommitted` or `reset`. */
  test(tenant: string | undefined, id: string, time: number): boolean {
    const entry = entryOf(tenant, id, time)
    let before = this.pendingTable.find(entry, this.withinMs)
    const last = this.bucketOf(time + this.withinMs)
    for (let bucket = this.bucketOf(time - this.withinMs); bucket <= last && before !== time; bucket++) {
      before = this.buckets.get(bucket)?.find(entry, this.withinMs) ?? before
    }
    if (before === time) return true
    // a duplicate with another time is an earlier record for later ones
    this.pending.add(entry)
    this.pendingTable.add(entry)
    return before !== undefined
  }

  /** Undoes `test`: the event failed, so a later one with its id is no duplicate of it. */
  forget(tenant: string | undefined, id: string, time: number): void {
    const entry = entryOf(tenant, id, time)
    if (this.pending.remove(entry)) this.pendingTable.remove(entry)
  }

  /** The pending ids, packed for the store; undefined if there are none. */
  packed():
    | { readonly minTime: number; readonly maxTime: number; readonly count: number; readonly packed: Uint8Array }
    | undefined {
    const { count } = this.pending
    if (count === 0) return undefined
    let minTime = Infinity
    let maxTime = -Infinity
    for (let i = 0; i < count; i++) {
      const time = this.pending.timeAt(i)
      if (time < minTime) minTime = time
      if (time > maxTime) maxTime = time
    }
    return { minTime, maxTime, count, packed: this.pending.packed() }
  }

  /** The pending ids are stored. */
  onCommitted(): void {
    for (let i = 0; i < this.pending.count; i++) {
      const entry = this.pending.at(i)
      this.insert(entry)
      const bucket = this.bucketOf(entry.time)
      if (this.newest === undefined || bucket > this.newest) this.newest = bucket
    }
    this.reset()
    this.evict()
  }

  /** Forgets the pending ids: there was no commit. */
  reset(): void {
    if (this.pending.count === 0) return
    this.pending.count = 0
    this.pendingTable = new Bucket()
  }

  private insert(entry: Entry): void {
    const bucket = this.buckets.get(this.bucketOf(entry.time))
    if (bucket === undefined) return // it is stored, and was evicted: it is loaded again when it is needed
    bucket.add(entry)
    this.ids++
  }

  private touch(bucket: number): void {
    const found = this.buckets.get(bucket)!
    this.buckets.delete(bucket)
    this.buckets.set(bucket, found)
  }

  /** Drops the least recently used buckets to bound memory. They can be loaded again. Those of the last batch stay: the next one needs them, too. */
  private evict(): void {
    for (const [bucket, { size }] of this.buckets) {
      if (this.buckets.size <= maxBuckets && this.ids <= this.maxIds) break
      if (this.newest !== undefined && bucket > this.newest) continue // empty, and nothing is stored of it
      if (this.needed.has(bucket)) continue
      this.buckets.delete(bucket)
      this.ids -= size
    }
    this.needed.clear()
  }
}

const entryBytes = 20
const maxBuckets = 2048

/** An id's hash in three signed words (an unsigned one beyond 2^31 would be an object of its own on the heap), and the event's time. */
interface Entry {
  readonly a: number
  readonly b: number
  readonly c: number
  readonly time: number
}

const entryOf = (tenant: string | undefined, id: string, time: number): Entry => {
  // a text with one character for each byte: a buffer would cost an allocation outside of the heap, which takes longer than the hash
  const digest = hash("sha1", tenant === undefined ? id : `${tenant}\u0000${id}`, "binary")
  return { a: wordOf(digest, 0), b: wordOf(digest, 4), c: wordOf(digest, 8), time }
}
const wordOf = (digest: string, at: number): number =>
  (digest.charCodeAt(at) << 24) |
  (digest.charCodeAt(at + 1) << 16) |
  (digest.charCodeAt(at + 2) << 8) |
  digest.charCodeAt(at + 3)

/** The entry that is packed at `at`. */
const entryAt = (view: DataView, at: number): Entry => ({
  a: view.getInt32(at),
  b: view.getInt32(at + 4),
  c: view.getInt32(at + 8),
  time: view.getFloat64(at + 12)
})

/** Entries in the order in which they came, packed as they are stored: as objects, the collector would copy each of a batch. */
class PendingIds {
  count = 0
  private bytes = new Uint8Array(64 * entryBytes)
  private view = new DataView(this.bytes.buffer)

  add({ a, b, c, time }: Entry): void {
    const at = this.count++ * entryBytes
    if (at === this.bytes.length) {
      const { bytes } = this
      this.bytes = new Uint8Array(bytes.length * 2)
      this.bytes.set(bytes)
      this.view = new DataView(this.bytes.buffer)
    }
    this.view.setInt32(at, a)
    this.view.setInt32(at + 4, b)
    this.view.setInt32(at + 8, c)
    this.view.setFloat64(at + 12, time)
  }
  at(index: number): Entry {
    return entryAt(this.view, index * entryBytes)
  }
  timeAt(index: number): number {
    return this.view.getFloat64(index * entryBytes + 12)
  }
  /** Removes the last entry that is the same. False if there is none. */
  remove({ a, b, c, time }: Entry): boolean {
    for (let index = this.count - 1; index >= 0; index--) {
      if (this.timeAt(index) !== time) continue
      const other = this.at(index)
      if (other.a !== a || other.b !== b || other.c !== c) continue
      this.bytes.copyWithin(index * entryBytes, (index + 1) * entryBytes, this.count * entryBytes)
      this.count--
      return true
    }
    return false
  }
  packed(): Uint8Array {
    return this.bytes.slice(0, this.count * entryBytes)
  }
}

/** An open-addressing hash table of ids. An id may be in it with several times. */
class Bucket {
  size = 0
  private words = new Int32Array(3 * 16)
  private times = new Float64Array(16).fill(NaN) // NaN: a free slot

  /** A time that the id has here within the bound, preferably the very same one; undefined if there is none. */
  find({ a, b, c, time }: Entry, withinMs: number): number | undefined {
    let found: number | undefined
    const mask = this.times.length - 1
    for (let slot = a & mask; ; slot = (slot + 1) & mask) {
      const other = this.times[slot]!
      if (Number.isNaN(other)) return found
      if (
        this.words[slot * 3] === a &&
        this.words[slot * 3 + 1] === b &&
        this.words[slot * 3 + 2] === c &&
        Math.abs(other - time) <= withinMs
      ) {
        if (other === time) return other
        found = other
      }
    }
  }

  add(entry: Entry): void {
    if (this.size * 5 >= this.times.length * 3) this.grow()
    this.insert(entry.a, entry.b, entry.c, entry.time)
    this.size++
  }

  /** Removes an id. Its slot stays occupied, by a time that is near no other. */
  remove({ a, b, c, time }: Entry): void {
    const mask = this.times.length - 1
    for (let slot = a & mask; !Number.isNaN(this.times[slot]!); slot = (slot + 1) & mask) {
      const same = this.words[slot * 3] === a && this.words[slot * 3 + 1] === b && this.words[slot * 3 + 2] === c
      if (!same || this.times[slot] !== time) continue
      this.times[slot] = Infinity
      return
    }
  }

  private insert(a: number, b: number, c: number, time: number): void {
    const mask = this.times.length - 1
    let slot = a & mask
    while (!Number.isNaN(this.times[slot]!)) slot = (slot + 1) & mask
    this.words[slot * 3] = a
    this.words[slot * 3 + 1] = b
    this.words[slot * 3 + 2] = c
    this.times[slot] = time
  }

  private grow(): void {
    const { times, words } = this
    this.words = new Int32Array(words.length * 2)
    this.times = new Float64Array(times.length * 2).fill(NaN)
    for (let slot = 0; slot < times.length; slot++) {
      const time = times[slot]!
      if (!Number.isNaN(time)) this.insert(words[slot * 3]!, words[slot * 3 + 1]!, words[slot * 3 + 2]!, time)
    }
  }
}
