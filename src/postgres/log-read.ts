// Reads the log on PostgreSQL: one query a read, decoded and cut to size, and a reader that waits until there is more.
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
} from "../log.ts"
import { cut } from "../log-rules.ts"
import { type Row, unpack } from "./log-codec.ts"
import { attempt } from "./log-errors.ts"
import type { Wake } from "./log-wake.ts"

/** The partition to read. */
export interface Source {
  readonly topicId: number
  readonly topic: string
  readonly partition: number
  readonly maxBytes: number
}
/** Rows looked at in one read: bounds what lies inline in many small rows. */
const rowsAtOnce = 256

const query = `
select h.start_position, h.next_position as end_position, b.base_position, b.next_position, b.bytes, b.appended_ms, b.meta, b.vals,
  b.stream, b.first_seq::float8 as first_seq
from millrace.log_head h
left join lateral (
  select * from (
    select c.*, row_number() over w as n, sum(c.bytes) over w as total
    from (
      select base_position, next_position, bytes, (extract(epoch from appended_at) * 1000)::float8 as appended_ms, meta, vals,
        stream, first_seq
      from millrace.log_batch
      where topic_id = $1 and partition = $2 and next_position > $3::bigint and base_position >= (
        select base_position from millrace.log_batch
        where topic_id = $1 and partition = $2 and base_position <= $3::bigint order by base_position desc limit 1)
      order by base_position limit ${rowsAtOnce}
    ) c
    window w as (order by c.base_position)
  ) d where n = 1 or total <= $4::bigint
) b on h.start_position <= $3::bigint and h.next_position > $3::bigint
where h.topic_id = $1 and h.partition = $2
order by b.base_position`

interface Found {
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
}

/** Reads from a position on. The batch is longer than `maxBytes` where the row is; `cut` it. */
const fetch = async (sql: postgres.Sql, { maxBytes, partition, topic, topicId }: Source, position: Position) => {
  const rows = await sql.unsafe<Array<Found>>(query, [topicId, partition, position, maxBytes], { prepare: true })
  const head = rows[0]
  if (head === undefined)
    return new UnknownTopic({ topic, reason: `it is not there any more, or has no partition ${partition}` })
  const start = Number(head.start_position)
  const end = Number(head.end_position)
  if (!(position >= start && position <= end)) return new OutOfRange({ topic, partition, position, start, end })
  const records: Array<LogRecord> = []
  let next = position
  let bytes = 0
  for (const row of rows) {
    if (row.base_position === null) break
    const { appended_ms: appendedAt, meta, vals } = row
    const unpacked: Row = {
      partition,
      base: Number(row.base_position),
      next: Number(row.next_position),
      bytes: row.bytes,
      appendedAt: Math.round(appendedAt),
      meta,
      vals,
      stream: row.stream,
      firstSeq: row.first_seq
    }
    unpack(unpacked, position, records)
    next = unpacked.next
    bytes += row.bytes
  }
  return { batch: { records, next, end } satisfies Batch, bytes }
}
const fetched = (sql: postgres.Sql, source: Source, position: Position) =>
  attempt("read", source.topic, () => fetch(sql, source, position)).pipe(
    Effect.flatMap((result): Effect.Effect<readonly [Batch, Batch | undefined], ReadError> => {
      if (!("batch" in result)) return Effect.fail(result)
      return Effect.succeed(
        result.bytes > source.maxBytes ? cut(result.batch, source.maxBytes) : [result.batch, undefined]
      )
    })
  )

/** What is there from a position on, at once. */
export const read = (sql: postgres.Sql, source: Source, position: Position): Effect.Effect<Batch, ReadError> =>
  fetched(sql, source, position).pipe(Effect.map(([batch]) => batch))

/** A reader of a partition, woken by `wake`. Fails at once where the position is out of range. */
export const open = Effect.fnUntraced(function* (
  sql: postgres.Sql,
  wake: Wake,
  source: Source,
  from: Position
): Effect.fn.Return<Reader, ReadError, Scope.Scope> {
  const watcher = yield* wake.watch(source.topicId, source.partition, from)
  // what was read and not taken yet; nothing where nothing was there, for by the first take it may be
  let [batch, rest]: readonly [Batch | undefined, Batch | undefined] = yield* fetched(sql, source, from)
  if (batch.next === from) batch = undefined
  const take = Effect.gen(function* () {
    while (true) {
      // closed before the query, so that what is appended during it is not missed
      watcher.latch.closeUnsafe()
      if (batch === undefined) {
        const result = rest === undefined ? yield* fetched(sql, source, watcher.position) : cut(rest, source.maxBytes)
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
