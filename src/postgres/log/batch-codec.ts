// Packs the records of a batch into the two texts of a row, and unpacks them. The DDL documents the row. Pure.
import { aggregateHeaders, incarnationDigits, streamHeaders } from "../../log/envelope.ts"
import type { LogRecord, NewRecord, Position } from "../../log/log.ts"

/** Records in the form of a row of `log_batch`. */
export interface PackedRecords {
  /** A JSON array with one array for each record. */
  readonly meta: string
  /** One line for each record's value; an empty line for a deletion. */
  readonly vals: string
  readonly records: number
  /** UTF-8 bytes of the values. */
  readonly bytes: number
}
/** A row of `log_batch`. */
export interface BatchRow {
  readonly partition: number
  readonly base: Position
  readonly next: Position
  readonly bytes: number
  /** Epoch milliseconds. */
  readonly appendedAt: number
  readonly meta: string
  readonly vals: string
  /** In a row that a relay copied: the outbox stream, and the sequence number of the first record in it. */
  readonly stream?: string | null
  readonly firstSeq?: number | null
  readonly incarnation?: string | null
  /** In a row of an aggregate's events: the version of the first in its event stream. */
  readonly firstVersion?: number | null
}
/** What is stored of a record in addition when its row was compacted. */
export interface CompactedRecord {
  /** The position, relative to the row's base. */
  readonly offset: number
  /** How many milliseconds before the row's `appended_at` it was appended. */
  readonly before: number
  /** From when on a deletion may be removed, in epoch milliseconds. */
  readonly forgetAt: number | undefined
}
/** What is stored of a record beside its value. */
export type Meta = [
  key: string | null,
  eventTime: number,
  eventId?: string | null,
  tenant?: string | null,
  traceparent?: string | null,
  schemaVersion?: number | null,
  headers?: Record<string, string> | number | null,
  offset?: number | null,
  before?: number | null,
  forgetAt?: number | null
]

const noHeaders: Readonly<Record<string, string>> = Object.freeze({})
const hasAny = (headers: Readonly<Record<string, string>>) => {
  for (const _ in headers) return true
  return false
}

/** Packs records in their order. `compacted` has an element for each record of a compacted row. */
export const pack = (records: ReadonlyArray<NewRecord>, compacted?: ReadonlyArray<CompactedRecord>): PackedRecords => {
  const metas: Array<Meta> = []
  const values: Array<string> = []
  const seen = new Map<object, number>()
  let last: object = noHeaders
  let shared: Record<string, string> | number | null = null
  for (let i = 0; i < records.length; i++) {
    const record = records[i]!
    let headers: Record<string, string> | number | null = shared
    if (record.headers !== last) {
      last = record.headers
      const first = seen.get(last)
      if (first === undefined) seen.set(last, i)
      headers = first ?? (hasAny(record.headers) ? record.headers : null)
      shared = headers === null ? null : (first ?? i)
      if (headers === null) seen.delete(last)
    }
    const extra = compacted?.[i]
    const meta: Meta = [
      record.key,
      record.eventTime,
      record.eventId ?? null,
      record.tenant ?? null,
      record.traceparent ?? null,
      record.schemaVersion ?? null,
      headers
    ]
    if (extra !== undefined) meta.push(extra.offset, extra.before === 0 ? null : extra.before, extra.forgetAt ?? null)
    while (meta.length > 2 && meta[meta.length - 1] === null) meta.pop()
    metas.push(meta)
    values.push(record.value ?? "")
  }
  const vals = values.join("\n")
  return { meta: JSON.stringify(metas), vals, records: records.length, bytes: Buffer.byteLength(vals) }
}

/** The headers that identify a message of a stream. Only the first digits of its segment's `incarnation` are kept. */
export const identityHeaders = (
  stream: string,
  seq: number,
  incarnation: string | null | undefined
): Record<string, string> =>
  incarnation == null
    ? { [streamHeaders.stream]: stream, [streamHeaders.sequence]: String(seq) }
    : {
        [streamHeaders.stream]: stream,
        [streamHeaders.sequence]: String(seq),
        [streamHeaders.incarnation]: incarnation.slice(0, incarnationDigits)
      }

/** The headers of a row's i-th record, with those that the row has for all of them. */
const withRowHeaders = (
  row: Pick<BatchRow, "firstSeq" | "firstVersion" | "incarnation" | "stream">,
  i: number,
  headers: Readonly<Record<string, string>>
) => {
  if (row.firstVersion != null) return { ...headers, [aggregateHeaders.version]: String(row.firstVersion + i) }
  return row.stream == null
    ? headers
    : { ...headers, ...identityHeaders(row.stream, row.firstSeq! + i, row.incarnation) }
}

/** Unpacks the records of a row from a position on, and appends them to `into`. Records with the same headers share the object. */
export const unpack = (row: BatchRow, from: Position, into: Array<LogRecord>): void => {
  const metas = JSON.parse(row.meta) as Array<Meta>
  if (metas.length > 0) unpackParsed(row, { metas, values: row.vals.split("\n"), at: 0 }, from, into)
}
/** The same for a row that is parsed already. The value of its first record is `values[at]`. */
export const unpackParsed = (
  row: Omit<BatchRow, "bytes" | "meta" | "next" | "vals">,
  {
    at,
    metas,
    values
  }: { readonly metas: ReadonlyArray<Meta>; readonly values: ReadonlyArray<string>; readonly at: number },
  from: Position,
  into: Array<LogRecord>
): void => {
  for (let i = 0; i < metas.length; i++) {
    const meta = metas[i]!
    const position = row.base + (meta[7] ?? i)
    if (position < from) continue
    const own = meta[6]
    const headers = own == null ? noHeaders : typeof own === "number" ? (metas[own]![6] as Record<string, string>) : own
    const value = values[at + i]!
    into.push({
      partition: row.partition,
      position,
      key: meta[0],
      value: value === "" ? null : value,
      eventTime: meta[1],
      eventId: meta[2] ?? undefined,
      tenant: meta[3] ?? undefined,
      traceparent: meta[4] ?? undefined,
      schemaVersion: meta[5] ?? undefined,
      headers: withRowHeaders(row, i, headers),
      appendedAt: row.appendedAt - (meta[8] ?? 0)
    })
  }
}

/** Key, relative position and removal time of each record of a row, without its values. */
export const outline = (
  meta: string
): ReadonlyArray<{ readonly key: string | null; readonly offset: number; readonly forgetAt: number | undefined }> =>
  (JSON.parse(meta) as Array<Meta>).map((record, i) => ({
    key: record[0],
    offset: record[7] ?? i,
    forgetAt: record[9] ?? undefined
  }))
