// Executes a run of the rebuild harness, and reports what it found.
import type { Figures } from "../harness/fault-run.ts"
import { Hang } from "../harness/until.ts"
import { compare } from "./compare.ts"
import { type RunOptions, withRun } from "./run.ts"

/** The result of a run. */
export interface Report extends Figures {
  readonly seed: number
  readonly events: number
  readonly cycles: number
}

/** Executes a run. Rejects if it cannot even start. */
export const execute = (options: RunOptions): Promise<Report> => {
  const began = performance.now()
  return withRun(options, async (run) => {
    let hang: string | undefined
    let cycles = 0
    try {
      await run.begin()
      for (const disturbance of options.plan) {
        await run.cycle(disturbance)
        cycles++
      }
      await run.finish()
      await compare(run)
    } catch (error) {
      // a mutant that does not even start proves nothing
      if (!(error instanceof Hang) || !run.begun) throw error
      hang = error.message
    }
    return { seed: options.seed, events: run.sent.length, cycles, ...run.figures(began, hang) }
  })
}
