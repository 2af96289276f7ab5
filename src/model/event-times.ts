// Which times an event may have: what the store can hold, and how far ahead of the clock the readers of its topic allow. Pure.
import type { Projection } from "./projection.ts"

/** The first time that an event may have, in epoch milliseconds: PostgreSQL's timestamptz begins in 4714 BC. */
export const firstTime = -210_866_803_200_000
/** The last one: JavaScript's dates end in the year 275760. */
export const lastTime = 8.64e15
/** How far in the future an event may be dated if no projection reads its topic. Milliseconds. */
export const defaultMaxAheadMs = 3_600_000

/** Why an event cannot have a time. */
export interface TimeProblem {
  readonly code: "event_time_out_of_range" | "event_time_ahead"
  /** What follows "the event …" or the like. */
  readonly reason: string
}
/** What is wrong with an event's time; undefined if nothing. Times are epoch milliseconds. */
export const timeProblem = (
  time: number,
  now: number | undefined,
  maxAheadMs = defaultMaxAheadMs
): TimeProblem | undefined => {
  if (!(time >= firstTime && time <= lastTime))
    return { code: "event_time_out_of_range", reason: "which is not between the years 4713 BC and 275760" }
  if (now === undefined || time <= now + maxAheadMs) return undefined
  const seconds = (ms: number) => `${Math.round(ms / 1000)} s`
  const reason = `${seconds(time - now)} ahead of this server's clock; the limit is ${seconds(maxAheadMs)}`
  return { code: "event_time_ahead", reason }
}
/** How far in the future the events of a topic may be dated: the least `maxAhead` of the projections that read it; undefined if none does. */
export const maxAheadOf = (projections: ReadonlyArray<Projection.Any>, topic: string): number | undefined => {
  const limits = projections.filter(({ sources }) => sources.some(({ name }) => name === topic))
  return limits.length === 0 ? undefined : Math.min(...limits.map(({ maxAheadMs }) => maxAheadMs))
}
