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
  /** Why it stands still until a person acts; it is tried again all the time. */
  readonly halted: string | undefined
}
/** Something that failed, and has not gone on since. Time may mend it. */
export interface Failing {
  readonly what: string
  readonly reason: string
  /** Epoch milliseconds of the first one in a row. */
  readonly since: number
}

/** Whatever fails at once does so sooner. */
const restedMs = 2_000

/** One stream's figures. Counted are records whose position is committed. */
export class StreamState {
  readonly rule: string
  readonly source: string
  readonly partition: number
  lag: number | undefined
  halted: string | undefined
  failing: Failing | undefined
  /** Of a stream from Kafka: what is before is done with. Undefined: not known yet. */
  position: number | undefined
  /** Since when it has all that there is and waits for more, by the clock of `performance.now`; undefined: it does not. */
  waits: number | undefined
  private readonly counts: Record<Outcome, number> = { mirrored: 0, filtered: 0, returned: 0, dead: 0 }

  constructor(rule: string, source: string, partition: number) {
    this.rule = rule
    this.source = source
    this.partition = partition
  }
  /** For people. */
  get name(): string {
    return `${this.rule} ${this.source}/${this.partition}`
  }
  get status(): StreamStatus {
    const { counts, halted, lag, partition, rule, source } = this
    return { rule, source, partition, ...counts, lag, halted }
  }
  /** It stands still. Whether that is news. */
  readonly stuck = (reason: string, retryable: boolean): boolean => {
    const isNews = reason !== (retryable ? this.failing?.reason : this.halted)
    this.failing = retryable ? { what: this.name, reason, since: this.failing?.since ?? Date.now() } : undefined
    this.halted = retryable ? undefined : reason
    return isNews
  }
  /** It goes on. */
  readonly moves = (): void => {
    this.halted = undefined
    this.failing = undefined
  }
  /** Who waits for more for a while has got over what it failed with. */
  readonly rests = (): void => {
    if (this.waits !== undefined && performance.now() - this.waits > restedMs) this.failing = undefined
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
    this.moves()
    return this.behind(0)
  }
  readonly failed = (): Effect.Effect<void> => Metric.update(Metric.withAttributes(failures, { rule: this.rule }), 1)
}

/** All streams that this process had, each once, and what keeps others from beginning. */
export class Board {
  private readonly troubles = new Map<string, Failing>()
  private readonly streams = new Map<string, StreamState>()
  of(rule: string, source: string, partition: number): StreamState {
    const key = `${rule} ${source} ${partition}`
    const there = this.streams.get(key)
    if (there !== undefined) return there
    const made = new StreamState(rule, source, partition)
    this.streams.set(key, made)
    return made
  }
  /** Notes a failure of what is no stream; whether it is news. */
  trouble(what: string, reason: string): boolean {
    const before = this.troubles.get(what)
    this.troubles.set(what, { what, reason, since: before?.since ?? Date.now() })
    return before?.reason !== reason
  }
  /** It goes on. */
  over(what: string): void {
    this.troubles.delete(what)
  }
  /** Everything that fails now. */
  get failing(): ReadonlyArray<Failing> {
    const streams = [...this.streams.values()].flatMap(({ failing }) => failing ?? [])
    return [...this.troubles.values(), ...streams]
  }
  get statuses(): ReadonlyArray<StreamStatus> {
    return [...this.streams.values()].map(({ status }) => status)
  }
}
