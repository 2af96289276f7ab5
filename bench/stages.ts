// Where the time of an alert goes between its event's due time and the query that sees its row: the moments that the benchmark and the process of
// Millrace (`stage-recorder.ts`) noted, joined by the event's id.
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { percentile } from "./percentile.ts"

/** The flag of node that makes a process note its stages. */
export const recording = `--import=${join(import.meta.dirname, "stage-recorder.ts")}`

/** What each stage ends with, in order; the first begins when the event is due. */
export const stageNames = ["stored", "fetched", "decoded", "taken", "handled", "committed", "visible"] as const
export type StageName = (typeof stageNames)[number]
/** Milliseconds of a stage. */
export interface StageTimes {
  readonly p50: number
  readonly p95: number
  readonly p99: number
  /** The mean among the slowest twentieth of all alerts, counted by their whole time. */
  readonly slowest: number
}
/** All stages, and the whole time; `alerts` of which all moments are known. */
export type Stages = Readonly<Record<StageName | "whole", StageTimes>> & { readonly alerts: number }

/** When an alert's event was due and its row was seen, in epoch milliseconds. */
export interface SeenAlert {
  readonly due: number
  readonly seen: number
}

const round = (value: number) => Math.round(value * 10) / 10
const mean = (values: ReadonlyArray<number>) => values.reduce((sum, value) => sum + value, 0) / values.length

/**
 * The stages of alerts. `recorded`: the lines of the recorder. A moment is never before the one of the stage before: the log's clock has
 * milliseconds only, and a query may see a row before the process has the answer to its commit.
 */
export const stagesOf = (alerts: ReadonlyMap<string, SeenAlert>, recorded: string): Stages => {
  const rows: Array<ReadonlyArray<number>> = []
  for (const line of recorded.split("\n")) {
    const [id = "", ...moments] = line.split(" ")
    const alert = alerts.get(id)
    if (alert === undefined || moments.length !== stageNames.length - 1) continue
    let last = alert.due
    const spans = [...moments.map(Number), alert.seen].map((moment) => {
      const until = Math.min(alert.seen, Math.max(last, moment))
      const span = until - last
      last = until
      return span
    })
    rows.push([...spans, alert.seen - alert.due])
  }
  const byWhole = rows.toSorted((a, b) => b.at(-1)! - a.at(-1)!)
  const slow = byWhole.slice(0, Math.ceil(rows.length / 20))
  const timesOf = (at: number): StageTimes => {
    const sorted = rows.map((row) => row[at]!).toSorted((a, b) => a - b)
    return {
      p50: percentile(sorted, 0.5),
      p95: percentile(sorted, 0.95),
      p99: percentile(sorted, 0.99),
      slowest: slow.length === 0 ? 0 : round(mean(slow.map((row) => row[at]!)))
    }
  }
  const named = [...stageNames, "whole"].map((name, at) => [name, timesOf(at)] as const)
  return { ...(Object.fromEntries(named) as Readonly<Record<StageName | "whole", StageTimes>>), alerts: rows.length }
}

/** Reads the lines `id due seen` of the harness. */
export const seenAlerts = (text: string): ReadonlyMap<string, SeenAlert> =>
  new Map(
    text
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => {
        const [id = "", due, seen] = line.split(" ")
        return [id, { due: Number(due), seen: Number(seen) }] as const
      })
  )
/** The text of a file, or nothing if there is none. */
export const textOf = (file: string): string => {
  try {
    return readFileSync(file, "utf8")
  } catch {
    return ""
  }
}
