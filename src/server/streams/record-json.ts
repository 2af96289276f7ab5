// A record as JSON, as pages of records and streams with `envelope=record` have it. Pure.
import { traceIdOf } from "../../log/envelope.ts"
import type { LogRecord } from "../../log/log.ts"
import { described, integer, nullable, object, text } from "../http/json-schema.ts"
import { dataOf } from "./values.ts"

/** The JSON text of a record. Its value is the text from the log, so that no digit of a number is lost; one that is no JSON becomes a JSON string. */
export const recordJson = (record: LogRecord): string => {
  const head = JSON.stringify({
    partition: record.partition,
    position: record.position,
    key: record.key,
    event_time: record.eventTime,
    appended_at: record.appendedAt,
    event_id: record.eventId,
    tenant: record.tenant,
    trace_id: traceIdOf(record.traceparent),
    traceparent: record.traceparent,
    schema_version: record.schemaVersion,
    headers: record.headers
  })
  return `${head.slice(0, -1)},"value":${record.value === null ? "null" : dataOf(record)}}`
}

const texts = new WeakMap<LogRecord, string>()
/** The data of a stream's message with `envelope=record`: the record, and how many positions of the topic wait behind it in the stream. */
export const envelopeOf = (record: LogRecord, waiting: number): string => {
  let text = texts.get(record)
  if (text === undefined) texts.set(record, (text = recordJson(record).slice(0, -1)))
  return `${text},"waiting":${waiting}}`
}

/** The schema of a record. */
export const recordSchema = object(
  {
    partition: integer,
    position: integer,
    key: nullable(text),
    event_time: described(integer, "epoch milliseconds"),
    appended_at: described(integer, "when the log stored it, epoch milliseconds; not above 0 if that is not known"),
    headers: { type: "object", additionalProperties: text },
    value: described({}, "JSON; null deletes the key of a compacted topic")
  },
  { event_id: text, tenant: text, trace_id: text, traceparent: text, schema_version: integer }
)
