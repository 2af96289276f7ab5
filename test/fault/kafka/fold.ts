// Computes what the application must make of a log: the rules of the signals application written a second time, without any code of src/.
import type { Printed } from "./consumer.ts"
import { thrown } from "./load.ts"

/** Partitions of every topic. */
export const partitions = 12
const minute = 60_000
const sizes = [
  ["1m", minute],
  ["5m", 5 * minute],
  ["1h", 60 * minute]
] as const
const grace = 5 * minute
const dedupeWithin = 60 * minute
const maxAhead = 60 * minute
const types = new Set(["flight.departed", "flight.cancelled", "payment", "transfer", "withdrawal", "refund"])

interface Raw {
  readonly event_id: string
  readonly entity_id: string
  readonly type: string
  readonly amount: number
  readonly occurred_at: number
  readonly tenant: string
}
interface Known {
  readonly risk_weight: number
  readonly threshold: number
  readonly segment: string
}
/** A score that must be published. Scores are in the order of the log. */
export interface Score {
  readonly id: string
  readonly entity: string
  readonly score: number
  readonly at: number
  readonly trace: string | undefined
}
/** An alert that must be published and be a row of the table. */
export interface Alert extends Score {
  readonly threshold: number
  readonly segment: string
  readonly tenant: string
}
/** A window's state after each event that it counts. */
export interface Window {
  readonly partition: number
  readonly entity: string
  readonly size: string
  readonly start: number
  readonly alerts: Array<number>
  readonly sum: Array<number>
  readonly max: Array<number>
}
/** What the application must make of one partition of the input. */
export interface Partition {
  readonly scores: Array<Score>
  readonly alerts: Array<Alert>
  /** `OFFSET SIZE START` of each contribution that is late for its window. */
  readonly late: Set<string>
  /** Offsets. */
  readonly dead: Set<number>
  readonly seen: Map<string, Array<number>>
  duplicates: number
  streamTime: number
  /** The offset behind the last record. */
  next: number
}

/** Whether a text is what docs/reference/input.md accepts; the consumer prints U+FFFD in place of bytes that are not UTF-8. */
const isText = (text: string) => !/[\0\ufffd]/.test(text)
/** Whether the load's values, which are flat, have a name twice. */
const hasDuplicates = (value: string, raw: object) => value.match(/"\w+":/g)!.length > Object.keys(raw).length

/** The event of a record; undefined if it cannot be read. */
const eventOf = ({ headers, key, value }: Pick<Printed, "headers" | "key" | "value">): Raw | undefined => {
  try {
    const raw = JSON.parse(value ?? "") as Raw
    const names = [key ?? "", value ?? "", raw.entity_id, headers["tenant"] ?? "", headers["event_id"] ?? ""]
    if (!names.every(isText) || hasDuplicates(value ?? "", raw)) return undefined
    if (!/^[1-9]\d*$/.test(headers["schema_version"] ?? "1")) return undefined
    const texts = [raw.event_id, raw.entity_id, raw.type, raw.tenant].every((text) => typeof text === "string")
    const numbers = Number.isFinite(raw.amount) && Number.isSafeInteger(raw.occurred_at)
    return texts && numbers && types.has(raw.type) && raw.occurred_at <= Date.now() + maxAhead ? raw : undefined
  } catch {
    return undefined
  }
}

/** Folds the log. The records of each partition must come in order. */
export class Fold {
  readonly partitions: ReadonlyArray<Partition> = Array.from({ length: partitions }, () => ({
    scores: [],
    alerts: [],
    late: new Set(),
    dead: new Set(),
    seen: new Map(),
    duplicates: 0,
    streamTime: -Infinity,
    next: 0
  }))
  readonly windows = new Map<string, Window>()
  /** The rows of the table: the last alert with each id. */
  readonly alerts = new Map<string, Alert>()
  private readonly known = new Map<string, Known>()

  /** Takes a record of `features.entity.v1`. All of them come before the first event. */
  feature = ({ key, value }: Pick<Printed, "key" | "value">): void => {
    if (key === null) return
    if (value === null) this.known.delete(key)
    else this.known.set(key, JSON.parse(value) as Known)
  }

  /** Takes a record of `events.raw.v1`. */
  event = ({ headers, key, offset, partition: number, value }: Printed): void => {
    const partition = this.partitions[number]!
    partition.next = offset + 1
    const event = eventOf({ headers, key, value })
    if (event === undefined) {
      partition.dead.add(offset)
      return
    }
    const { occurred_at: at } = event
    partition.streamTime = Math.max(partition.streamTime, at)
    // the handler throws
    if (event.amount === thrown.bare || event.amount === thrown.strange) {
      partition.dead.add(offset)
      return
    }
    const id = `${headers["tenant"] ?? event.tenant} ${event.event_id}`
    const times = partition.seen.get(id)
    if (times?.some((time) => Math.abs(time - at) <= dedupeWithin) === true) {
      times.push(at)
      partition.duplicates++
      return
    }
    if (times === undefined) partition.seen.set(id, [at])
    else times.push(at)
    this.handle(event, headers["trace_id"], number, offset)
  }

  private handle(event: Raw, trace: string | undefined, number: number, offset: number) {
    const { amount, entity_id: entity, event_id: id, occurred_at: at, tenant } = event
    const partition = this.partitions[number]!
    const { risk_weight, segment, threshold } = this.known.get(entity) ?? {
      risk_weight: 1,
      threshold: 900,
      segment: "unknown"
    }
    const score: Score = { id, entity, score: amount * risk_weight, at, trace }
    const isAlert = score.score > threshold
    partition.scores.push(score)
    if (isAlert) {
      const alert = { ...score, threshold, segment, tenant }
      partition.alerts.push(alert)
      this.alerts.set(id, alert)
    }
    for (const [size, length] of sizes) {
      const start = Math.floor(at / length) * length
      if (start + length + grace <= partition.streamTime) partition.late.add(`${offset} ${size} ${start}`)
      else this.count(number, entity, size, start, score.score, isAlert)
    }
  }
  private count(partition: number, entity: string, size: string, start: number, score: number, isAlert: boolean) {
    const key = `${entity} ${size} ${start}`
    let window = this.windows.get(key)
    if (window === undefined) {
      window = { partition, entity, size, start, alerts: [], sum: [], max: [] }
      this.windows.set(key, window)
    }
    window.alerts.push((window.alerts.at(-1) ?? 0) + (isAlert ? 1 : 0))
    window.sum.push((window.sum.at(-1) ?? 0) + score)
    window.max.push(Math.max(window.max.at(-1) ?? -Infinity, score))
  }

  /** Totals of all partitions. */
  get totals() {
    const sum = (of: (partition: Partition) => number) => this.partitions.reduce((all, one) => all + of(one), 0)
    return {
      events: sum(({ scores }) => scores.length),
      alerts: sum(({ alerts }) => alerts.length),
      late: sum(({ late }) => late.size),
      dead: sum(({ dead }) => dead.size),
      duplicates: sum(({ duplicates }) => duplicates),
      windows: this.windows.size
    }
  }
}
