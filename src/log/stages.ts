// The moments that a batch passes between the log and its commit, to measure where time goes. They cost nothing while nothing subscribes to them.
import { channel } from "node:diagnostics_channel"
import type { Batch, LogRecord, Position } from "./log.ts"

/** A batch that a reader of a partition got. Moments are those of `performance.now()`. */
export interface ReadStages {
  readonly topic: string
  readonly partition: number
  /** Its first position, and where the next batch begins. */
  readonly from: Position
  readonly next: Position
  /** When the log's answer was there, and when its records were decoded. */
  readonly came: number
  readonly decoded: number
}
/** A batch that was committed. */
export interface CommitStages {
  readonly topic: string
  readonly partition: number
  readonly projection: string
  readonly records: ReadonlyArray<LogRecord>
  /** When the runner took the batch, when its events were handled and its last statement was sent, and when that was answered. */
  readonly taken: number
  readonly handled: number
  readonly committed: number
}

/** The channel of `ReadStages`. */
export const readStages = channel("millrace.read")
/** The channel of `CommitStages`. */
export const commitStages = channel("millrace.commit")

/** Publishes that a batch was read from `from` on, if something subscribes to it. `came`: when the log's answer was there. */
export const tellRead = (topic: string, partition: number, from: Position, { next, records }: Batch, came: number) => {
  if (!readStages.hasSubscribers || records.length === 0) return
  readStages.publish({ topic, partition, from, next, came, decoded: performance.now() } satisfies ReadStages)
}
