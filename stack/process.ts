// One process of a service: started, watched and stopped by its own id.
import { setTimeout as sleep } from "node:timers/promises"
import { type Child, logEnd, startChild } from "../src/postgres/embedded/process.ts"

export { sizeOf } from "../src/postgres/embedded/process.ts"

/** A process that was started. */
export interface Running {
  readonly pid: number
  /** False once the process has exited. */
  readonly alive: Child["isRunning"]
  /** Resolves when it has ended, for whatever reason. */
  readonly exited: Promise<void>
  /** Sends a signal and waits for the end; after `patienceMs` it sends SIGKILL. */
  readonly end: (signal: NodeJS.Signals, patienceMs?: number) => Promise<void>
}
/** What to start: its output is appended to `log`. */
export interface Program {
  readonly command: ReadonlyArray<string>
  readonly directory: string
  readonly log: string
}

/** Starts a program in a session of its own. It is killed when this process dies, even by kill -9. */
export const run = async ({ command, directory, log }: Program): Promise<Running> => {
  const env = { PATH: process.env["PATH"] ?? "/usr/bin:/bin", LC_ALL: "C.UTF-8", HOME: directory }
  const { exited, isRunning, pid } = await startChild({ command, log, spawn: { cwd: directory, env }, signal: "KILL" })
  const end = async (signal: NodeJS.Signals, patienceMs = 20_000) => {
    if (!isRunning()) return
    process.kill(pid, signal)
    await Promise.race([exited, sleep(patienceMs, undefined, { ref: false })])
    if (isRunning()) process.kill(pid, "SIGKILL")
    await exited
  }
  return { pid, alive: isRunning, exited, end }
}

/** The last lines of a log, and nothing of what it held when it was `from` bytes long. */
export const tail = (log: string, from: number, lines = 12): string => {
  const text = logEnd(log, from)
  return text === "" ? "it printed nothing" : text.trim().split("\n").slice(-lines).join("\n")
}
