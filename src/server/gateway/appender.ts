// Appends valid events to the log: small requests that arrive together share one append, large ones have their own. Retries nothing.
import type { Limits } from "../http/limits.ts"
import type { LogError, NewRecord, LogPosition, UnknownTopic } from "../../log/log.ts"

/**
 * The result of an append. `Overloaded`: too many events are waiting, so nothing was appended. `NoAnswer`: the log has not answered for so long, and the
 * records may be appended yet. `Stalled`: earlier appends have waited for so long, so nothing was appended.
 */
export type Appended =
  | { readonly _tag: "Positions"; readonly positions: ReadonlyArray<LogPosition> }
  | { readonly _tag: "Failed"; readonly error: LogError | UnknownTopic }
  | { readonly _tag: "Overloaded" }
  | { readonly _tag: "NoAnswer"; readonly ms: number }
  | { readonly _tag: "Stalled"; readonly ms: number }

type Append = (topic: string, records: ReadonlyArray<NewRecord>) => Promise<Appended>

interface PendingAppend {
  readonly records: ReadonlyArray<NewRecord>
  readonly done: (appended: Appended) => void
}
/** The appends of one topic. */
interface TopicQueue {
  pending: Array<PendingAppend>
  waiting: number
  busy: boolean
}

/** A request with this many records gets an append of its own. */
const alone = 200
/** About how many records a shared append has. */
const together = 1_000

/** The limits of an appender. */
export type AppenderLimits = Pick<Limits, "appendMs" | "stalledMs" | "waitingEvents">

/** Group commit: records of a topic that arrive during an append wait, and are appended together by the next one. */
export class Appender {
  readonly #append: Append
  readonly #limits: AppenderLimits
  readonly #queues = new Map<string, TopicQueue>()
  /** When each append began that the log has not answered, the oldest first. */
  readonly #running = new Set<{ readonly since: number }>()

  constructor(append: Append, limits: AppenderLimits) {
    this.#limits = limits
    this.#append = async (topic, records) => {
      const running = { since: performance.now() }
      this.#running.add(running)
      try {
        return await append(topic, records)
      } finally {
        this.#running.delete(running)
      }
    }
  }

  /** For how long the log has not answered an append, in milliseconds, if that is too long; undefined otherwise. */
  get stalledMs(): number | undefined {
    const [oldest] = this.#running
    const ms = oldest === undefined ? 0 : performance.now() - oldest.since
    return ms < this.#limits.stalledMs ? undefined : ms
  }

  /** Appends records of one topic, in order. The records of two calls are in order if the second call is made after the first resolved. */
  async append(topic: string, records: ReadonlyArray<NewRecord>): Promise<Appended> {
    const { stalledMs } = this
    if (stalledMs !== undefined) return { _tag: "Stalled", ms: stalledMs }
    const { appendMs } = this.#limits
    const late = Promise.withResolvers<Appended>()
    const timer = setTimeout(() => late.resolve({ _tag: "NoAnswer", ms: appendMs }), appendMs)
    try {
      return await Promise.race([this.#enqueue(topic, records), late.promise])
    } finally {
      clearTimeout(timer)
    }
  }

  #enqueue(topic: string, records: ReadonlyArray<NewRecord>): Promise<Appended> {
    if (records.length >= alone) return this.#append(topic, records)
    const queue = this.#queues.get(topic) ?? { pending: [], waiting: 0, busy: false }
    this.#queues.set(topic, queue)
    // one request is accepted whatever its size, because otherwise one above the limit never would be
    if (queue.waiting > 0 && queue.waiting + records.length > this.#limits.waitingEvents)
      return Promise.resolve({ _tag: "Overloaded" })
    queue.waiting += records.length
    return new Promise((done) => {
      queue.pending.push({ records, done })
      if (!queue.busy) void this.#drain(topic, queue)
    })
  }

  async #drain(topic: string, queue: TopicQueue): Promise<void> {
    queue.busy = true
    while (queue.pending.length > 0) {
      const jobs = nextOf(queue)
      await this.#run(topic, jobs)
    }
    queue.busy = false
  }

  async #run(topic: string, jobs: ReadonlyArray<PendingAppend>): Promise<void> {
    const appended = await this.#append(
      topic,
      jobs.length === 1 ? jobs[0]!.records : jobs.flatMap((job) => job.records)
    )
    if (
      appended._tag === "Failed" &&
      jobs.length > 1 &&
      !(appended.error._tag === "LogError" && appended.error.retryable)
    ) {
      // an invalid record of one request must not fail the others
      for (const job of jobs) job.done(await this.#append(topic, job.records))
      return
    }
    let from = 0
    for (const { done, records } of jobs) {
      const until = from + records.length
      done(
        appended._tag === "Positions" && jobs.length > 1
          ? { ...appended, positions: appended.positions.slice(from, until) }
          : appended
      )
      from = until
    }
  }
}

const nextOf = (queue: TopicQueue): ReadonlyArray<PendingAppend> => {
  let count = 0
  let records = 0
  while (count < queue.pending.length && records < together) records += queue.pending[count++]!.records.length
  queue.waiting -= records
  const jobs = queue.pending.slice(0, count)
  queue.pending = queue.pending.slice(count)
  return jobs
}
