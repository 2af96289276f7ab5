// Server-sent events as text: records with a resumable id, control frames without one. It writes nothing.
import type { LogRecord, Position } from "../../log/log.ts"

/** The place of a stream in its topic: for each partition the position that comes next. */
export type Vector = Array<Position>

/** The id of the last record that was sent: a resume goes on behind it, in every partition. */
export const idOf = (vector: Readonly<Vector>): string => vector.join(".")

/** Reads an id. Undefined where it is none, or of another number of partitions. */
export const vectorOf = (id: string, partitions: number): Vector | undefined => {
  if (!/^\d{1,15}(\.\d{1,15})*$/.test(id)) return undefined
  const vector = id.split(".").map(Number)
  return vector.length === partitions ? vector : undefined
}

/** One record. A deleted key of a compacted topic is an event `delete`. */
export const recordFrame = (id: string, event: string, { key, value }: LogRecord): string =>
  value === null
    ? `id: ${id}\nevent: delete\ndata: ${JSON.stringify({ key, value })}\n\n`
    : `id: ${id}\nevent: ${event}\ndata: ${value}\n\n`

/** A comment, which clients ignore and proxies see. */
export const commentFrame = (text: string): string => `: ${text}\n\n`

/** What a server says before it ends a stream. No id, so that a resume misses nothing. */
export const endFrame = (reason: string, message: string, advice: string): string =>
  `event: end\ndata: ${JSON.stringify({ reason, message, try: advice })}\n\n`
