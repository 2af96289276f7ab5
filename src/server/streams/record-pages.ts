// Pages of the records of one partition, forwards or backwards, and the bounded search for records of a key, a type or a tenant.
import { isForReaders } from "../../dead-letter/retry-record.ts"
import type { LogRecord, PartitionBounds, Position } from "../../log/log.ts"
import { answerOf, readProblem } from "./problems.ts"
import type { StreamParts } from "./routes.ts"

/** Which records a page has. */
export interface PageRequest {
  readonly topic: string
  readonly bounds: PartitionBounds
  /** The position of the first record; backwards, the one after the newest record. */
  readonly from: Position
  readonly isBackwards: boolean
  readonly limit: number
  /** Undefined: all records are wanted, and a page that has too few is not filled up. */
  readonly wants: ((record: LogRecord) => boolean) | undefined
}
/** A page of records. */
export interface RecordPage {
  /** In the order of the page: backwards, the newest first. */
  readonly records: ReadonlyArray<LogRecord>
  /** The partition's end at the time of the read. */
  readonly end: Position
  /** `from` of the next page. */
  readonly next: Position
  /** The positions that were looked at: the first, and the one after the last. */
  readonly searched: { readonly from: Position; readonly to: Position }
}

/** The values of one page, in characters. */
const pageBytes = 1024 * 1024
/** How far one request looks for records that it wants: positions, characters of values, and milliseconds. */
export const mostSearched = { positions: 50_000, bytes: 16 * 1024 * 1024, ms: 2_000 }

const sizeOf = (records: ReadonlyArray<LogRecord>) => records.reduce((sum, { value }) => sum + (value?.length ?? 0), 0)

/** Reads a page. Rejects with a `Problem`. */
export const readPage = async (parts: StreamParts, request: PageRequest): Promise<RecordPage> => {
  const { bounds, from, isBackwards, limit } = request
  if (limit === 0) return { records: [], end: bounds.end, next: from, searched: { from, to: from } }
  return isBackwards ? readBackwards(parts, request) : readForwards(parts, request)
}

const reading = ({ context, log }: StreamParts, { bounds, topic }: PageRequest) => {
  let bytes = 0
  const started = performance.now()
  return {
    read: async (position: Position) => {
      const found = log.read(topic, bounds.partition, position, { maxBytes: pageBytes })
      const batch = await answerOf(context, found, readProblem)
      bytes += sizeOf(batch.records)
      return batch
    },
    /** Whether the search may go on after so many positions. */
    mayGoOn: (positions: number) =>
      positions < mostSearched.positions && bytes < mostSearched.bytes && performance.now() - started < mostSearched.ms
  }
}

const readForwards = async (parts: StreamParts, request: PageRequest): Promise<RecordPage> => {
  const { from, limit, wants } = request
  const { mayGoOn, read } = reading(parts, request)
  const records: Array<LogRecord> = []
  let next = from
  let size = 0
  while (true) {
    const batch = await read(next)
    const { end } = batch
    const found = batch.records.filter((record) => isForReaders(record) && wants?.(record) !== false)
    for (const [i, record] of found.entries()) {
      records.push(record)
      size += record.value?.length ?? 0
      if (records.length < limit && (wants === undefined || size < pageBytes)) continue
      // the position after the last record of the page, or after all that was read
      const after = found[i + 1]?.position ?? batch.next
      return { records, end, next: after, searched: { from, to: after } }
    }
    const hasMoved = batch.next > next
    next = batch.next
    if (wants === undefined || !hasMoved || next >= end || !mayGoOn(next - from))
      return { records, end, next, searched: { from, to: next } }
  }
}

const readBackwards = async (parts: StreamParts, request: PageRequest): Promise<RecordPage> => {
  const { bounds, from, limit, wants } = request
  const { mayGoOn, read } = reading(parts, request)
  const records: Array<LogRecord> = []
  let low = from
  let { end } = bounds
  let size = 0
  let step = Math.min(limit, 100)
  while (low > bounds.start && mayGoOn(from - low)) {
    const chunk = await readRange(read, Math.max(bounds.start, low - step), low)
    end = chunk.end
    for (const record of chunk.records.toReversed()) {
      if (!isForReaders(record) || wants?.(record) === false) continue
      records.push(record)
      size += record.value?.length ?? 0
      if (records.length >= limit || size >= pageBytes)
        return { records, end, next: record.position, searched: { from: record.position, to: from } }
    }
    low = chunk.from
    step = chunk.bytes > pageBytes / 4 ? Math.max(1, Math.floor(step / 2)) : Math.min(step * 2, 5_000)
  }
  return { records, end, next: low, searched: { from: low, to: from } }
}
/** The records from `from` up to `to`, or as many of the last of them as fit into a page. */
const readRange = async (read: ReturnType<typeof reading>["read"], from: Position, to: Position) => {
  let records: Array<LogRecord> = []
  let first = from
  let next = from
  let end = to
  let bytes = 0
  while (next < to) {
    const batch = await read(next)
    end = batch.end
    const found = batch.records.filter(({ position }) => position < to)
    records.push(...found)
    bytes += sizeOf(found)
    let gone = 0
    while (bytes > pageBytes && gone < records.length - 1) bytes -= records[gone++]!.value?.length ?? 0
    if (gone > 0) first = records[gone - 1]!.position + 1
    records = records.slice(gone)
    if (batch.next <= next) break
    next = batch.next
  }
  return { records, from: first, end, bytes }
}
