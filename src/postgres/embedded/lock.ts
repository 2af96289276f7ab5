// The lock of a state directory: each process that wants it writes a small file, named after the process.
//
// The name holds the process's id and start time, so it is never used again and any process may remove the file of a dead one:
// neither kill -9 nor a reused id leaves a lock behind. A process writes its file before it looks for others, so that of two
// processes at least one sees the other.
import { execFileSync } from "node:child_process"
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { inState, makeDirectory, type OpenDirectory } from "./files.ts"

/** `own` is held while an application runs, `use` by a short command that found no server running. */
export type LockKind = "own" | "use"
/** The process that holds the lock of a directory. */
export interface LockHolder {
  /** The name of its file. */
  readonly name: string
  readonly kind: LockKind
  readonly pid: number
}

const read = (file: string): string | undefined => {
  try {
    return readFileSync(file, "utf8")
  } catch {
    return undefined
  }
}
const exists = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"
  }
}
const boot = (read("/proc/sys/kernel/random/boot_id") ?? "").slice(0, 8)
const unknown = "unknown"

/** A word that differs for every process that ever has this id, made of its start time. Undefined if no such process runs. */
export const lifeOf = (pid: number): string | undefined => {
  if (!exists(pid)) return undefined
  if (process.platform === "linux") {
    const stat = read(`/proc/${pid}/stat`)
    if (stat === undefined) return exists(pid) ? unknown : undefined
    // The name, in parentheses, may hold spaces; the state follows it, the start time is nineteen further.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    return fields[0] === "Z" || fields[0] === "X" ? undefined : boot + fields[19]
  }
  try {
    return execFileSync("ps", ["-o", "lstart=", "-p", String(pid)], { encoding: "utf8" }).replaceAll(/\W/g, "")
  } catch {
    return undefined
  }
}

/** Whether the process of this id is the one that had this life (see `lifeOf`). True if that cannot be determined. */
export const isAlive = (pid: number, life: string): boolean => {
  const now = lifeOf(pid)
  return now !== undefined && (now === life || now === unknown)
}
const inLock = <A>(state: string, use: (directory: OpenDirectory) => A): A => inState(state, ["lock"], use)
/** The name of this process's lock file. */
export const entryOf = (kind: LockKind) => `${kind}-${process.pid}-${lifeOf(process.pid)}`

/** The process that holds the lock by a file other than `except`; undefined if none does. Removes the files of dead processes. */
export const holderOf = (state: string, except?: string): LockHolder | undefined =>
  inLock(state, ({ at }) => {
    for (const name of readdirSync(at)) {
      const match = /^(own|use)-(\d+)-(\w+)$/.exec(name)
      if (match === null || name === except) continue
      const [, kind, pid, life] = match
      if (isAlive(Number(pid), life ?? "")) return { name, kind: kind as LockKind, pid: Number(pid) }
      rmSync(join(at, name), { force: true })
    }
    return undefined
  })

/**
 * Takes the lock for this process, or returns the process that holds it. Two processes that try at the same moment may both be
 * refused, so try again before giving up.
 */
export const tryAcquire = (state: string, kind: LockKind): LockHolder | undefined => {
  // root's goes to the owner of the state directory, who may run the server later
  inState(state, [], (directory) =>
    makeDirectory(directory, "lock", process.getuid?.() === 0 && directory.uid > 0 ? directory : undefined, 0o755)
  )
  const held = holderOf(state)
  if (held !== undefined) return held
  const name = entryOf(kind)
  inLock(state, ({ at }) => writeFileSync(join(at, name), "", { flag: "wx" }))
  const rival = holderOf(state, name)
  if (rival !== undefined) release(state, kind)
  return rival
}

/** Releases this process's lock. */
export const release = (state: string, kind: LockKind): void => {
  inLock(state, ({ at }) => rmSync(join(at, entryOf(kind)), { force: true }))
}
