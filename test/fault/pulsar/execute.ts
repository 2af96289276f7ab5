// One run from beginning to end: the plan's faults, then what everything has come to, compared with what was published.
import type { Figures } from "../harness/fault-run.ts"
import { Hang } from "../harness/until.ts"
import { compare } from "./compare.ts"
import { type RunOptions, withRun } from "./run.ts"
import { Steps } from "./steps.ts"

/** What became of a run. */
export interface Report extends Figures {
  readonly seed: number
  /** Messages that came in batches of several. */
  readonly batched: number
  readonly messages: number
  /** Processes that were ended by SIGKILL. */
  readonly kills: number
}

/** Runs the plan from beginning to end. */
export const execute = async (options: RunOptions): Promise<Report> => {
  const began = performance.now()
  return withRun(options, async (run) => {
    let hang: string | undefined
    try {
      run.say("services run")
      await new Steps(run, options.plan).carryOut()
      run.say("the plan is done")
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
    // what hangs is not lost; what is there twice is, hang or not
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
