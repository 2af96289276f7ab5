// Waiting for what is to come about, with what there is to see where it does not.
import { setTimeout as sleep } from "node:timers/promises"
import type { Fleet } from "./fleet.ts"

/** Something did not come about in time. */
export class Hang extends Error {
  override readonly name = "Hang"
}
/** Nothing ends by itself, whatever happens around it. Throws a `Hang` where something did. */
export const assertAlive = ({ fell: [first] }: Fleet): void => {
  if (first !== undefined)
    throw new Hang(`${first.role} ${first.pid} ended by itself with ${first.exit}:\n${first.output}`)
}
/** Who waits. */
export interface Waiting {
  readonly patienceMs: number
  /** None of its processes may end by itself meanwhile. */
  readonly fleet: Fleet
  /** Throws what failed elsewhere. */
  readonly assertSound: () => void
  /** Lines that tell where everything is. */
  readonly describe: () => Promise<ReadonlyArray<string>>
}

/** Asks until it is so. Questions that fail, as to a server that is away, are asked again. */
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
    // a machine that stood still, and this process with it, is no patience spent
    const now = performance.now()
    waited += Math.min(now - before, 2_000)
    before = now
    if (waited > patienceMs || fleet.fell.length > 0) {
      const workers = [...fleet.fell, ...fleet.workers].map(
        ({ exit, output, pid, role, stopped }) =>
          `-- ${role} ${pid}${stopped ? " (stopped)" : ""} ${exit ?? ""}\n${output.slice(-1_500)}`
      )
      const reason = wrong === undefined ? "" : `: ${String(wrong)}`
      throw new Hang([`no ${what}${reason}`, ...(await waiting.describe()), ...workers].join("\n"))
    }
    await sleep(25)
  }
}
