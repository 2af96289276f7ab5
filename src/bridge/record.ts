// A record as a bridge carries it between Kafka and Pulsar, and how one is made from a record of the log. Pure.
import type { LogRecord } from "../log/log.ts"

/** A record between the two sides. Its headers are Kafka's headers or Pulsar's properties, those of the envelope among them. */
export interface BridgeRecord {
  /** The record's key; null if it has none. */
  readonly key: string | null
  /** Null deletes the key of a compacted topic; on Pulsar it is the empty payload. */
  readonly value: string | null
  /** Epoch milliseconds. */
  readonly eventTime: number
  /** The headers by name. */
  readonly headers: Readonly<Record<string, string>>
}

/** A record of Kafka's log, with the envelope (event id, tenant, trace, schema version) back in its headers, as Kafka has it. */
export const fromLogRecord = (record: LogRecord): BridgeRecord => {
  const { eventId, eventTime, headers, key, schemaVersion, tenant, traceparent, value } = record
  const all: Record<string, string> = Object.assign(Object.create(null), headers) as Record<string, string>
  if (eventId !== undefined) all["event_id"] = eventId
  if (tenant !== undefined) all["tenant"] = tenant
  if (traceparent !== undefined) {
    all["traceparent"] = traceparent
    all["trace_id"] ??= traceparent.slice(3, 35)
  }
  if (schemaVersion !== undefined) all["schema_version"] = String(schemaVersion)
  return { key, value, eventTime, headers: all }
}
