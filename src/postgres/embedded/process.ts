// A child process in a session of its own that ends with the process that started it, and its log.
import { spawn, type SpawnOptions } from "node:child_process"
import { closeSync, openSync, readSync, statSync } from "node:fs"
import { once } from "node:events"

/** A child process that runs, or ran. */
export interface Child {
  readonly pid: number
  /** False once it has ended. */
  readonly isRunning: () => boolean
  /** Resolves when it has ended, for whatever reason. */
  readonly exited: Promise<void>
  /** From now on the child is not signalled when this process ends. */
  readonly unwatch: () => void
}
/** What to start. */
export interface ChildProgram {
  readonly command: ReadonlyArray<string>
  /** A command, with its arguments, that starts the program with other rights. */
  readonly prefix?: ReadonlyArray<string>
  /** The file that the output is appended to: its path, or the descriptor of one that is open, which is closed here. */
  readonly log: string | number
  readonly spawn: Pick<SpawnOptions, "cwd" | "env" | "uid" | "gid">
  /** The signal that the child gets when this process ends. */
  readonly signal: "INT" | "KILL"
}

// The shell becomes the program. Its watchdog is forked twice, so it is no child of the program's. It reads a pipe that closes when
// this process ends, even by kill -9, and then signals the program; a line on the pipe makes the watchdog exit.
const watched = (signal: ChildProgram["signal"]) => `exec 3<&0 </dev/null
(exec >/dev/null 2>&1; { read -r _ <&3 || kill -${signal} $$; } &)
exec "$@" 3<&-`

/** Starts a program in a session of its own, so that Ctrl-C in a terminal does not reach it. Rejects if it cannot be spawned. */
export const startChild = async ({ command, log, prefix = [], signal, spawn: how }: ChildProgram): Promise<Child> => {
  const [program = "", ...args] = [...prefix, "/bin/sh", "-c", watched(signal), "sh", ...command]
  const output = typeof log === "number" ? log : openSync(log, "a", 0o600)
  const child = spawn(program, args, { ...how, detached: true, stdio: ["pipe", output, output] })
  closeSync(output)
  child.stdin?.on("error", () => undefined)
  await once(child, "spawn")
  let running = true
  const unwatch = () => void child.stdin?.end("\n")
  const exited = new Promise<void>((resolve) => {
    const ended = () => {
      running = false
      unwatch()
      resolve()
    }
    child.once("exit", ended)
    if (child.exitCode !== null || child.signalCode !== null) ended()
  })
  return { pid: child.pid as number, isRunning: () => running, exited, unwatch }
}

/** The size of a file in bytes; 0 if it does not exist. */
export const sizeOf = (file: string): number => statSync(file, { throwIfNoEntry: false })?.size ?? 0

/** The end of a log, at most 20,000 bytes of it, and nothing of what it held when it was `from` bytes long. */
export const logEnd = (log: string, from: number): string => {
  const size = sizeOf(log)
  const buffer = Buffer.alloc(Math.min(Math.max(0, size - from), 20_000))
  if (buffer.length === 0) return ""
  const file = openSync(log, "r")
  readSync(file, buffer, 0, buffer.length, size - buffer.length)
  closeSync(file)
  return buffer.toString()
}
