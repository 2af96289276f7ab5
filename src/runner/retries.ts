// Retries and discards of dead letters: finds the parked records that the retry and discard records of a batch ask for.
import * as Effect from "effect/Effect"
import { isDiscard, isRetry, retriedBy, type RetryOwner, retryHeader } from "../dead-letter/retry-record.ts"
import type { LogRecord } from "../log/log.ts"
import type { Claim, ProjectionPartition, Store } from "./store.ts"

/** With `order: "key"`, a retry also brings back so many later dead letters of the key; all are processed and committed as one batch. */
const mostLater = 999

/**
 * How many records at the start of a batch can be committed together: either no retry or discard records, or those that each ask for another
 * dead letter. What a retry brings back must be committed before, and a second retry of a dead letter depends on what became of the first;
 * with `isOrdered` (`order: "key"`) so does a retry of another dead letter of its key.
 */
export const sameKind = (records: ReadonlyArray<LogRecord>, isOrdered: boolean, owner?: RetryOwner): number => {
  const first = isRetry(records[0], owner)
  const asked = new Set<string>()
  const end = records.findIndex((record) => {
    if (isRetry(record, owner) !== first) return true
    if (!first) return false
    const what = isOrdered && record.key !== null ? record.key : deadLetterAskedFor(record)
    return asked.has(what) || !asked.add(what)
  })
  return end === -1 ? records.length : end
}

/** The dead letter that a retry record asks for; those of another database do not matter here. */
const deadLetterAskedFor = ({ headers }: LogRecord): string => headers[retryHeader]!.split("/", 2).join("/")

/** What asked for a dead letter's retry. */
export interface RetryRequest {
  /** The position of the retry record. */
  readonly by: number
  /** The stream time at the dead letter's own position; undefined if it was not kept. */
  readonly streamTime: number | undefined
}

/** The dead letters that a batch of retry and discard records brings back or discards. */
export class Retries {
  /** Records that bring nothing back: they are another projection's or another database's, they discard, or their dead letter is not open. */
  ignored = 0
  /** The positions of the dead letters that the batch discards. */
  discarded: Array<number> = []
  /** Dead letters that stay parked, because one before them of the same key is open, and what asked for their retry. */
  blocked: Array<{ readonly record: LogRecord; readonly by: number }> = []
  private readonly requests = new Map<LogRecord, RetryRequest>()
  private later = mostLater
  private readonly isOrdered: boolean
  private readonly at: ProjectionPartition & Pick<Claim, "owner">
  private readonly store: Store["Service"]

  constructor(isOrdered: boolean, at: ProjectionPartition & Pick<Claim, "owner">, store: Store["Service"]) {
    this.isOrdered = isOrdered
    this.at = at
    this.store = store
  }

  /** Forgets the retries of the batch before. */
  reset(): void {
    this.requests.clear()
    this.ignored = 0
    this.discarded = []
    this.blocked = []
  }
  /** After a commit the next retry may bring back many dead letters again. */
  onCommitted(): void {
    this.later = mostLater
  }
  /** Lets the next attempt bring back half as many dead letters, for the store refuses them together. False if there is only one. */
  halve(): boolean {
    const found = this.requests.size
    if (found <= 1) return false
    this.later = (found >> 1) - 1
    return true
  }

  /** The parked records that the retry records ask for. They count as having arrived when their retry was requested. */
  readonly load = Effect.fnUntraced(function* (this: Retries, records: ReadonlyArray<LogRecord>) {
    const found = new Map<number, LogRecord>()
    const { at, isOrdered, later } = this
    for (const record of records) {
      const position = retriedBy(record, at, at.owner)
      const isOurs = position !== undefined && position < record.position
      const discards = isDiscard(record)
      if (isOurs && discards) this.discarded.push(position)
      const isWanted = isOurs && !discards && !found.has(position)
      const parked = isWanted ? yield* this.store.deadLetters(at, position, { ordered: isOrdered, behind: later }) : []
      if (parked.length === 0) {
        this.ignored++
        const [alone] =
          isWanted && isOrdered ? yield* this.store.deadLetters(at, position, { ordered: false, behind: 0 }) : []
        if (alone !== undefined) this.blocked.push({ record: alone.record, by: record.position })
      }
      for (const { record: deadLetter, streamTime } of parked) {
        // so an event that was dated too far ahead can be processed once its time has come
        const { appendedAt, isTimeOfProducer } = record
        const again = { ...deadLetter, appendedAt, ...(isTimeOfProducer === true && { isTimeOfProducer }) }
        found.set(deadLetter.position, again)
        this.requests.set(again, { by: record.position, streamTime })
      }
    }
    return [...found.values()]
  })

  /** What asked for this record; undefined if it is no retry. */
  requestOf(record: LogRecord): RetryRequest | undefined {
    return this.requests.get(record)
  }
}
