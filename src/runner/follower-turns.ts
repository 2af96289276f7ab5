// Spreads what builds that follow do over turns of the event loop and few connections, so that live partitions of the process wait for little of it.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"

/**
 * How many commits of builds that follow a process has in flight. A process has few connections, each with one statement at a time, and these
 * commits are large: more of them would leave none for live commits. One is computed while another is under way, so more would not be faster.
 */
const commitsAtOnce = 2

/** A batch that waits for its turn. Batches that began earlier have lower numbers. */
interface WaitingBatch {
  readonly number: number
  readonly resume: () => void
}

/**
 * Gives one batch at a time a turn of the event loop. Other work that is ready, such as replies of the database, runs between two turns. The oldest
 * batch that waits goes first, so that batches end one after another and their commits do not all come at once. A batch that waits for something else
 * holds up no other one.
 */
export class FollowerTurns {
  private readonly waiting: Array<WaitingBatch> = []
  private readonly commits = Semaphore.makeUnsafe(commitsAtOnce)
  private isScheduled = false
  private batches = 0

  /** For a batch that begins now: what waits for its next turn, as often as it is run. */
  ofBatch(): Effect.Effect<void> {
    const number = ++this.batches
    return Effect.callback((resume) => {
      const waiting: WaitingBatch = { number, resume: () => resume(Effect.void) }
      this.waiting.push(waiting)
      this.schedule()
      return Effect.sync(() => {
        const at = this.waiting.indexOf(waiting)
        if (at >= 0) this.waiting.splice(at, 1)
      })
    })
  }

  /** Runs a commit when fewer than `commitsAtOnce` others are under way. */
  commit<A, E, R>(commit: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return this.commits.withPermits(1)(commit)
  }

  private schedule(): void {
    if (this.isScheduled || this.waiting.length === 0) return
    this.isScheduled = true
    setImmediate(() => {
      this.isScheduled = false
      const oldest = this.waiting.reduce(
        (found, { number }, at) => (number < this.waiting[found]!.number ? at : found),
        0
      )
      const [next] = this.waiting.splice(oldest, 1)
      this.schedule()
      next?.resume()
    })
  }
}

/** The turns that all builds of this process share. */
export const CurrentFollowerTurns = Context.Reference<FollowerTurns>("millrace/FollowerTurns", {
  defaultValue: () => new FollowerTurns()
})
