// Executes a run: carries out the plan, waits until everything is relayed and handled, and compares the result with what was published.
import type { Figures } from "../harness/fault-run.ts"
import { Hang } from "../harness/until.ts"
import { compare } from "./compare.ts"
import { type RunOptions, withRun } from "./run.ts"
import { Steps } from "./steps.ts"

/** The result of a run. */
export interface Report extends Figures {
  readonly seed: number
  /** Messages that were in batches of several. */
  readonly batched: number
  readonly messages: number
  /** Processes that were killed by SIGKILL. */
  readonly kills: number
}

/** Executes a run. */
export const execute = async (options: RunOptions): Promise<Report> => {
  const began = performance.now()
  return withRun(options, async (run) => {
    let hang: string | undefined
    try {
      run.say("services run")
      await new Steps(run, options.plan).carryOut()
      run.say("the plan is carried out")
      await run.stopFeeding()
      await run.relayed("relaying of everything that was published")
      await run.handledAll("handling of everything that was published")
      run.say("everything is handled")
      await run.fleet.stop()
    } catch (error) {
      if (!(error instanceof Hang)) throw error
      hang = error.message
      await run.stopFeeding()
      await run.fleet.kill()
    }
    // after a hang messages are missing, but those that are there twice are wrong all the same
    await compare(run)
    run.say(`everything is compared: ${JSON.stringify(run.differences.counts)}`)
    return {
      seed: options.seed,
      batched: run.batched,
      messages: run.feeder.fed.length,
      kills: Object.entries(run.faults).reduce((sum, [name, n]) => sum + (/^\w+ killed/.test(name) ? n : 0), 0),
      ...run.figures(began, hang)
    }
  })
}
