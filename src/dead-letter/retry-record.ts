// A parked record that comes again: what is kept of it beside its dead letter's columns, and the record that asks for it. No I/O.
import type { LogRecord, NewRecord } from "../log/log.ts"

/**
 * The header of a record that retries a dead letter: `<projection>/<position of the parked record in the same partition>`. The
 * projection handles the letter, not this record; every other projection of the topic passes over it.
 */
export const retryHeader = "millrace-retry"
/** Whether a record is there to retry a dead letter. */
export const isRetry = (record: LogRecord | undefined): boolean => record?.headers[retryHeader] !== undefined
/** The letter that a record retries; undefined where that is another projection's, or none. */
export const retriedBy = (record: LogRecord, projection: string): number | undefined => {
  const [name, position] = (record.headers[retryHeader] ?? "").split("/")
  return name === projection && /^\d{1,15}$/.test(position ?? "") ? Number(position) : undefined
}

/** Everything of a record but its place, as JSON text that PostgreSQL can hold whatever is in it. */
export const storedEnvelope = ({
  eventId,
  eventTime,
  headers,
  key,
  schemaVersion,
  tenant,
  traceparent
}: LogRecord): string => JSON.stringify({ key, eventTime, eventId, tenant, traceparent, schemaVersion, headers })
/** The record of an envelope, to be appended again. Where a retry is retried, the header of that one is left out. */
export const recordFromEnvelope = (envelope: string, partition: number, value: string | null): NewRecord => {
  const { headers, ...rest } = JSON.parse(envelope) as Pick<NewRecord, "key" | "eventTime" | "headers"> &
    Partial<NewRecord>
  const { [retryHeader]: _, ...own } = headers
  const { eventId, schemaVersion, tenant, traceparent } = rest
  return { ...rest, partition, value, eventId, tenant, traceparent, schemaVersion, headers: own }
}
/** The record that asks for a retry: the parked one once more, so that readers who know nothing of retries see a duplicate. */
export const retryRecord = (record: NewRecord, projection: string, position: number): NewRecord => ({
  ...record,
  headers: { ...record.headers, [retryHeader]: `${projection}/${position}` }
})
