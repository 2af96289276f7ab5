// The size of records in memory, and the budget of bytes that all readers of one process hold together: fetched and not handled yet, or
// requested. Pure.
import type { NewRecord } from "../../log/log.ts"

/** What a record takes beside its texts. */
const overhead = 120
/** About how many bytes a record takes: its characters, and something for the rest. */
export const sizeOf = ({ headers, key, value }: NewRecord): number => {
  let size = overhead + (key?.length ?? 0) + (value?.length ?? 0)
  for (const name in headers) size += name.length + headers[name]!.length
  return size
}

interface WaitingRequest {
  readonly bytes: number
  readonly grant: () => void
}

/** One reader's share of the budget. */
export interface BudgetShare {
  /**
   * How many bytes the reader may request now, if it wants so many: its part of the half that all readers have alike, and more while the other half
   * has room. 0: less than its part, because of what it holds already.
   */
  readonly room: (wanted: number) => number
  /** Waits until so many more bytes may be held; first come, first served. Resolves at once after `leave`. */
  readonly take: (bytes: number) => Promise<void>
  /** Adds to what is held, or subtracts from it if negative, once the real size is known. Never waits. */
  readonly correct: (bytes: number) => void
  /** Returns everything that the reader holds. */
  readonly leave: () => void
}

/** A reader holds the batch that is being handled and the one fetched ahead of it. */
const batches = 2
/** The least that a reader requests, however many readers there are. */
export const leastBytes = 16 << 10

/** What a reader holds, with what it waits for. */
interface Held {
  bytes: number
}

/**
 * The bytes of all readers of a process. Half of them is divided alike, and nobody can take that from a reader: one that is paused keeps what it
 * holds for as long as it likes. The other half is for those that want larger batches, because they are far behind.
 */
export class ReadBudget {
  /** The most that readers may hold together. */
  readonly total: number
  /** The most that was ever held. */
  peak = 0
  private held = 0
  private readonly readers = new Set<Held>()
  private readonly waiting: Array<WaitingRequest> = []

  constructor(total: number) {
    this.total = total
  }

  /** A share for a new reader, until it leaves. */
  join(): BudgetShare {
    const own: Held = { bytes: 0 }
    this.readers.add(own)
    let left = false
    const waits = new Set<WaitingRequest>()
    return {
      room: (wanted) => this.roomOf(own, wanted),
      take: (bytes) =>
        new Promise((resolve) => {
          if (left) return resolve()
          const wanted = Math.min(bytes, this.total)
          const one: WaitingRequest = {
            bytes: wanted,
            grant: () => {
              waits.delete(one)
              this.hold(wanted)
              resolve()
            }
          }
          // at once, so that what is lent to one that waits is not lent twice
          own.bytes += wanted
          waits.add(one)
          this.waiting.push(one)
          this.next()
        }),
      correct: (bytes) => {
        if (left) return
        own.bytes += bytes
        this.hold(bytes)
        this.next()
      },
      leave: () => {
        if (left) return
        left = true
        this.readers.delete(own)
        for (const one of waits) {
          this.waiting.splice(this.waiting.indexOf(one), 1)
          one.grant()
        }
        this.hold(-own.bytes)
        this.next()
      }
    }
  }

  private roomOf(own: Held, wanted: number): number {
    const part = Math.max(leastBytes, Math.floor(this.total / 2 / (batches * this.readers.size)))
    // what each holds beyond its parts is taken from the half that is for all
    let room = this.total / 2
    for (const { bytes } of this.readers) room -= Math.max(0, bytes - batches * part)
    const least = Math.min(wanted, part)
    const most = Math.min(part, Math.max(0, batches * part - own.bytes)) + Math.max(0, Math.floor(room))
    return most < least ? 0 : Math.min(wanted, most)
  }
  private hold(bytes: number) {
    this.held += bytes
    this.peak = Math.max(this.peak, this.held)
  }
  private next() {
    while (this.waiting.length > 0 && this.held + this.waiting[0]!.bytes <= this.total) this.waiting.shift()!.grant()
  }
}
