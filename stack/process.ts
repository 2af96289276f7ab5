// One process of a service: started, watched, stopped by its own id. It knows nothing of what runs in it.
import { spawn } from "node:child_process"
import { closeSync, openSync, readSync, statSync } from "node:fs"
import { once } from "node:events"
import { setTimeout as sleep } from "node:timers/promises"
import { lifeOf } from "../src/postgres/embedded/lock.ts"

/** A process that runs, or ran. */
export interface Running {
  readonly pid: number
  /** False once it has ended. */
  readonly alive: () => boolean
  /** Settles when it has ended, however that came. */
  readonly exited: Promise<void>
  /** Sends a signal and waits for the end; after `patienceMs` it is SIGKILL. */
  readonly end: (signal: NodeJS.Signals, patienceMs?: number) => Promise<void>
}
/** What is started: its output goes to the end of `log`. */
export interface Program {
  readonly command: ReadonlyArray<string>
  readonly directory: string
  readonly log: string
}

// The shell becomes the program. Its watchdog, forked twice and so no child of the program's, waits on a pipe that ends with the
// owner, by whatever means that dies; a line on the pipe sends the watchdog home.
const watched = `exec 3<&0 </dev/null
(exec >/dev/null 2>&1; { read -r _ <&3 || kill -KILL $$; } &)
exec "$@" 3<&-`

/** Starts a program in a session of its own. It is killed when this process ends, even by kill -9. */
export const run = async ({ command, directory, log }: Program): Promise<Running> => {
  const output = openSync(log, "a", 0o600)
  const child = spawn("/bin/sh", ["-c", watched, "sh", ...command], {
    cwd: directory,
    env: { PATH: process.env["PATH"] ?? "/usr/bin:/bin", LC_ALL: "C.UTF-8", HOME: directory },
    detached: true,
    stdio: ["pipe", output, output]
  })
  closeSync(output)
  child.stdin?.on("error", () => undefined)
  await once(child, "spawn")
  const pid = child.pid as number
  let running = true
  const exited = new Promise<void>((resolve) => {
    const ended = () => {
      running = false
      child.stdin?.end("\n")
      resolve()
    }
    child.once("exit", ended)
    if (child.exitCode !== null || child.signalCode !== null) ended()
  })
  const end = async (signal: NodeJS.Signals, patienceMs = 20_000) => {
    if (!running) return
    process.kill(pid, signal)
    await Promise.race([exited, sleep(patienceMs, undefined, { ref: false })])
    if (running) process.kill(pid, "SIGKILL")
    await exited
  }
  return { pid, alive: () => running, exited, end }
}

/** The last lines of a log, from where it was `from` bytes long. */
export const tail = (log: string, from: number, lines = 12): string => {
  const size = statSync(log, { throwIfNoEntry: false })?.size ?? 0
  const buffer = Buffer.alloc(Math.min(Math.max(0, size - from), 20_000))
  if (buffer.length === 0) return "it said nothing"
  const file = openSync(log, "r")
  readSync(file, buffer, 0, buffer.length, size - buffer.length)
  closeSync(file)
  return buffer.toString().trim().split("\n").slice(-lines).join("\n")
}

/** How long a file is; 0: there is none. */
export const sizeOf = (file: string): number => statSync(file, { throwIfNoEntry: false })?.size ?? 0

/** Whether the process of this id is still the one that had this life (see `lifeOf`). */
export const isAlive = (pid: number, life: string): boolean => lifeOf(pid) === life
