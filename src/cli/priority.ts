// The priority of a process among others of its machine.
import { existsSync, readdirSync } from "node:fs"
import { constants, getPriority, setPriority } from "node:os"
import * as Effect from "effect/Effect"

const below = constants.priority.PRIORITY_BELOW_NORMAL
/** Linux has a priority for each thread, elsewhere it is the process. */
const threads = "/proc/self/task"

/** Lowers it for a process or a thread; 0 is the calling one. */
const lower = (id: number) => {
  try {
    if (getPriority(id) < below) setPriority(id, below)
  } catch {
    // a thread that has ended meanwhile, or no right
  }
}

/**
 * Lets other processes of this machine have the processors first, as `nice` does: on Linux and macOS it is the niceness 10, on Windows "below normal".
 * It holds for all threads that exist, among them those of the collector, and for those that they make. Nothing changes while processors are free.
 * Without the right to change it the priority stays as it is.
 */
export const atLowerPriority: Effect.Effect<void> = Effect.sync(() => {
  lower(0)
  if (existsSync(threads)) for (const id of readdirSync(threads)) lower(Number(id))
})
