// Timers and sent commands of a policy: each job's command is executed once, and its timer fires once, or at most once if the job was cancelled.
import { setTimeout as sleep } from "node:timers/promises"
import { patiently } from "../harness/postgres.ts"
import { type Concern, type ConcernRun, eventsOf, noteExecuted, sendRepeatedly } from "./concern.ts"

/** Longest time after which a timer is due, in milliseconds. */
const longestMs = 1_500

/** Jobs whose timers fire. */
export const timers = (run: ConcernRun): Concern => {
  const cancelled = new Set<string>()
  const counted = async (aggregate: string, type: string) => {
    const counts = new Map<string, number>()
    for (const { key, value } of await eventsOf(run, aggregate))
      if ((JSON.parse(value) as { readonly type: string }).type === type) counts.set(key, (counts.get(key) ?? 0) + 1)
    return counts
  }
  return {
    hasWorkers: true,
    step: async (id, random) => {
      const job = id.replaceAll("/", "-")
      const place = { kind: "place", id, job, afterMs: random.int(0, longestMs) } as const
      noteExecuted(run, id, await sendRepeatedly(run, place, random))
      if (!random.chance(0.2)) return
      cancelled.add(job)
      await sleep(random.int(0, longestMs))
      const cancel = { kind: "cancel", id: `${id}/cancel`, job } as const
      noteExecuted(run, cancel.id, await sendRepeatedly(run, cancel, random))
    },
    compare: async () => {
      const { differences, services } = run
      const jobs = await counted("job", "job.placed")
      await run.until("every command and timer to be executed", async () => {
        const [waiting] = await patiently(
          async () => await services.sql<Array<{ n: number }>>`select count(*)::int8 as n from millrace.timer`
        )
        const [noted, rung] = [await counted("bell", "bell.noted"), await counted("bell", "bell.rung")]
        return (
          waiting!.n === 0 && [...jobs.keys()].every((job) => noted.has(job) && (rung.has(job) || cancelled.has(job)))
        )
      })
      for (const type of ["bell.noted", "bell.rung"])
        for (const [job, n] of await counted("bell", type)) {
          if (n > 1) differences.add("doubled", `${n} events ${type} of ${job}`)
          if (!jobs.has(job)) differences.add("wrong", `${type} of ${job}, which was not placed`)
        }
    }
  }
}
