// Time marks: records without a value by which a stream of a derived topic says how far its stream time is. Pure.
import { streamHeaders } from "./envelope.ts"
import type { LogRecord, NewRecord } from "./log.ts"

/**
 * The header with the stream time of the stream that sent a record, in whole epoch milliseconds. Empty if the stream has no stream time
 * yet. A message without it tells its own event time.
 */
export const timeHeader = "millrace-time"

/** The stream time that a stream announces when it ends, which `millrace.promote_flip` writes: no event's time is greater. */
export const endOfStream = 8_640_000_000_000_000

/** Whether a record is a time mark: only projections take notice of it, and no handler sees it. */
export const isTimeMark = ({ headers, value }: Pick<NewRecord, "headers" | "value">): boolean =>
  value === null && headers[timeHeader] !== undefined && headers[streamHeaders.stream] !== undefined

/** The records of a topic that are not time marks; the same array if none is one. */
export const withoutTimeMarks = (records: ReadonlyArray<LogRecord>): ReadonlyArray<LogRecord> =>
  records.some(isTimeMark) ? records.filter((record) => !isTimeMark(record)) : records

/** The header's text for a stream time. */
export const timeText = (streamTime: number | undefined): string => (streamTime === undefined ? "" : String(streamTime))

/**
 * The time that a record's stream had reached when it sent the record: what the header says, else the event time that is given. Undefined
 * if neither says one.
 */
export const sentTime = (
  { headers }: Pick<NewRecord, "headers">,
  eventTime: number | undefined
): number | undefined => {
  const text = headers[timeHeader]
  if (text === undefined) return eventTime
  return /^-?\d{1,16}$/.test(text) ? Number(text) : undefined
}
