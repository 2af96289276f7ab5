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
  /** How many bytes the reader should request at most, so that all readers get the same. */
  readonly fair: () => number
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
const least = 16 << 10

/** The bytes of all readers of a process. */
export class ReadBudget {
  /** The most that readers may hold together. */
  readonly total: number
  /** The most that was ever held. */
  peak = 0
  private held = 0
  private readers = 0
  private readonly waiting: Array<WaitingRequest> = []

  constructor(total: number) {
    this.total = total
  }

  /** A share for a new reader, until it leaves. */
  join(): BudgetShare {
    this.readers++
    let own = 0
    let left = false
    const waits = new Set<WaitingRequest>()
    return {
      fair: () => Math.max(least, Math.floor(this.total / (batches * this.readers))),
      take: (bytes) =>
        new Promise((resolve) => {
          if (left) return resolve()
          const wanted = Math.min(bytes, this.total)
          const one: WaitingRequest = {
            bytes: wanted,
            grant: () => {
              waits.delete(one)
              own += wanted
              this.hold(wanted)
              resolve()
            }
          }
          waits.add(one)
          this.waiting.push(one)
          this.next()
        }),
      correct: (bytes) => {
        if (left) return
        own += bytes
        this.hold(bytes)
        this.next()
      },
      leave: () => {
        if (left) return
        left = true
        this.readers--
        for (const one of waits) {
          this.waiting.splice(this.waiting.indexOf(one), 1)
          one.grant()
        }
        this.hold(-own)
        this.next()
      }
    }
  }

  private hold(bytes: number) {
    this.held += bytes
    this.peak = Math.max(this.peak, this.held)
  }
  private next() {
    while (this.waiting.length > 0 && this.held + this.waiting[0]!.bytes <= this.total) this.waiting.shift()!.grant()
  }
}
