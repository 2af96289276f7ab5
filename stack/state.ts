// Reads and writes the state file of the services in the background, and tells whether their processes are alive.
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { lifeOf } from "../src/postgres/embedded/lock.ts"
import type { Endpoints, Local, Name } from "./service.ts"

/** A process, and its start time, which distinguishes it from a later process with the same id. */
export interface Life {
  readonly pid: number
  readonly life: string
}
/** A service in the state file and in `status`. */
export interface Entry {
  readonly name: Name
  readonly from: Local["from"]
  readonly endpoints: Endpoints
  /** Null if it was stopped, or is not a process of this machine. */
  readonly process: Life | null
  readonly startMs: number
}
/** `state.json`: the process that owns the services, the URL at which it takes requests, and its services. */
export interface State extends Life {
  readonly control: string
  readonly token: string
  readonly services: ReadonlyArray<Entry>
}

const fileOf = (root: string) => join(root, "state.json")

/** The state of a directory; undefined unless the process that wrote it is alive. */
export const read = (root: string): State | undefined => {
  const state = last(root)
  return state !== undefined && lives(state) ? state : undefined
}

const last = (root: string): State | undefined => {
  try {
    return JSON.parse(readFileSync(fileOf(root), "utf8")) as State
  } catch {
    return undefined
  }
}

/** Writes the state, whole or not at all. It contains the token of requests, so other accounts cannot read it. */
export const write = (root: string, state: State): void => {
  mkdirSync(root, { recursive: true })
  const fresh = `${fileOf(root)}.${process.pid}`
  writeFileSync(fresh, `${JSON.stringify(state, null, 2)}\n`, { mode: 0o600 })
  renameSync(fresh, fileOf(root))
}

/** The life of a process; null if no process has that id. */
export const lifeOfProcess = (pid: number | undefined): Life | null => {
  const life = pid === undefined ? undefined : lifeOf(pid)
  return pid === undefined || life === undefined ? null : { pid, life }
}

/** Whether this very process still lives. False if that cannot be determined, because what lives may be killed. */
export const lives = ({ life, pid }: Life): boolean => lifeOf(pid) === life

/** Removes what a dead owner left: kills services that are still stopping after two seconds, and deletes their files. */
export const clear = async (root: string): Promise<void> => {
  const left = (last(root)?.services ?? []).flatMap(({ process: one }) => (one === null ? [] : [one]))
  for (const one of left) {
    for (let waited = 0; lives(one); waited += 20) {
      if (waited === 2_000) process.kill(one.pid, "SIGKILL")
      await sleep(20)
    }
  }
  for (const name of ["kafka", "postgres", "pulsar", "state.json"]) {
    rmSync(join(root, name), { recursive: true, force: true, maxRetries: 5 })
  }
}
