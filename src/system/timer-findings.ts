// Adds to a status what is known of timers: commands that fail, and those that nothing executes. Pure: no I/O.
import type { FailingTimers, TimerStatus } from "../postgres/store/timer-status.ts"
import { dataFlag } from "./build-text.ts"
import type { Finding, Findings } from "./findings.ts"
import { durationText } from "../text/duration.ts"

/** The findings with those about timers. What is overdue without a failure waits for a process that runs projections. */
export const withTimers = (
  { notices, problems }: Findings,
  {
    embeddedDir,
    failing,
    maxAgeMs,
    timers
  }: {
    readonly timers: TimerStatus
    readonly failing: ReadonlyArray<FailingTimers>
    readonly maxAgeMs: number
    /** The state directory if the database is the embedded one. Advice names it. */
    readonly embeddedDir?: string | undefined
  }
): Findings => {
  const flag = dataFlag(embeddedDir)
  const failed = failing.map(({ aggregate, count, projection, reason, since_ms, timer_id }): Finding => {
    const [commands, are] = count === 1 ? ["command", "is"] : ["commands", "are"]
    return {
      kind: "trying_again",
      what: `timers of ${projection}`,
      message: `${count} ${commands} for ${aggregate} failed for ${durationText(since_ms)} and ${are} tried again, at least every 5 min: ${reason}`,
      try: `remove the cause, then millrace timers retry${flag} ${timer_id}; or give it up, so that it is never executed: millrace timers discard${flag} ${timer_id}`
    }
  })
  const isLate = timers.failing === 0 && (timers.oldest_ms ?? 0) > maxAgeMs
  const late: ReadonlyArray<Finding> = isLate
    ? [
        {
          kind: "behind",
          what: "timers",
          message: `${timers.due} ${timers.due === 1 ? "command is" : "commands are"} due, the oldest for ${durationText(timers.oldest_ms ?? 0)}`,
          try: "see that a process with the role projections runs: millrace start --roles projections; or wait, if one does"
        }
      ]
    : []
  return { notices, problems: [...problems, ...failed, ...late] }
}
