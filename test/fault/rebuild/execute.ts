// Executes a run of the rebuild harness, and reports what it found.
import type { Figures } from "../harness/fault-run.ts"
import { Hang } from "../harness/until.ts"
import { shuffled } from "../harness/schedule.ts"
import { randomOf } from "../../support/random.ts"
import { compare } from "./compare.ts"
import { type Point, points } from "./points.ts"
import { type RunOptions, withRun } from "./run.ts"

/** The result of a run. */
export interface Report extends Figures {
  readonly seed: number
  readonly events: number
  readonly cycles: number
}

/** Cycles that are killed at points: at each once, in an order from the seed, or at `count` of them, one of each command first. */
export const planOf = (seed: number, count?: number): ReadonlyArray<Point> => {
  const mixed = shuffled(points, randomOf(seed))
  if (count === undefined) return mixed
  const first = (["promote", "rebuild", "retire"] as const).map((command) =>
    mixed.find((one) => one.command === command)!
  )
  return [...first, ...mixed.filter((one) => !first.includes(one))].slice(0, count)
}

export const execute = (options: RunOptions): Promise<Report> => {
  const began = performance.now()
  return withRun(options, async (run) => {
    let hang: string | undefined
    let cycles = 0
    try {
      await run.begin()
      for (const point of options.plan) {
        await run.cycle(point)
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
