// A queue of messages that arrived and were not read yet. It is bounded if the side that fills it waits for `hasRoom`.
import type { PulsarFailure } from "./errors.ts"
import type { Received } from "./transport.ts"

/** How many messages a reader fetches ahead. */
export const readAhead = 1_000

/** A queue with one reader. */
export class ReceiveQueue {
  private waiting: Array<Received> = []
  private at = 0
  private failure: PulsarFailure | undefined
  private ended = false
  private arrived: () => void = () => {}
  private taken: () => void = () => {}

  private get length(): number {
    return this.waiting.length - this.at
  }
  push(message: Received): void {
    this.waiting.push(message)
    this.arrived()
  }
  /** Ends all waiting. After the messages that came before, `next` returns undefined, or throws the failure if there is one. */
  end(failure?: PulsarFailure): void {
    this.failure ??= failure
    this.ended = true
    this.arrived()
    this.taken()
  }
  /** Waits until there is room for one more. */
  async hasRoom(): Promise<void> {
    while (this.length >= readAhead && !this.ended) await new Promise<void>((resolve) => (this.taken = resolve))
  }
  /** The next message; undefined if none came within so many milliseconds. */
  async next(waitMs: number): Promise<Received | undefined> {
    if (this.length === 0 && !this.ended) {
      let timer: NodeJS.Timeout | undefined
      await new Promise<void>((resolve) => {
        this.arrived = resolve
        timer = setTimeout(resolve, waitMs)
      })
      clearTimeout(timer)
    }
    if (this.length === 0) {
      if (this.failure !== undefined) throw this.failure
      return undefined
    }
    const message = this.waiting[this.at++]
    if (this.at >= readAhead) {
      this.waiting = this.waiting.slice(this.at)
      this.at = 0
    }
    this.taken()
    return message
  }
}
