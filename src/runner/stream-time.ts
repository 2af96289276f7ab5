// How a partition's stream time moves. Pure. The runner and the test kit both process through it, so that all decide the same.
import { appendTimeOf, type LogRecord } from "../log/log.ts"
import type { StreamTimes } from "./store.ts"

/** How stream time moves while the events of a batch are processed, in their order. Each attempt at a batch begins with a new one. */
export interface StreamTime {
  /** Moves stream time by an event, before the event is judged and counted. Returns the stream time that lateness is judged by. */
  readonly advance: (record: LogRecord, eventTime: number) => number
  /** Takes what a time mark announces, where streams announce their times. */
  readonly mark?: (record: LogRecord) => void
  /** The stream time to commit, whole epoch milliseconds; undefined before the first event. */
  readonly current: number | undefined
  /** The times of the streams that feed the topic, to be committed; undefined if they are as before. */
  readonly streamTimes?: StreamTimes | undefined
}

/**
 * The time to which one event moves stream time: its own, but at most the time at which the log stored it. So an event of a fast clock
 * counts in its own window and makes no other event late. Both times are in the log, so a replay decides the same. A record whose
 * append time is not known moves stream time to the event's own time.
 */
export const reachOf = (record: Pick<LogRecord, "appendedAt">, eventTime: number): number =>
  // whole: closing times are, so lateness is the same, and it is stored as an integer
  Math.floor(Math.min(eventTime, appendTimeOf(record) ?? eventTime))

/**
 * The stream time of a partition: the greatest time that one of its events reached. It never goes back. Events that fail and duplicates
 * move it like all others, or lateness would depend on what failed; records that cannot be decoded have no time and do not.
 */
export class PartitionTime implements StreamTime {
  current: number | undefined

  /** `current` is what the last commit left. */
  constructor(current: number | undefined) {
    this.current = current
  }

  advance(record: LogRecord, eventTime: number): number {
    const reached = reachOf(record, eventTime)
    return this.current !== undefined && this.current >= reached ? this.current : (this.current = reached)
  }
}

/** The stream time that a dead letter keeps if its partition had none when it failed: earlier than every event. */
export const beforeEveryEvent = -8.64e15
/**
 * The stream time by which a retried dead letter is judged: `kept`, that of its own position. So it counts where a replay would count it,
 * however far stream time has moved since. A dead letter that was stored before stream times were kept is judged by the `current` one.
 */
export const streamTimeOfRetry = (
  kept: number | undefined,
  current: number | undefined,
  record: LogRecord,
  eventTime: number
): number => {
  const at = kept ?? current ?? beforeEveryEvent
  // the event could not be read, and no other had been: it is the first
  return at === beforeEveryEvent ? reachOf(record, eventTime) : at
}
