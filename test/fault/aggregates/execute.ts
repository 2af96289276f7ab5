// Executes a run of the aggregates' harness, and reports what it found.
import type { Figures } from "../harness/fault-run.ts"
import { Hang } from "../harness/until.ts"
import { compare } from "./compare.ts"
import { type RunOptions, withRun } from "./run.ts"

/** The result of a run. */
export interface Report extends Figures {
  readonly seed: number
  readonly on: RunOptions["on"]
  readonly commands: number
  /** What the writers did in phases that are not about ledgers. */
  readonly steps: number
  /** Events that are stored. */
  readonly events: number
  /** How often each kind of answer was given. */
  readonly answers: Readonly<Record<string, number>>
}

/** Executes a run. Rejects if it cannot even start. */
export const execute = (options: RunOptions): Promise<Report> => {
  const began = performance.now()
  return withRun(options, async (run) => {
    let hang: string | undefined
    let events = 0
    try {
      await run.begin()
      for (const [i, phase] of options.phases.entries()) await run.phase(phase, i)
      await run.end()
      events = await compare(run)
    } catch (error) {
      // a mutant that does not even start proves nothing
      if (!(error instanceof Hang) || !run.begun) throw error
      hang = error.message
    }
    const {
      answers,
      options: { on, seed },
      steps,
      writers
    } = run
    const figures = run.figures(began, hang)
    const processes = figures.processes + writers.started
    return { seed, on, commands: answers.byId.size, steps, events, answers: answers.counts, ...figures, processes }
  })
}
