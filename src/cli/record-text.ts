// Formats records of a log for `millrace tail`, as lines for people and as JSON that loses nothing. Pure.
import type { LogRecord } from "../log/log.ts"
import { appendTimeOf } from "../log/log.ts"
import { terminalLine, terminalText } from "./terminal-text.ts"

/** A value's text as JSON on one line: the text itself if it is JSON, so that no number loses a digit; otherwise a string with the text. */
const valueJson = (value: string | null): string => {
  if (value === null) return "null"
  try {
    JSON.parse(value)
    // outside of its strings, where JSON has no line ends, they mean nothing
    return value.replaceAll(/[\r\n]+/g, " ")
  } catch {
    return JSON.stringify(value)
  }
}

/** The type of the event that a value is: its field `type`. Undefined if the value has none. */
export const eventTypeOf = (value: string | null): string | undefined => {
  if (value === null) return undefined
  try {
    const { type } = (JSON.parse(value) ?? {}) as { readonly type?: unknown }
    return typeof type === "string" ? type : undefined
  } catch {
    return undefined
  }
}

const isoTime = (ms: number): string | null => {
  const date = new Date(ms)
  return Number.isNaN(date.getTime()) ? null : date.toISOString()
}

/** A record as one line of JSON: what accompanies it, and its value with the digits that it was written with. */
export const recordJson = (topic: string, record: LogRecord): string => {
  const { eventId, eventTime, headers, key, partition, position, schemaVersion, tenant, traceparent, value } = record
  const appended = appendTimeOf(record)
  const fields = {
    topic,
    partition,
    position,
    key,
    type: eventTypeOf(value),
    event_time: isoTime(eventTime),
    appended_at: appended === undefined ? null : isoTime(appended),
    event_id: eventId,
    tenant,
    traceparent,
    schema_version: schemaVersion,
    headers
  }
  // JSON.stringify would round numbers of the value
  return terminalText(`${JSON.stringify(fields).slice(0, -1)},"value":${valueJson(value)}}`)
}

/** A record as a line for people: time, place, tenant, key, and the value as it is; `deleted` for the end of a key. */
export const recordLine = ({ eventTime, key, partition, position, tenant, value }: LogRecord): string =>
  terminalLine(
    [
      isoTime(eventTime) ?? String(eventTime),
      `${partition}:${position}`,
      ...(tenant === undefined ? [] : [tenant]),
      key ?? "(no key)",
      value ?? "deleted"
    ].join("  ")
  )
