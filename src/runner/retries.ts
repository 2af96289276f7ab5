// Events that wait: letters that a run of retry records brings back, and, where keys keep their order, events behind a parked one.
import * as Effect from "effect/Effect"
import type { LogRecord } from "../log/log.ts"
import type { Projection } from "../model/projection.ts"
import { isRetry, retriedBy } from "../dead-letter/retry-record.ts"
import type { ProjectionPartition, Store } from "./store.ts"

/** Letters that one retry brings behind the one it names: they are handled and committed as one batch. */
const mostBehind = 999

/** How many records at the start of a batch are of one kind: retries are handled apart, once what they retry is committed. */
export const runOf = (records: ReadonlyArray<LogRecord>): number => {
  const first = isRetry(records[0])
  const end = records.findIndex((record) => isRetry(record) !== first)
  return end === -1 ? records.length : end
}

/** What of a batch waits, comes back, or is passed over. One for each claim; `bring` begins a batch. */
export class Waiting {
  /** Retry records that bring nothing: for another projection, or of letters that are not open. */
  passedOver = 0
  private readonly parkedAt = new Map<string, number>()
  private readonly asked = new Map<LogRecord, number>()
  private behind = mostBehind
  private readonly ordered: boolean
  private readonly projection: Projection.Any
  private readonly topic: string
  private readonly store: Store["Service"]

  constructor(projection: Projection.Any, topic: string, store: Store["Service"]) {
    this.ordered = projection.failure.order === "key"
    this.projection = projection
    this.topic = topic
    this.store = store
  }

  reset(): void {
    this.parkedAt.clear()
    this.asked.clear()
    this.passedOver = 0
  }
  /** A commit holds: the next retry may bring many again. */
  settle(): void {
    this.behind = mostBehind
  }
  /** Fewer letters a retry, for PostgreSQL refuses them together. False where the last one brought a single letter. */
  narrow(): boolean {
    const brought = this.asked.size
    if (brought <= 1) return false
    this.behind = (brought >> 1) - 1
    return true
  }

  /** The records to handle for a run: themselves, or the letters that they retry. */
  readonly bring = Effect.fnUntraced(function* (this: Waiting, records: ReadonlyArray<LogRecord>) {
    this.reset()
    const [first] = records
    if (first === undefined || (!this.ordered && !isRetry(first))) return records
    const { name: projection, version } = this.projection
    const place: ProjectionPartition = { projection, version, topic: this.topic, partition: first.partition }
    if (isRetry(first)) return yield* this.letters(place, records)
    const keys = new Set(records.flatMap(({ key }) => (key === null ? [] : [key])))
    for (const key of yield* this.store.parkedKeys(place, [...keys])) this.parkedAt.set(key, -1)
    return records
  })

  private readonly letters = Effect.fnUntraced(function* (
    this: Waiting,
    place: ProjectionPartition,
    records: ReadonlyArray<LogRecord>
  ) {
    const found = new Map<number, LogRecord>()
    const { behind, ordered } = this
    for (const record of records) {
      const position = retriedBy(record, place.projection)
      const wanted = position !== undefined && position < record.position && !found.has(position)
      const letters = wanted ? yield* this.store.deadLetters(place, position, { ordered, behind }) : []
      if (letters.length === 0) this.passedOver++
      for (const letter of letters) {
        // it counts as arrived now, so one that was dated too far ahead may have come into its time
        const again = { ...letter, appendedAt: record.appendedAt }
        found.set(letter.position, again)
        this.asked.set(again, record.position)
      }
    }
    return [...found.values()]
  })

  /** The position of the record that brought a letter back; undefined where the record is none. */
  askedBy(record: LogRecord): number | undefined {
    return this.asked.get(record)
  }
  /** Whether the record must wait, for an earlier one of its key is parked. */
  isBehind({ key, position }: LogRecord): boolean {
    const at = key === null ? undefined : this.parkedAt.get(key)
    return at !== undefined && at < position
  }
  /** A record is parked: later ones of its key wait, where keys keep their order. */
  park({ key, position }: LogRecord): void {
    if (!this.ordered || key === null) return
    const at = this.parkedAt.get(key)
    if (at === undefined || position < at) this.parkedAt.set(key, position)
  }
}
