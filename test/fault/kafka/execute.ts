// Executes a run: carries out the plan, waits until everything is processed, and compares the result with the fold of the log.
import type { Figures } from "../harness/fault-run.ts"
import type { Fold } from "./fold.ts"
import { type Run, type RunOptions, withRun } from "./run.ts"
import { Steps } from "./steps.ts"
import { Hang } from "../harness/until.ts"

/** The result of a run. */
export interface Report extends Figures {
  readonly seed: number
  readonly events: number
  readonly duplicates: number
  readonly late: number
  readonly alerts: number
  readonly dead: number
  /** Records of aborted transactions, none of which may be processed. */
  readonly aborted: number
  readonly fenced: number
}

/** How many processes run besides those that steps start. */
const regular = (options: RunOptions) => ({ projections: 2, relay: options.projectionsOnly === true ? 0 : 2 })

const hold = async (run: Run, hang: string | undefined) => {
  const { brokers, url } = run.services
  run.say(
    `${hang ?? run.differences.toString()}\nkept running: MILLRACE_KAFKA_BROKERS=${brokers} MILLRACE_DATABASE_URL=${url}`
  )
  await new Promise((resolve) => process.once("SIGINT", resolve).once("SIGTERM", resolve))
}

/** Executes a run, then the scenarios `then`. */
export const execute = async (
  options: RunOptions,
  then: ReadonlyArray<(run: Run) => Promise<void>> = []
): Promise<Report> => {
  const began = performance.now()
  return withRun(options, async (run) => {
    let hang: string | undefined
    let fold: Fold | undefined
    try {
      const steps = new Steps(run, options.plan, regular(options))
      await steps.carryOut()
      run.say("the plan is carried out")
      await run.stopFeeding()
      const left = options.events - run.feeder.fed
      if (left > 0) await run.feeder.feed(left)
      await run.feeder.mark("end")
      run.say("everything is sent")
      await run.drain()
      run.say("everything is processed and relayed")
      await run.watch.look(run.services.sql, run.differences)
      // projections go on to announce their stream times: nothing is published once they have ended
      await run.fleet.stop("projections")
      await run.relayed("relaying of what was published at the end")
      await run.fleet.stop()
      run.say("all processes have ended")
      fold = await run.compare("end")
      run.say(`everything is compared: ${JSON.stringify(run.differences.counts)}`)
      for (const scenario of then) await scenario(run)
    } catch (error) {
      if (!(error instanceof Hang)) throw error
      hang = error.message
    }
    if (options.hold === true && (hang !== undefined || run.differences.total > 0)) await hold(run, hang)
    const { alerts = 0, dead = 0, duplicates = 0, events = 0, late = 0 } = fold?.totals ?? {}
    return {
      seed: options.seed,
      events,
      duplicates,
      late,
      alerts,
      dead,
      aborted: run.feeder.aborted,
      fenced: run.fleet.fenced,
      ...run.figures(began, hang)
    }
  })
}
