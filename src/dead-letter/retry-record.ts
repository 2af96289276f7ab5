// Retry records: what a dead letter keeps of its record, and the record that asks the projection to process it again. Pure.
import type { LogRecord, NewRecord } from "../log/log.ts"
import { singleLineJson } from "../log/rules.ts"

/**
 * The header of a retry record: `<projection>/<position of the parked record in the same partition>`. That projection processes the dead
 * letter, not this record; every other projection of the topic skips it.
 */
export const retryHeader = "millrace-retry"
/** Whether a record is a retry record, of any projection. */
export const isRetry = (record: LogRecord | undefined): boolean => record?.headers[retryHeader] !== undefined
/** The position of the parked record that a record retries for this projection. Undefined if it retries none of it. */
export const retriedBy = (record: LogRecord, projection: string): number | undefined => {
  const [name, position] = (record.headers[retryHeader] ?? "").split("/")
  return name === projection && /^\d{1,15}$/.test(position ?? "") ? Number(position) : undefined
}

/** Everything of a record but its position and value, as JSON text that PostgreSQL can store. */
export const storedEnvelope = ({
  eventId,
  eventTime,
  headers,
  key,
  schemaVersion,
  tenant,
  traceparent
}: LogRecord): string => JSON.stringify({ key, eventTime, eventId, tenant, traceparent, schemaVersion, headers })
/** The record that a stored envelope describes, to append it again. A retry header in it is left out. */
export const recordFromEnvelope = (envelope: string, partition: number, value: string | null): NewRecord => {
  const { headers, ...rest } = JSON.parse(envelope) as Pick<NewRecord, "key" | "eventTime" | "headers"> &
    Partial<NewRecord>
  const { [retryHeader]: _, ...own } = headers
  const { eventId, schemaVersion, tenant, traceparent } = rest
  return { ...rest, partition, value, eventId, tenant, traceparent, schemaVersion, headers: own }
}
/**
 * The retry record of a parked record: a copy of it with the header, so that other readers of the topic see a duplicate. A value that is not
 * JSON, which no log takes, is in it as a JSON text.
 */
export const retryRecord = (record: NewRecord, projection: string, position: number): NewRecord => ({
  ...record,
  value: record.value === null ? null : (singleLineJson(record.value) ?? JSON.stringify(record.value)),
  headers: { ...record.headers, [retryHeader]: `${projection}/${position}` }
})
