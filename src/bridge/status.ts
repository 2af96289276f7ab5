// What the streams of a bridge have done, how far behind they are and what keeps them from going on: for people, for probes and as metrics.
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"

const lags = Metric.gauge("millrace_bridge_lag", {
  description:
    "What the source has and the bridge has not mirrored yet: records on Kafka, entries on Pulsar, by rule, topic and partition"
})
const records = Metric.counter("millrace_bridge_records_total", {
  description:
    "Records that the bridge has processed, by rule and outcome: mirrored, filtered, returned (they came from the other side) or dead",
  incremental: true
})
const failures = Metric.counter("millrace_bridge_failures_total", {
  description: "Times that a bridge stream failed and started a new session, by rule",
  incremental: true
})

/** What can become of a record. */
export const outcomes = ["mirrored", "filtered", "returned", "dead"] as const
export type Outcome = (typeof outcomes)[number]
/** Numbers of records by outcome. */
export type Counts = Readonly<Record<Outcome, number>>
/** Counts to begin with. */
export const zeroCounts = (): Record<Outcome, number> => ({ mirrored: 0, filtered: 0, returned: 0, dead: 0 })

/** One bridge stream, a partition of a source under one rule, as this process sees it. */
export interface StreamStatus extends Counts {
  readonly rule: string
  readonly source: string
  readonly partition: number
  /** As `millrace_bridge_lag`; undefined if not known yet. */
  readonly lag: number | undefined
  /** Why it is halted until a person acts; undefined if it is not. It is tried again all the time. */
  readonly halted: string | undefined
}
/** Something that has failed and not succeeded since, but may without a person's help. */
export interface OngoingFailure {
  /** A stream, a rule or a group, by name. */
  readonly what: string
  readonly reason: string
  /** When the first failure in a row happened, in epoch milliseconds. */
  readonly since: number
}

/** A stream that has waited for records this long has recovered: what still fails would have failed by now. */
const recoveredMs = 2_000

/** The state of one bridge stream. A record counts once its position is committed. */
export class StreamState {
  readonly rule: string
  readonly source: string
  readonly partition: number
  lag: number | undefined
  halted: string | undefined
  failing: OngoingFailure | undefined
  /** Of a stream from Kafka: the first offset that is not mirrored; undefined if not known yet. */
  position: number | undefined
  /** Since when it waits for more records, by `performance.now`; undefined if it is not waiting. */
  idleSince: number | undefined
  private readonly counts = zeroCounts()

  constructor(rule: string, source: string, partition: number) {
    this.rule = rule
    this.source = source
    this.partition = partition
  }
  /** For log lines. */
  get name(): string {
    return `${this.rule} ${this.source}/${this.partition}`
  }
  get status(): StreamStatus {
    const { counts, halted, lag, partition, rule, source } = this
    return { rule, source, partition, ...counts, lag, halted }
  }
  /** Records a failure: the stream is failing if it is retryable, otherwise halted. Returns whether the reason is new. */
  readonly markFailed = (reason: string, retryable: boolean): boolean => {
    const isNew = reason !== (retryable ? this.failing?.reason : this.halted)
    this.failing = retryable ? { what: this.name, reason, since: this.failing?.since ?? Date.now() } : undefined
    this.halted = retryable ? undefined : reason
    return isNew
  }
  /** Records progress: the stream is neither failing nor halted. */
  readonly markProgress = (): void => {
    this.halted = undefined
    this.failing = undefined
  }
  /** Ends a failure once the stream has waited for records for a while, which also shows that it works. */
  readonly recoverIfIdle = (): void => {
    if (this.idleSince !== undefined && performance.now() - this.idleSince > recoveredMs) this.failing = undefined
  }
  /** Adds records by outcome, here and to the metric. */
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
  /** Sets the lag, here and in the metric. */
  readonly setLag = (lag: number): Effect.Effect<void> => {
    this.lag = lag
    const { partition, rule, source } = this
    return Metric.update(Metric.withAttributes(lags, { rule, topic: source, partition: String(partition) }), lag)
  }
  /** Clears failure and lag when another process takes the stream over, because that process reports them from now on. */
  readonly release = (): Effect.Effect<void> => {
    this.markProgress()
    return this.setLag(0)
  }
  readonly countFailure = (): Effect.Effect<void> =>
    Metric.update(Metric.withAttributes(failures, { rule: this.rule }), 1)
}

/** The status of a whole bridge in this process: its streams, and failures of anything else, such as a rule's topic discovery. */
export class BridgeStatus {
  private readonly failures = new Map<string, OngoingFailure>()
  private readonly streams = new Map<string, StreamState>()

  /** The state of a stream, which is created on first use. */
  stream(rule: string, source: string, partition: number): StreamState {
    const key = `${rule} ${source} ${partition}`
    const known = this.streams.get(key)
    if (known !== undefined) return known
    const created = new StreamState(rule, source, partition)
    this.streams.set(key, created)
    return created
  }
  /** Records a failure of something that is not a stream. Returns whether the reason is new. */
  reportFailure(what: string, reason: string): boolean {
    const before = this.failures.get(what)
    this.failures.set(what, { what, reason, since: before?.since ?? Date.now() })
    return before?.reason !== reason
  }
  clearFailure(what: string): void {
    this.failures.delete(what)
  }
  /** Everything that fails now. */
  get failing(): ReadonlyArray<OngoingFailure> {
    const streams = [...this.streams.values()].flatMap(({ failing }) => failing ?? [])
    return [...this.failures.values(), ...streams]
  }
  get statuses(): ReadonlyArray<StreamStatus> {
    return [...this.streams.values()].map(({ status }) => status)
  }
}
