// How many bytes the readers of one process hold together: fetched and not handled yet, or asked for. It fetches nothing.

interface Waiting {
  readonly bytes: number
  readonly go: () => void
}

/** A share of the budget, of one reader. What it holds is given back when it leaves. */
export interface Share {
  /** What the reader should ask for at once, at most, so that all readers get as much. */
  readonly fair: () => number
  /** Waits until so many bytes more may be held; first come, first served. Resolves at once after `leave`. */
  readonly take: (bytes: number) => Promise<void>
  /** Less, or more, is held than was taken: never waits. */
  readonly correct: (bytes: number) => void
  readonly leave: () => void
}

/** Readers hold a batch that is handled and one ahead of it. */
const batches = 2
/** No reader asks for less, however many there are. */
const least = 16 << 10

/** The bytes of all readers. */
export class Budget {
  readonly total: number
  /** The most that was ever held. */
  peak = 0
  private held = 0
  private readers = 0
  private readonly waiting: Array<Waiting> = []

  constructor(total: number) {
    this.total = total
  }

  /** A reader's share, until it leaves. */
  join(): Share {
    this.readers++
    let own = 0
    let left = false
    const waits = new Set<Waiting>()
    return {
      fair: () => Math.max(least, Math.floor(this.total / (batches * this.readers))),
      take: (bytes) =>
        new Promise((resolve) => {
          if (left) return resolve()
          const wanted = Math.min(bytes, this.total)
          const one: Waiting = {
            bytes: wanted,
            go: () => {
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
          one.go()
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
    while (this.waiting.length > 0 && this.held + this.waiting[0]!.bytes <= this.total) this.waiting.shift()!.go()
  }
}
