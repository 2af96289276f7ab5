// Converts records of the log to records of Kafka and back. The envelope travels in the headers of
// `envelopeHeaders`; all other header names are the user's. Pure.
import { envelopeHeaders as names, traceIdOf } from "../../log/envelope.ts"
import type { LogRecord, NewRecord } from "../../log/log.ts"
import { singleLineJson } from "../../log/rules.ts"
import { type Compression, decode, encode } from "../protocol/protocol.ts"

/** Header names that users cannot have. */
const own = new Set<string>(Object.values(names))

/** A schema version as a header: a whole number from 1 to 2^31 - 1. */
const versionOf = (text: string): number | undefined =>
  /^[1-9]\d{0,9}$/.test(text) && Number(text) < 2 ** 31 ? Number(text) : undefined
/** A number of milliseconds, as `String` writes finite numbers. */
const timeOf = (text: string): number | undefined =>
  wholeOf(text) ?? (/^-?\d+(\.\d+)?(e[-+]\d+)?$/.test(text) && Number.isFinite(Number(text)) ? Number(text) : undefined)
/** The number of up to 15 digits, as almost every time is written; undefined for any other text. */
const wholeOf = (text: string): number | undefined => {
  if (text.length === 0 || text.length > 15) return undefined
  let value = 0
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 48
    if (digit < 0 || digit > 9) return undefined
    value = value * 10 + digit
  }
  return value
}

/**
 * The headers of a record, in order. A user's header with a name of the envelope is left out; a schema version that could not be read is
 * written again as it was.
 */
export const headersOf = (record: NewRecord): Array<readonly [string, string]> => {
  const { eventId, eventTime, headers, schemaVersion, tenant, traceparent } = record
  const list: Array<readonly [string, string]> = [[names.eventTime, String(eventTime)]]
  if (eventId !== undefined) list.push([names.eventId, eventId])
  if (tenant !== undefined) list.push([names.tenant, tenant])
  const trace = traceIdOf(traceparent)
  if (traceparent !== undefined && trace !== undefined)
    list.push([names.traceId, trace], [names.traceparent, traceparent])
  if (schemaVersion !== undefined) list.push([names.schemaVersion, String(schemaVersion)])
  for (const name in headers) {
    const isUnread = name === names.schemaVersion && schemaVersion === undefined
    if (!own.has(name) || isUnread) list.push([name, headers[name]!])
  }
  return list
}

/** A traceparent for a trace of which only the id is known; its last half serves as the span id. Undefined if it is not a trace id. */
const traceparentOf = (trace: string): string | undefined =>
  /^[\da-f]{32}$/.test(trace) && !trace.endsWith("0000000000000000") ? `00-${trace}-${trace.slice(16)}-01` : undefined

const none: Readonly<Record<string, string>> = Object.freeze({})
/**
 * The envelope that headers contain. Other producers write no `event_time`; then the event time is undefined, and the record's time counts. An
 * event time or a schema version that cannot be read stays among the other headers, for which `assertAcceptable` refuses the record.
 */
export type Heading = Omit<NewRecord, "partition" | "key" | "value" | "eventTime"> & {
  readonly eventTime: number | undefined
}

/** The envelope of headers in their order; the last one of a name counts, as in Kafka's own clients. */
export const headingOf = (list: ReadonlyArray<readonly [string, string]>): Heading => {
  let eventId: string | undefined
  let eventTime: number | undefined
  let schemaVersion: number | undefined
  let tenant: string | undefined
  let trace: string | undefined
  let traceparent: string | undefined
  let headers: Record<string, string> | undefined
  const keep = (name: string, value: string) => {
    headers ??= {}
    if (name === "__proto__") Object.defineProperty(headers, name, { value, enumerable: true, configurable: true })
    else headers[name] = value
  }
  /** Of several headers with the name only the last counts, so what an earlier one left behind goes. */
  const unlessUnread = <A>(name: string, value: string, read: A | undefined): A | undefined => {
    if (headers !== undefined) delete headers[name]
    if (read === undefined) keep(name, value)
    return read
  }
  for (const [name, value] of list) {
    if (name === names.eventTime) eventTime = unlessUnread(name, value, timeOf(value))
    else if (name === names.eventId) eventId = value
    else if (name === names.tenant) tenant = value
    else if (name === names.traceparent) traceparent = value
    else if (name === names.traceId) trace = value
    else if (name === names.schemaVersion) schemaVersion = unlessUnread(name, value, versionOf(value))
    else keep(name, value)
  }
  // a producer that sends only a trace id still wants the trace continued
  if (traceparent === undefined && trace !== undefined) traceparent = traceparentOf(trace)
  // `traceparent` contains it already, unless another producer wrote a different one
  if (trace !== undefined && trace !== traceIdOf(traceparent)) keep(names.traceId, trace)
  return { eventId, eventTime, tenant, traceparent, schemaVersion, headers: headers ?? none }
}

/** A value on one line if it is JSON; any other, and what is not UTF-8, stays as it is, for its reader to refuse. */
const readValue = (value: string): string => (value.isWellFormed() ? (singleLineJson(value) ?? value) : value)

/** A record of the log from one of Kafka. */
const recordOf = (
  partition: number,
  position: number,
  key: string | null,
  value: string | null,
  list: ReadonlyArray<readonly [string, string]>,
  appendedAt: number,
  isOfBroker: boolean
): LogRecord => {
  const { eventId, eventTime = appendedAt, headers, schemaVersion, tenant, traceparent } = headingOf(list)
  const record = {
    partition,
    key,
    value: value === null ? null : readValue(value),
    eventTime,
    eventId,
    tenant,
    traceparent,
    schemaVersion,
    headers,
    position,
    appendedAt
  }
  return isOfBroker ? record : { ...record, isTimeOfProducer: true }
}

/** The committed records of fetched batches from a position on, and where the next batch starts. Throws as `decode` does. */
export const decodeRecords = (bytes: Buffer, partition: number, from: number, aborted: Parameters<typeof decode>[3]) =>
  decode(bytes, partition, from, aborted, recordOf)

/** One batch of all records; `now` and `inTransaction` are those of `encode`. */
export const encodeRecords = (
  records: ReadonlyArray<NewRecord>,
  compression: Compression,
  now: number,
  inTransaction = false
): Buffer => encode(records, headersOf, compression, now, inTransaction)
