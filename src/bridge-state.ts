// What a bridge's streams have done and how far behind they are, for people, for probes and as metrics. It decides nothing.
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"

const lags = Metric.gauge("millrace_bridge_lag", {
  description:
    "What the source has and the bridge has not mirrored: records on Kafka, entries on Pulsar, by rule, topic and partition"
})
const records = Metric.counter("millrace_bridge_records_total", {
  description:
    "Records that the bridge is done with, by rule and outcome: mirrored, filtered, returned (they came from there) or dead",
  incremental: true
})
const failures = Metric.counter("millrace_bridge_failures_total", {
  description: "Times that a stream had to begin anew, by rule",
  incremental: true
})

/** What can become of a record. */
export const outcomes = ["mirrored", "filtered", "returned", "dead"] as const
export type Outcome = (typeof outcomes)[number]
/** Records by what became of them. */
export type Counts = Readonly<Record<Outcome, number>>

/** One partition of one source under one rule, as this process sees it. */
export interface StreamStatus extends Counts {
  readonly rule: string
  readonly source: string
  readonly partition: number
  /** As `millrace_bridge_lag`; undefined: not known yet. */
  readonly lag: number | undefined
  /** Why it stands still; it is tried again all the time. */
  readonly halted: string | undefined
}

/** One stream's figures. Counted are records whose position is committed. */
export class StreamState {
  readonly rule: string
  readonly source: string
  readonly partition: number
  lag: number | undefined
  halted: string | undefined
  /** Of a stream from Kafka: what is before is done with. Undefined: not known yet. */
  position: number | undefined
  /** Of a stream from Kafka: it has all that there is, and waits for more. */
  waits = false
  private readonly counts: Record<Outcome, number> = { mirrored: 0, filtered: 0, returned: 0, dead: 0 }

  constructor(rule: string, source: string, partition: number) {
    this.rule = rule
    this.source = source
    this.partition = partition
  }
  get status(): StreamStatus {
    const { counts, halted, lag, partition, rule, source } = this
    return { rule, source, partition, ...counts, lag, halted }
  }
  /** Adds what became of records. */
  readonly count = (done: Partial<Counts>): Effect.Effect<void> =>
    Effect.forEach(
      outcomes,
      (outcome) => {
        const number = done[outcome] ?? 0
        this.counts[outcome] += number
        return number === 0
          ? Effect.void
          : Metric.update(Metric.withAttributes(records, { rule: this.rule, outcome }), number)
      },
      { discard: true }
    )
  readonly behind = (lag: number): Effect.Effect<void> => {
    this.lag = lag
    const { partition, rule, source } = this
    return Metric.update(Metric.withAttributes(lags, { rule, topic: source, partition: String(partition) }), lag)
  }
  /** It is another process's now, which says how far behind it is, and why. */
  readonly left = (): Effect.Effect<void> => {
    this.halted = undefined
    return this.behind(0)
  }
  readonly failed = (): Effect.Effect<void> => Metric.update(Metric.withAttributes(failures, { rule: this.rule }), 1)
}

/** All streams that this process had, each once. */
export class Board {
  private readonly streams = new Map<string, StreamState>()
  of(rule: string, source: string, partition: number): StreamState {
    const key = `${rule} ${source} ${partition}`
    const there = this.streams.get(key)
    if (there !== undefined) return there
    const made = new StreamState(rule, source, partition)
    this.streams.set(key, made)
    return made
  }
  get statuses(): ReadonlyArray<StreamStatus> {
    return [...this.streams.values()].map(({ status }) => status)
  }
}
