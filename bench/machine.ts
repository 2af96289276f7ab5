// What the machine does beside a benchmark, and which threads of a process use the processor. Linux only: it reads /proc; elsewhere nothing is known.
import { readdirSync, readFileSync } from "node:fs"
import { availableParallelism, loadavg } from "node:os"

const rounded = (value: number) => Math.round(value * 100) / 100

/** The kernel counts processor time in hundredths of a second. */
const ticksPerSecond = 100

/** The seconds that all processors of a machine were busy since its start: the first line of /proc/stat, without idling and waiting for disks. */
export const busySeconds = (stat: string): number => {
  const [, user, nice, system, , , irq, softirq, steal] = stat.split("\n", 1)[0]!.trim().split(/\s+/).map(Number)
  return (user! + nice! + system! + irq! + softirq! + steal!) / ticksPerSecond
}
/** The fields of /proc/PID/stat after the name, which may have spaces: `[0]` is the state. */
const fieldsOf = (stat: string) => stat.slice(stat.lastIndexOf(")") + 2).split(" ")
/** User and system time of a process or thread in seconds; `withEnded`: with that of its children that ended and were waited for. */
export const ownSeconds = (stat: string, withEnded: boolean): number =>
  fieldsOf(stat)
    .slice(11, withEnded ? 15 : 13)
    .reduce((sum, ticks) => sum + Number(ticks), 0) / ticksPerSecond

/** What a thread of node does, by the name that the kernel has of it. */
export const threadGroup = (name: string): string => {
  if (name === "MainThread" || name === "node" || name === "node-MainThread") return "main"
  // the collector and the compilers
  if (name.endsWith("V8Worker")) return "v8"
  if (name.endsWith("libuv-worker")) return "libuv"
  return "others"
}
/** Processor time by group of threads, in seconds: the threads of a process that run, each by its name and its /proc/PID/task/TID/stat. */
export const byThread = (
  threads: ReadonlyArray<{ readonly name: string; readonly stat: string }>
): Readonly<Record<string, number>> => {
  const seconds: Record<string, number> = {}
  for (const { name, stat } of threads) {
    const group = threadGroup(name)
    seconds[group] = (seconds[group] ?? 0) + ownSeconds(stat, false)
  }
  return seconds
}

/**
 * The seconds that the harness prints for the threads of an application, `process/name=seconds;…`, largest first, as a record: the threads of node by
 * `threadGroup`, others by their names. Those below a hundredth of all are left out.
 */
export const threadsOf = (text: string): Readonly<Record<string, number>> => {
  const seconds: Record<string, number> = {}
  for (const one of text === "" ? [] : text.split(";")) {
    const [, process, name, of] = /^(.*)\/(.*)=(.*)$/.exec(one) ?? []
    if (process === undefined || name === undefined) continue
    const group = threadGroup(name)
    const label = `${process} ${group === "others" ? name : group}`
    seconds[label] = (seconds[label] ?? 0) + Number(of)
  }
  const all = Object.values(seconds).reduce((sum, one) => sum + one, 0)
  return Object.fromEntries(
    Object.entries(seconds)
      .filter(([, one]) => one > 0 && one >= all / 100)
      .toSorted(([, a], [, b]) => b - a)
      .map(([label, one]) => [label, rounded(one)])
  )
}

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return undefined
  }
}
/** The processor time of this process by group of threads, in seconds; empty where there is no /proc. */
export const threadSeconds = (): Readonly<Record<string, number>> => {
  const folder = "/proc/self/task"
  if (read("/proc/self/stat") === undefined) return {}
  return byThread(
    readdirSync(folder).flatMap((id) => {
      const [name, stat] = [read(`${folder}/${id}/comm`), read(`${folder}/${id}/stat`)]
      return name === undefined || stat === undefined ? [] : [{ name: name.trim(), stat }]
    })
  )
}

/** The processor time of the machine and of this process with what it started, at a moment. */
export interface MachineSample {
  /** Milliseconds of `performance.now`. */
  readonly at: number
  /** Of the whole machine, in seconds. */
  readonly busy: number
  /** Of this process and of its children that ended, in seconds. */
  readonly own: number
  /** The load average of the last minute. */
  readonly load: number
}
/** Reads the counters; undefined where there is no /proc. */
export const sampleMachine = (): MachineSample | undefined => {
  const [machine, own] = [read("/proc/stat"), read("/proc/self/stat")]
  if (machine === undefined || own === undefined) return undefined
  const [load] = loadavg()
  return { at: performance.now(), busy: busySeconds(machine), own: ownSeconds(own, true), load: load! }
}

/** How busy the rest of the machine was. */
export interface Surroundings {
  readonly cores: number
  /** The load average of the minute before. */
  readonly loadBefore: number
  /** How many cores other programs used on average. */
  readonly coresOthers: number
  /** Why figures of this time are worth little; undefined if the machine was quiet. */
  readonly warning: string | undefined
}
/** The share of a machine that others may use, and the load before, for each core, up to which a machine counts as quiet. */
const quietShare = 0.03
const quietLoad = 0.5

/** Why figures are worth little that were measured while others used so many cores, after a minute of such a load; undefined if it was quiet. */
export const busyWarning = (
  coresOthers: number,
  loadBefore = 0,
  cores = availableParallelism()
): string | undefined => {
  const reasons = [
    ...(coresOthers > quietShare * cores
      ? [`other programs used ${rounded(coresOthers)} of ${cores} cores (${Math.round((coresOthers / cores) * 100)} %)`]
      : []),
    ...(loadBefore > quietLoad * cores ? [`the load was ${rounded(loadBefore)} in the minute before`] : [])
  ]
  return reasons.length === 0
    ? undefined
    : `the machine was not quiet: ${reasons.join(", and ")}. Compare only what ran in turn, by processor time`
}
/** Judges the time between two samples. Whatever this process started must have ended and been waited for before the second. */
export const surroundings = (
  before: MachineSample,
  after: Pick<MachineSample, "at" | "busy" | "own">,
  cores = availableParallelism()
): Surroundings => {
  const seconds = Math.max(0.001, (after.at - before.at) / 1_000)
  const coresOthers = Math.max(0, rounded((after.busy - before.busy - (after.own - before.own)) / seconds))
  const warning = busyWarning(coresOthers, before.load, cores)
  return { cores, loadBefore: rounded(before.load), coresOthers, warning }
}
