// Reads the log on PostgreSQL: one query for each read, and a reader that waits until there is more.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type postgres from "postgres"
import {
  type Batch,
  type LogRecord,
  OutOfRange,
  type Position,
  type ReadError,
  type Reader,
  UnknownTopic
} from "../../log/log.ts"
import { splitBatch } from "../../log/rules.ts"
import { tellRead } from "../../log/stages.ts"
import { type BatchRow, unpack } from "./batch-codec.ts"
import { logQuery } from "./errors.ts"
import type { LogListeners } from "./listeners.ts"
import { arrayLiteral } from "../client/types.ts"

/** A partition to read, and how much at once. */
export interface ReadSource {
  readonly topicId: number
  readonly topic: string
  readonly partition: number
  /** How many bytes of values the next read may return. */
  readonly maxBytes: () => number
  /** Whether a row has few records, of one command, so that a read needs many. */
  readonly isAggregate: boolean
}
/** How many rows one read returns at most, in case there are many small ones: one that may be larger than usual returns more. */
const rowsAtOnce = ({ isAggregate, maxBytes }: ReadSource) => Math.max(256, maxBytes() >> (isAggregate ? 8 : 12))

/** Reads from several positions at once. Returns the request's number with each row, and no row for a partition that does not exist. */
const query = `
select a.place::int4, h.start_position, h.next_position as end_position, b.base_position, b.next_position, b.bytes, b.appended_ms, b.meta,
  b.vals, b.stream, b.first_seq::float8 as first_seq, b.incarnation, b.first_version::float8 as first_version
from unnest($1::int4[], $2::int4[], $3::int8[], $4::int8[]) with ordinality as a(topic_id, partition, position, max_bytes, place)
join millrace.log_head h on h.topic_id = a.topic_id and h.partition = a.partition
left join lateral (
  select * from (
    select c.*, row_number() over w as n, sum(c.bytes) over w as total
    from (
      select base_position, next_position, bytes, (extract(epoch from appended_at) * 1000)::float8 as appended_ms, meta, vals,
        stream, first_seq, incarnation, first_version
      from millrace.log_batch
      where topic_id = a.topic_id and partition = a.partition and next_position > a.position and base_position >= (
        select base_position from millrace.log_batch
        where topic_id = a.topic_id and partition = a.partition and base_position <= a.position order by base_position desc limit 1)
      order by base_position limit ROWS
    ) c
    window w as (order by c.base_position)
  ) d where n = 1 or total <= a.max_bytes
) b on h.start_position <= a.position and h.next_position > a.position
order by a.place, b.base_position`
/** The query by the number of rows: a parameter in its place would spoil the plan. */
const queryOf = (rows: number) => query.replace("ROWS", String(rows))

interface FoundRow {
  readonly place: number
  readonly start_position: string | number
  readonly end_position: string | number
  readonly base_position: string | number | null
  readonly next_position: string | number
  readonly bytes: number
  readonly appended_ms: number
  readonly meta: string
  readonly vals: string
  readonly stream: string | null
  readonly first_seq: number | null
  readonly incarnation: string | null
  readonly first_version: number | null
}

/** A partition, and the position to read from. */
export interface ReadRequest {
  readonly source: ReadSource
  readonly position: Position
}
const ask = (sql: postgres.Sql, asked: ReadonlyArray<ReadRequest>) => {
  const parameters = [
    asked.map(({ source }) => source.topicId),
    asked.map(({ source }) => source.partition),
    asked.map(({ position }) => position),
    asked.map(({ source }) => source.maxBytes())
  ]
  const rows = Math.max(...asked.map(({ source }) => rowsAtOnce(source)))
  return sql.unsafe<Array<FoundRow>>(queryOf(rows), parameters.map(arrayLiteral), { prepare: true })
}

const requestsAtOnce = 32
/** A reader with at most so many records to read shares a query, so that its result stays small. */
const few = 100

/**
 * Reads the ends of partitions for the readers that were just woken. Requests that come while a query is under way share the next one:
 * a trickle over many partitions costs one query for each round, and under load rounds get larger instead of more.
 */
export class TailReader {
  private readonly waiting: Array<ReadRequest & { readonly done: (rows: Promise<ReadonlyArray<FoundRow>>) => void }> =
    []
  private busy = false
  private readonly sql: postgres.Sql

  constructor(sql: postgres.Sql) {
    this.sql = sql
  }

  /** The rows from one position on. */
  read(asked: ReadRequest): Promise<ReadonlyArray<FoundRow>> {
    return new Promise((resolve) => {
      this.waiting.push({ ...asked, done: resolve })
      if (!this.busy) void this.rounds()
    })
  }

  private async rounds(): Promise<void> {
    this.busy = true
    // other readers that the same notification woke ask in this turn of the event loop
    await new Promise((resolve) => void setImmediate(resolve))
    while (this.waiting.length > 0) {
      const round = this.waiting.splice(0, requestsAtOnce)
      const rows = ask(this.sql, round).then((found) => Map.groupBy(found, ({ place }) => place))
      for (const [i, { done }] of round.entries()) done(rows.then((byPlace) => byPlace.get(i + 1) ?? []))
      await rows.catch(() => undefined)
    }
    this.busy = false
  }
}

/** Decodes the rows of a read from a position on. The batch may exceed `maxBytes` by the last row; split it then. */
const decoded = ({ partition, topic }: ReadSource, position: Position, rows: ReadonlyArray<FoundRow>) => {
  const came = performance.now()
  const head = rows[0]
  if (head === undefined)
    return new UnknownTopic({ topic, reason: `the topic was deleted, or has no partition ${partition}` })
  const start = Number(head.start_position)
  const end = Number(head.end_position)
  if (!(position >= start && position <= end)) return new OutOfRange({ topic, partition, position, start, end })
  const records: Array<LogRecord> = []
  let next = position
  let bytes = 0
  for (const row of rows) {
    if (row.base_position === null) break
    const { appended_ms: appendedAt, meta, vals } = row
    const unpacked: BatchRow = {
      partition,
      base: Number(row.base_position),
      next: Number(row.next_position),
      bytes: row.bytes,
      appendedAt: Math.round(appendedAt),
      meta,
      vals,
      stream: row.stream,
      firstSeq: row.first_seq,
      incarnation: row.incarnation,
      firstVersion: row.first_version
    }
    unpack(unpacked, position, records)
    next = unpacked.next
    bytes += row.bytes
  }
  const batch: Batch = { records, next, end }
  tellRead(topic, partition, position, batch, came)
  return { batch, bytes }
}
const fetched = (source: ReadSource, position: Position, rows: () => PromiseLike<ReadonlyArray<FoundRow>>) =>
  logQuery("read", source.topic, rows).pipe(
    Effect.map((found) => decoded(source, position, found)),
    Effect.flatMap((result): Effect.Effect<readonly [Batch, Batch | undefined], ReadError> => {
      if (!("batch" in result)) return Effect.fail(result)
      return Effect.succeed(
        result.bytes > source.maxBytes() ? splitBatch(result.batch, source.maxBytes()) : [result.batch, undefined]
      )
    })
  )

/** Reads what is there from a position on, without waiting. */
export const read = (sql: postgres.Sql, source: ReadSource, position: Position): Effect.Effect<Batch, ReadError> =>
  fetched(source, position, () => ask(sql, [{ source, position }])).pipe(Effect.map(([batch]) => batch))

/** Opens a reader of a partition. Fails at once if the position is out of range. */
export const open = Effect.fnUntraced(function* (
  sql: postgres.Sql,
  listeners: LogListeners,
  tails: TailReader,
  source: ReadSource,
  from: Position
): Effect.fn.Return<Reader, ReadError, Scope.Scope> {
  const watcher = yield* listeners.watch(source.topicId, source.partition, from)
  // what was read and not taken yet; an empty batch is dropped, because by the first take there may be records
  let [batch, rest]: readonly [Batch | undefined, Batch | undefined] = yield* fetched(source, from, () =>
    ask(sql, [{ source, position: from }])
  )
  if (batch.next === from) batch = undefined
  const next = (position: Position) =>
    fetched(source, position, () =>
      watcher.end - position <= few ? tails.read({ source, position }) : ask(sql, [{ source, position }])
    )
  const take = Effect.gen(function* () {
    while (true) {
      // closed before the query, so that an append during it is not missed
      watcher.latch.closeUnsafe()
      if (batch === undefined) {
        const result = rest === undefined ? yield* next(watcher.position) : splitBatch(rest, source.maxBytes())
        batch = result[0]
        rest = result[1]
      }
      const taken: Batch = batch
      batch = undefined
      if (taken.next > watcher.position) {
        watcher.position = taken.next
        return taken
      }
      yield* watcher.latch.await
    }
  })
  return { take }
})
