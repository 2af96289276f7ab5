// How a message stands in a packed segment or batch. Adapters unpack; nothing here reads or writes.
import { quoted } from "../model/json-codec.ts"

/** One element of a segment's `meta`, as in the log's batches: key, event time, event id, tenant, traceparent, and the schema's version unless it is 1. */
export const metaText = (
  key: string,
  eventTime: number,
  eventId: string | undefined,
  tenant: string | undefined,
  traceparent: string | undefined,
  schemaVersion = 1
): string =>
  `[${quoted(key)},${eventTime},${eventId === undefined ? "null" : quoted(eventId)},` +
  `${tenant === undefined ? "null" : quoted(tenant)},${traceparent === undefined ? "null" : quoted(traceparent)}` +
  (schemaVersion === 1 ? "]" : `,${schemaVersion}]`)
