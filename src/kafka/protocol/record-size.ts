// How much a record takes, about: what cuts batches to append, and what bounds those that were read. It counts characters, not bytes.
import type { NewRecord } from "../../log/log.ts"

/** What a record takes beside its text. */
const overhead = 120

/** A record's characters, and something for the rest. */
export const sizeOf = ({ headers, key, value }: NewRecord): number => {
  let size = overhead + (key?.length ?? 0) + (value?.length ?? 0)
  for (const name in headers) size += name.length + headers[name]!.length
  return size
}
