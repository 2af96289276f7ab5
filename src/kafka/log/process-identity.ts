// Which process a member of a group is of, and whether that has certainly ended. Of processes on other machines it knows nothing.
import { readFileSync } from "node:fs"
import { hostname } from "node:os"

/** A process: where it runs, its number there, and when it began, in epoch milliseconds. */
export interface Life {
  readonly host: string
  readonly pid: number
  readonly since: number
}
/** This process. */
export const ownLife: Life = { host: hostname(), pid: process.pid, since: Math.round(performance.timeOrigin) }

/** Whether a process has ended that its parent has not asked about yet: as long as that one does not, signals reach it. Linux tells. */
const isDefunct = (pid: number): boolean => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1")
    // the name before it may hold anything, parentheses too
    return stat.slice(stat.lastIndexOf(")") + 2).startsWith("Z")
  } catch {
    return false
  }
}
const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return !isDefunct(pid)
  } catch (error) {
    // it may be another user's, whom no signal reaches
    return (error as NodeJS.ErrnoException).code !== "ESRCH"
  }
}

/**
 * Whether a process of this machine has ended. False where that is not known: it runs elsewhere, or another has its number by now. Two
 * containers that share a host's name may take each other for ended; whoever is taken for that joins again.
 */
export const hasEnded = ({ host, pid, since }: Life): boolean =>
  host === ownLife.host && (pid === ownLife.pid ? since !== ownLife.since : !isAlive(pid))
