// An envelope as Kafka headers and back: `event_id`, `tenant`, `trace_id`, `traceparent`, `schema_version` and `event_time` are its own
// names, all others the user's. It reads and writes no bytes.
import { envelopeHeaders as names, traceIdOf } from "../../log/envelope.ts"
import type { NewRecord } from "../../log/log.ts"

/** Event time is a header, for the record's time is the broker's: retention goes by it, and an event of 2013 must not expire at once. */
const own = new Set<string>(Object.values(names))

/** The headers of a record, in order. A user's header that has a name of the envelope is left out. */
export const headersOf = (record: NewRecord): Array<readonly [string, string]> => {
  const { eventId, eventTime, headers, schemaVersion, tenant, traceparent } = record
  const list: Array<readonly [string, string]> = [[names.eventTime, String(eventTime)]]
  if (eventId !== undefined) list.push([names.eventId, eventId])
  if (tenant !== undefined) list.push([names.tenant, tenant])
  const trace = traceIdOf(traceparent)
  if (traceparent !== undefined && trace !== undefined)
    list.push([names.traceId, trace], [names.traceparent, traceparent])
  if (schemaVersion !== undefined) list.push([names.schemaVersion, String(schemaVersion)])
  for (const name in headers) if (!own.has(name)) list.push([name, headers[name]!])
  return list
}

/** A context for a trace of which only the id is known; its last half stands for the span. Undefined where it is no id. */
const traceparentOf = (trace: string): string | undefined =>
  /^[\da-f]{32}$/.test(trace) && !trace.endsWith("0000000000000000") ? `00-${trace}-${trace.slice(16)}-01` : undefined

const none: Readonly<Record<string, string>> = Object.freeze({})
/** What headers say. Event time is the record's where no header tells it: others' producers know nothing of it. */
export type Heading = Omit<NewRecord, "partition" | "key" | "value" | "eventTime"> & {
  readonly eventTime: number | undefined
}

/** The envelope of headers in their order; the last of a name holds. */
export const headingOf = (list: ReadonlyArray<readonly [string, string]>): Heading => {
  let eventId: string | undefined
  let eventTime: number | undefined
  let schemaVersion: number | undefined
  let tenant: string | undefined
  let trace: string | undefined
  let traceparent: string | undefined
  let headers: Record<string, string> | undefined
  for (const [name, value] of list) {
    if (name === names.eventTime) eventTime = value !== "" && Number.isFinite(Number(value)) ? Number(value) : undefined
    else if (name === names.eventId) eventId = value
    else if (name === names.tenant) tenant = value
    else if (name === names.traceparent) traceparent = value
    else if (name === names.traceId) trace = value
    else if (name === names.schemaVersion && /^\d{1,9}$/.test(value)) schemaVersion = Number(value)
    else if (name === "__proto__") Object.defineProperty((headers ??= {}), name, { value, enumerable: true })
    else (headers ??= {})[name] = value
  }
  // who sends only the id of a trace still wants it carried on
  if (traceparent === undefined && trace !== undefined) traceparent = traceparentOf(trace)
  // told by `traceparent` already, unless somebody else wrote it
  if (trace !== undefined && trace !== traceIdOf(traceparent)) (headers ??= {})[names.traceId] = trace
  return { eventId, eventTime, tenant, traceparent, schemaVersion, headers: headers ?? none }
}
