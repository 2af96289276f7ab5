// Which event ids a partition has handled: exact within a time bound, 20 bytes an id, and a function of the log alone.
import { hash } from "node:crypto"

/**
 * A record is a duplicate where an earlier record of its partition had its tenant and id and was dated at most `within` from it.
 * Nothing else decides (not arrival, not stream time), so a replay decides the same, and an old file sent again is all duplicates.
 *
 * Ids are kept as the first 96 bits of a SHA-1 (a billion ids an hour meet by chance once in 10^11 hours), in buckets of event time.
 * Buckets that are not in memory are loaded from what commits have stored before a batch is looked at: `missing`, `load`, `test`
 * for each event, then `onCommitted` with the commit, or `reset` without it.
 */
export class SeenIds {
  private readonly withinMs: number
  private readonly widthMs: number
  private readonly buckets = new Map<number, Bucket>()
  private readonly maxIds: number
  private readonly pending: Array<Entry> = []
  /** The same, to be found. */
  private noted = new Bucket()
  private ids = 0
  /** The newest bucket that commits may have stored ids in; undefined where nothing was stored. */
  private newest: number | undefined

  /** `streamTime` is the partition's highest event time so far: no stored id is dated beyond it. */
  constructor(withinMs: number, streamTime: number | undefined, maxIds = 2_000_000) {
    this.withinMs = withinMs
    this.widthMs = Math.max(withinMs, 60_000)
    this.maxIds = maxIds
    this.newest = streamTime === undefined ? undefined : this.bucketOf(streamTime)
  }

  private bucketOf(time: number): number {
    return Math.floor(time / this.widthMs)
  }

  /** The ranges of event time, ends included, that must be loaded before events of these times are tested. */
  missing(times: Iterable<number>): ReadonlyArray<{ readonly from: number; readonly to: number }> {
    const wanted = new Set<number>()
    for (const time of times) {
      const last = this.bucketOf(time + this.withinMs)
      for (let bucket = this.bucketOf(time - this.withinMs); bucket <= last; bucket++) {
        if (this.buckets.has(bucket)) this.touch(bucket)
        else if (this.newest === undefined || bucket > this.newest) this.buckets.set(bucket, new Bucket())
        else wanted.add(bucket)
      }
    }
    const ranges: Array<{ from: number; to: number }> = []
    for (const bucket of [...wanted].toSorted((a, b) => a - b)) {
      const from = bucket * this.widthMs
      const before = ranges.at(-1)
      if (before !== undefined && before.to + 1 === from) before.to = from + this.widthMs - 1
      else ranges.push({ from, to: from + this.widthMs - 1 })
    }
    return ranges
  }

  /** Takes what was stored for the ranges that `missing` gave. Ids beyond the ranges are passed over. */
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
        const time = view.getFloat64(at + 12)
        const bucket = this.bucketOf(time)
        if (loading.has(bucket)) {
          this.insert({ a: view.getInt32(at), b: view.getInt32(at + 4), c: view.getInt32(at + 8), time })
        }
      }
    }
  }

  /** Whether the event is a duplicate; if not, it is noted until `onCommitted` or `reset`. */
  test(tenant: string | undefined, id: string, time: number): boolean {
    const entry = entryOf(tenant, id, time)
    let before = this.noted.find(entry, this.withinMs)
    const last = this.bucketOf(time + this.withinMs)
    for (let bucket = this.bucketOf(time - this.withinMs); bucket <= last && before !== time; bucket++) {
      before = this.buckets.get(bucket)?.find(entry, this.withinMs) ?? before
    }
    if (before === time) return true
    // a duplicate with a time of its own is an earlier record for those that come after it
    this.pending.push(entry)
    this.noted.add(entry)
    return before !== undefined
  }

  /** Takes back what `test` noted: its event failed, and one like it may come again. */
  forget(tenant: string | undefined, id: string, time: number): void {
    const { a, b, c } = entryOf(tenant, id, time)
    const same = (entry: Entry) => entry.a === a && entry.b === b && entry.c === c && entry.time === time
    const at = this.pending.findLastIndex(same)
    if (at < 0) return
    this.pending.splice(at, 1)
    this.noted.remove({ a, b, c, time })
  }

  /** What was noted, packed for the store. */
  packed():
    | { readonly minTime: number; readonly maxTime: number; readonly count: number; readonly packed: Uint8Array }
    | undefined {
    const { pending } = this
    if (pending.length === 0) return undefined
    const packed = new Uint8Array(pending.length * entryBytes)
    const view = new DataView(packed.buffer)
    let minTime = Infinity
    let maxTime = -Infinity
    for (let i = 0; i < pending.length; i++) {
      const { a, b, c, time } = pending[i]!
      view.setInt32(i * entryBytes, a)
      view.setInt32(i * entryBytes + 4, b)
      view.setInt32(i * entryBytes + 8, c)
      view.setFloat64(i * entryBytes + 12, time)
      if (time < minTime) minTime = time
      if (time > maxTime) maxTime = time
    }
    return { minTime, maxTime, count: pending.length, packed }
  }

  /** The commit holds: what was noted is stored. */
  onCommitted(): void {
    for (const entry of this.pending) {
      this.insert(entry)
      const bucket = this.bucketOf(entry.time)
      if (this.newest === undefined || bucket > this.newest) this.newest = bucket
    }
    this.reset()
    this.evict()
  }

  /** There was no commit: nothing was noted. */
  reset(): void {
    if (this.pending.length === 0) return
    this.pending.length = 0
    this.noted = new Bucket()
  }

  private insert(entry: Entry): void {
    const bucket = this.buckets.get(this.bucketOf(entry.time))
    if (bucket === undefined) return // stored, and evicted: it is loaded again when it is asked for
    bucket.add(entry)
    this.ids++
  }

  private touch(bucket: number): void {
    const found = this.buckets.get(bucket)!
    this.buckets.delete(bucket)
    this.buckets.set(bucket, found)
  }

  /** Forgets the buckets that were not asked for longest. They can be loaded again, so this is for memory alone. */
  private evict(): void {
    for (const [bucket, { size }] of this.buckets) {
      if (this.buckets.size <= maxBuckets && this.ids <= this.maxIds) return
      if (this.newest !== undefined && bucket > this.newest) continue // never stored: cheap, and nothing to load
      this.buckets.delete(bucket)
      this.ids -= size
    }
  }
}

const entryBytes = 20
const maxBuckets = 2048

/** Words are signed: an unsigned one beyond 2^31 would be an object of its own on the heap. */
interface Entry {
  readonly a: number
  readonly b: number
  readonly c: number
  readonly time: number
}

const entryOf = (tenant: string | undefined, id: string, time: number): Entry => {
  // one character a byte: a buffer costs an allocation outside the heap, which is dearer than the hash
  const digest = hash("sha1", tenant === undefined ? id : `${tenant}\u0000${id}`, "binary")
  return { a: wordOf(digest, 0), b: wordOf(digest, 4), c: wordOf(digest, 8), time }
}
const wordOf = (digest: string, at: number): number =>
  (digest.charCodeAt(at) << 24) |
  (digest.charCodeAt(at + 1) << 16) |
  (digest.charCodeAt(at + 2) << 8) |
  digest.charCodeAt(at + 3)

/** An open-addressing table of ids; an id may be there with several times. */
class Bucket {
  size = 0
  private words = new Int32Array(3 * 16)
  private times = new Float64Array(16).fill(NaN) // NaN: free

  /** The time that the id has here within the bound, the very same one if it is there. */
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
    this.place(entry.a, entry.b, entry.c, entry.time)
    this.size++
  }

  /** Takes one back: its place stays taken, by a time that is near to none. */
  remove({ a, b, c, time }: Entry): void {
    const mask = this.times.length - 1
    for (let slot = a & mask; !Number.isNaN(this.times[slot]!); slot = (slot + 1) & mask) {
      const same = this.words[slot * 3] === a && this.words[slot * 3 + 1] === b && this.words[slot * 3 + 2] === c
      if (!same || this.times[slot] !== time) continue
      this.times[slot] = Infinity
      return
    }
  }

  private place(a: number, b: number, c: number, time: number): void {
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
    for (const [slot, time] of times.entries()) {
      if (!Number.isNaN(time)) this.place(words[slot * 3]!, words[slot * 3 + 1]!, words[slot * 3 + 2]!, time)
    }
  }
}
