// What a reader got and nobody took yet. Bounded, where the one that brings it waits for `drained`.
import type { PulsarFailure } from "./errors.ts"
import type { Received } from "./transport.ts"

/** More than that is not fetched ahead. */
export const readAhead = 1_000

/** A queue with one taker. */
export class Arrivals {
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
  /** Whoever waits, waits no longer. With a failure, `next` tells it after what came before. */
  end(failure?: PulsarFailure): void {
    this.failure ??= failure
    this.ended = true
    this.arrived()
    this.taken()
  }
  /** Waits until there is room for one more. */
  async drained(): Promise<void> {
    while (this.length >= readAhead && !this.ended) await new Promise<void>((resolve) => (this.taken = resolve))
  }
  /** The next message; undefined: none came in so many milliseconds. */
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
