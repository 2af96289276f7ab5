// Identifies the process behind a group member, and tells whether it is certainly dead. Cannot tell for processes on other machines.
import { readFileSync } from "node:fs"
import { hostname } from "node:os"

/** A process: its machine's host name, its number there, and when it started, in epoch milliseconds. */
export interface ProcessIdentity {
  readonly host: string
  readonly pid: number
  readonly since: number
}
/** This process. */
export const ownProcess: ProcessIdentity = {
  host: hostname(),
  pid: process.pid,
  since: Math.round(performance.timeOrigin)
}

/** Whether a process is a zombie: it has ended, but still accepts signals until its parent asks for its exit code. Linux only. */
const isDefunct = (pid: number): boolean => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1")
    // the state follows the name, which may contain anything, parentheses too
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
    // another error means that the process exists and is another user's
    return (error as NodeJS.ErrnoException).code !== "ESRCH"
  }
}

/**
 * Whether a process of this machine has certainly ended. False if that is not known: it runs on another machine, or another process has its
 * number by now. Two containers with the same host name may consider each other's processes dead; a member removed for that joins again.
 */
export const hasEnded = ({ host, pid, since }: ProcessIdentity): boolean =>
  host === ownProcess.host && (pid === ownProcess.pid ? since !== ownProcess.since : !isAlive(pid))
