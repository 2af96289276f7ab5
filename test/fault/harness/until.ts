// Waits for something to happen, and reports the state of the run if it does not.
import { setTimeout as sleep } from "node:timers/promises"
import type { Fleet } from "./fleet.ts"

/** Something did not happen in time, or a process ended by itself. */
export class Hang extends Error {
  override readonly name = "Hang"
}
/** Throws a `Hang` if a process ended that was neither told to nor killed. */
export const assertAlive = ({ fell: [first] }: Fleet): void => {
  if (first !== undefined)
    throw new Hang(`${first.role} ${first.pid} ended by itself with ${first.exit}:\n${first.output}`)
}
/** What waiting needs of a run. */
export interface Waiting {
  readonly patienceMs: number
  /** If one of its processes ends by itself the wait fails. */
  readonly fleet: Fleet
  /** Throws if something failed elsewhere in the run. */
  readonly assertSound: () => void
  /** Lines that describe the state of the run. */
  readonly describe: () => Promise<ReadonlyArray<string>>
}

/** Asks until the answer is true. If asking fails, as when a server is down, it asks again. Throws a `Hang` after `patienceMs`. */
export const until = async (what: string, ask: () => boolean | Promise<boolean>, waiting: Waiting): Promise<void> => {
  const { assertSound, fleet, patienceMs } = waiting
  let waited = 0
  for (let before = performance.now(); ;) {
    let wrong: unknown
    try {
      if (await ask()) return
    } catch (error) {
      wrong = error
    }
    assertSound()
    // time in which the machine, and this process with it, was suspended does not count
    const now = performance.now()
    waited += Math.min(now - before, 2_000)
    before = now
    if (waited > patienceMs || fleet.fell.length > 0) {
      const workers = [...fleet.fell, ...fleet.workers].map(
        ({ exit, output, pid, role, stopped }) =>
          `-- ${role} ${pid}${stopped ? " (stopped)" : ""} ${exit ?? ""}\n${output.slice(-1_500)}`
      )
      const reason = wrong === undefined ? "" : `: ${String(wrong)}`
      throw new Hang([`did not happen in time: ${what}${reason}`, ...(await waiting.describe()), ...workers].join("\n"))
    }
    await sleep(25)
  }
}
