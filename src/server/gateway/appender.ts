// Brings checked events to the log: small requests that meet share one append, large ones go by themselves. It retries nothing.
import type { LogError, NewRecord, LogPosition, UnknownTopic } from "../../log/log.ts"

/** What came of an append. `Overloaded`: too many events are waiting, nothing was tried. */
export type Appended =
  | { readonly _tag: "Places"; readonly places: ReadonlyArray<LogPosition> }
  | { readonly _tag: "Failed"; readonly error: LogError | UnknownTopic }
  | { readonly _tag: "Overloaded" }

type Append = (topic: string, records: ReadonlyArray<NewRecord>) => Promise<Appended>

interface Job {
  readonly records: ReadonlyArray<NewRecord>
  readonly done: (appended: Appended) => void
}
interface Lane {
  jobs: Array<Job>
  waiting: number
  busy: boolean
}

/** From here on a request's records are worth an append of their own. */
const alone = 200
/** Records of a shared append, about. */
const together = 1_000

/** Group commit at the gateway: while one append of a topic is on its way, what arrives waits and goes with the next. */
export class Appender {
  readonly #append: Append
  readonly #most: number
  readonly #lanes = new Map<string, Lane>()

  /** `most` is how many records of a topic may wait. */
  constructor(append: Append, most: number) {
    this.#append = append
    this.#most = most
  }

  /** Appends records of one topic in their order. Two calls of one caller keep their order if the second begins when the first is done. */
  append(topic: string, records: ReadonlyArray<NewRecord>): Promise<Appended> {
    if (records.length >= alone) return this.#append(topic, records)
    const lane = this.#lanes.get(topic) ?? { jobs: [], waiting: 0, busy: false }
    this.#lanes.set(topic, lane)
    // one request is let in however few may wait, or it never would be
    if (lane.waiting > 0 && lane.waiting + records.length > this.#most) return Promise.resolve({ _tag: "Overloaded" })
    lane.waiting += records.length
    return new Promise((done) => {
      lane.jobs.push({ records, done })
      if (!lane.busy) void this.#drain(topic, lane)
    })
  }

  async #drain(topic: string, lane: Lane): Promise<void> {
    lane.busy = true
    while (lane.jobs.length > 0) {
      const jobs = nextOf(lane)
      await this.#run(topic, jobs)
    }
    lane.busy = false
  }

  async #run(topic: string, jobs: ReadonlyArray<Job>): Promise<void> {
    const appended = await this.#append(
      topic,
      jobs.length === 1 ? jobs[0]!.records : jobs.flatMap((job) => job.records)
    )
    if (
      appended._tag === "Failed" &&
      jobs.length > 1 &&
      !(appended.error._tag === "LogError" && appended.error.retryable)
    ) {
      // one request's records must not spoil another's
      for (const job of jobs) job.done(await this.#append(topic, job.records))
      return
    }
    let from = 0
    for (const { done, records } of jobs) {
      const until = from + records.length
      done(
        appended._tag === "Places" && jobs.length > 1
          ? { ...appended, places: appended.places.slice(from, until) }
          : appended
      )
      from = until
    }
  }
}

const nextOf = (lane: Lane): ReadonlyArray<Job> => {
  let count = 0
  let records = 0
  while (count < lane.jobs.length && records < together) records += lane.jobs[count++]!.records.length
  lane.waiting -= records
  const jobs = lane.jobs.slice(0, count)
  lane.jobs = lane.jobs.slice(count)
  return jobs
}
