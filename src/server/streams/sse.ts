// Server-sent events as text: records with an id to resume from, control frames without one. Pure.
import type { LogRecord, Position } from "../../log/log.ts"

/** The position of an HTTP stream in its topic: for each partition, the position that comes next. */
export type StreamPositions = Array<Position>

/** The id of a record: a client that resumes with it continues after that record, in every partition. */
export const streamId = (vector: Readonly<StreamPositions>): string => vector.join(".")

/** Parses an id. Undefined if it is not an id, or has another number of partitions. */
export const parseStreamId = (id: string, partitions: number): StreamPositions | undefined => {
  if (!/^\d{1,15}(\.\d{1,15})*$/.test(id)) return undefined
  const vector = id.split(".").map(Number)
  return vector.length === partitions ? vector : undefined
}

/** A record as an event. The deletion of a key in a compacted topic is an event `delete`. */
export const recordFrame = (id: string, event: string, { key, value }: LogRecord): string =>
  value === null
    ? `id: ${id}\nevent: delete\ndata: ${JSON.stringify({ key, value })}\n\n`
    : `id: ${id}\nevent: ${event}\ndata: ${value}\n\n`

/** A comment: clients ignore it, and it keeps proxies from closing the connection. */
export const commentFrame = (text: string): string => `: ${text}\n\n`

/** The event that a server sends before it ends a stream. It has no id, so a client that resumes misses no record. */
export const endFrame = (reason: string, message: string, advice: string): string =>
  `event: end\ndata: ${JSON.stringify({ reason, message, try: advice })}\n\n`
