// Appends valid events to the log: small requests that arrive together share one append, large ones have their own. Retries nothing.
import type { LogError, NewRecord, LogPosition, UnknownTopic } from "../../log/log.ts"

/** The result of an append. `Overloaded`: too many events are waiting, so nothing was appended. */
export type Appended =
  | { readonly _tag: "Positions"; readonly positions: ReadonlyArray<LogPosition> }
  | { readonly _tag: "Failed"; readonly error: LogError | UnknownTopic }
  | { readonly _tag: "Overloaded" }

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

/** Group commit: records of a topic that arrive during an append wait, and are appended together by the next one. */
export class Appender {
  readonly #append: Append
  readonly #most: number
  readonly #queues = new Map<string, TopicQueue>()

  /** `most`: how many records of a topic may wait. */
  constructor(append: Append, most: number) {
    this.#append = append
    this.#most = most
  }

  /** Appends records of one topic, in order. The records of two calls are in order if the second call is made after the first resolved. */
  append(topic: string, records: ReadonlyArray<NewRecord>): Promise<Appended> {
    if (records.length >= alone) return this.#append(topic, records)
    const queue = this.#queues.get(topic) ?? { pending: [], waiting: 0, busy: false }
    this.#queues.set(topic, queue)
    // one request is accepted whatever its size, because otherwise one above the limit never would be
    if (queue.waiting > 0 && queue.waiting + records.length > this.#most) return Promise.resolve({ _tag: "Overloaded" })
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
