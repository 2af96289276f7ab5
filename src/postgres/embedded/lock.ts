// Who owns a state directory: one small file for each contender, named after its process. It starts and stops nothing.
//
// A file's name holds the process's id and start time, so a dead process's name never comes again and anyone may remove it;
// kill -9 and a reused id leave no lock behind. Contenders write first and look second: of two, at least one sees the other.
import { execFileSync } from "node:child_process"
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"

/** `own` is held for the life of an application, `use` by a short command that found no server running. */
export type Kind = "own" | "use"
/** The process that has a directory. */
export interface Holder {
  readonly name: string
  readonly kind: Kind
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

/** When a process began, as a word that differs for every process that ever has this id. Undefined: there is none. */
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

/** Whether the process of this id is the one that had this life (see `lifeOf`). True where that cannot be told. */
export const isAlive = (pid: number, life: string): boolean => {
  const now = lifeOf(pid)
  return now !== undefined && (now === life || now === unknown)
}
const directory = (state: string) => join(state, "lock")
/** The name of this process's entry, which tells its holding from any other. */
export const entryOf = (kind: Kind) => `${kind}-${process.pid}-${lifeOf(process.pid)}`

/** The process that has the directory, other than by the entry `except`. Removes what dead processes left. */
export const holderOf = (state: string, except?: string): Holder | undefined => {
  for (const name of readdirSync(directory(state))) {
    const match = /^(own|use)-(\d+)-(\w+)$/.exec(name)
    if (match === null || name === except) continue
    const [, kind, pid, life] = match
    if (isAlive(Number(pid), life ?? "")) return { name, kind: kind as Kind, pid: Number(pid) }
    rmSync(join(directory(state), name), { force: true })
  }
  return undefined
}

/**
 * Takes the directory for this process, or says who has it. Two that try at the same moment may both be refused, so a refusal
 * is final only when it is seen twice.
 */
export const tryAcquire = (state: string, kind: Kind): Holder | undefined => {
  mkdirSync(directory(state), { recursive: true })
  const held = holderOf(state)
  if (held !== undefined) return held
  const name = entryOf(kind)
  writeFileSync(join(directory(state), name), "", { flag: "wx" })
  const rival = holderOf(state, name)
  if (rival !== undefined) release(state, kind)
  return rival
}

/** Gives the directory back. */
export const release = (state: string, kind: Kind): void => {
  rmSync(join(directory(state), entryOf(kind)), { force: true })
}
