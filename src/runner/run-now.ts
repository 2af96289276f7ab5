// Runs an Effect to its end before anything else runs, with all fibers that it starts.
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Scheduler from "effect/Scheduler"

/** A scheduler whose fibers share their tasks. `Effect.runSync` runs those of its first fiber only. */
class SharedScheduler extends Scheduler.MixedScheduler {
  readonly tasks = super.makeDispatcher()
  constructor() {
    super("sync")
  }
  override makeDispatcher() {
    return this.tasks
  }
}
/** How an Effect ended; undefined if it waits for something that is not there yet, such as an answer or a timer. */
export const runNow = <A, E>(effect: Effect.Effect<A, E>): Exit.Exit<A, E> | undefined => {
  const scheduler = new SharedScheduler()
  const fiber = Effect.runFork(effect, { scheduler })
  scheduler.tasks.flush()
  return fiber.pollUnsafe()
}
