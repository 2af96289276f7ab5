// Compacts a partition of the log on PostgreSQL: keeps the newest record of every key, at its position, while appends continue.
import type postgres from "postgres"
import type { LogRecord } from "../../log/log.ts"
import { type BatchRow, type CompactedRecord, outline, pack, unpack } from "./batch-codec.ts"

/** How much is read and rewritten at once. */
const chunkBytes = 4 << 20
const chunkRows = 1_000
/** Limits of a row that is made of several. */
const rowRecords = 5_000
const rowBytes = 1 << 20
/** From so many new rows on, a partition is also compacted for their share of all rows, because many small rows are slow to read. */
const dirtyRows = 500

const dueQuery = `
select h.start_position, h.next_position, count(*)::int as rows,
  (count(*) filter (where b.base_position >= h.clean_position))::int as dirty_rows,
  coalesce(sum(b.bytes + octet_length(b.meta)), 0)::float8 as bytes,
  coalesce(sum(b.bytes + octet_length(b.meta)) filter (where b.base_position >= h.clean_position), 0)::float8 as dirty_bytes
from millrace.log_head h left join millrace.log_batch b using (topic_id, partition)
where h.topic_id = $1 and h.partition = $2
group by h.start_position, h.next_position`

// Replaces exactly the rows that were read. If another cleaner removed one of them, the division by zero fails the statement.
const replaceQuery = (rows: number) => `
with gone as (
  delete from millrace.log_batch where topic_id = $1 and partition = $2 and base_position = any($3::bigint[]) returning 1
), whole as (
  select 1 / (case when count(*) = cardinality($3::bigint[]) then 1 else 0 end) as one from gone
)
insert into millrace.log_batch (topic_id, partition, base_position, next_position, records, bytes, appended_at, meta, vals)
select $1, $2, v.base, v.next, v.records, v.bytes, to_timestamp(v.appended / 1000), v.meta, v.vals
from whole, (values ${Array.from({ length: rows }, (_, row) => {
  const types = ["bigint", "bigint", "int", "int", "float8", "text", "text"]
  return `(${types.map((type, i) => `$${4 + row * 7 + i}::${type}`).join(", ")})`
}).join(", ")}) as v (base, next, records, bytes, appended, meta, vals)
where whole.one = 1`

interface Due {
  readonly rows: number
  readonly dirty_rows: number
  readonly bytes: number
  readonly dirty_bytes: number
}
const isDue = ({ bytes, dirty_bytes, dirty_rows, rows }: Due, share: number) =>
  share === 0 || dirty_bytes > share * bytes || (dirty_rows >= dirtyRows && dirty_rows > share * rows)

type Rows = ReadonlyArray<
  Record<"base" | "next" | "bytes" | "appended", number> & {
    readonly meta: string
    readonly vals: string
    readonly stream: string | null
    readonly first_seq: number | null
    readonly incarnation: string | null
  }
>

/** The first rows of a range, about `chunkBytes` in size. */
const readRows = async (
  sql: postgres.Sql,
  topicId: number,
  partition: number,
  from: number,
  to: number,
  values: boolean
) => {
  const rows = await sql.unsafe<Array<Rows[number]>>(
    `select base, next, bytes, appended, meta, vals, stream, first_seq, incarnation from (
       select base_position::float8 as base, next_position::float8 as next, bytes, meta, ${values ? "vals" : "'' as vals"},
         stream, first_seq::float8 as first_seq, incarnation,
         (extract(epoch from appended_at) * 1000)::float8 as appended,
         sum(bytes) over (order by base_position) - bytes as before
       from (
         select * from millrace.log_batch
         where topic_id = $1 and partition = $2 and base_position >= $3::bigint and base_position < $4::bigint
         order by base_position limit ${chunkRows}) c) d
     where before < $5::bigint order by base`,
    [topicId, partition, from, to, chunkBytes],
    { prepare: true }
  )
  return rows as Rows
}

/** The position of every key's newest record from `start` to `end`. Holds all keys of the partition in memory. */
const newestOf = async (sql: postgres.Sql, topicId: number, partition: number, start: number, end: number) => {
  const newest = new Map<string | null, number>()
  for (let from = start; from < end;) {
    const rows = await readRows(sql, topicId, partition, from, end, false)
    if (rows.length === 0) break
    for (const row of rows) for (const { key, offset } of outline(row.meta)) newest.set(key, row.base + offset)
    from = rows.at(-1)!.next
  }
  return newest
}

interface Survivor {
  readonly record: LogRecord
  readonly forgetAt: number | undefined
  /** Whether its removal time was set now. */
  readonly marked: boolean
}
const survivorsOf = (
  rows: Rows,
  partition: number,
  newest: ReadonlyMap<string | null, number>,
  now: number,
  deletionsMs: number
) => {
  const survivors: Array<Survivor> = []
  for (const row of rows) {
    const { appended, base, first_seq: firstSeq, next, ...rest } = row
    const whole: BatchRow = { ...rest, partition, base, next, appendedAt: Math.round(appended), firstSeq }
    const records: Array<LogRecord> = []
    unpack(whole, base, records)
    const outlines = outline(row.meta)
    records.forEach((record, i) => {
      // a record without a key is never replaced
      if (record.key !== null && newest.get(record.key) !== record.position) return
      const set = outlines[i]!.forgetAt
      const forgetAt = record.value === null && record.key !== null ? (set ?? now + deletionsMs) : undefined
      if (forgetAt === undefined || forgetAt > now) survivors.push({ record, forgetAt, marked: forgetAt !== set })
    })
  }
  return survivors
}

/** The parameters of rows that cover the positions from `base` to `next` and hold only the survivors. */
const coveringRows = (survivors: ReadonlyArray<Survivor>, base: number, next: number) => {
  const parameters: Array<string | number> = []
  let from = 0
  let start = base
  do {
    let to = from
    let bytes = 0
    while (to < survivors.length && to - from < rowRecords && (to === from || bytes < rowBytes))
      bytes += survivors[to++]!.record.value?.length ?? 0
    const part = survivors.slice(from, to)
    const end = to < survivors.length ? survivors[to]!.record.position : next
    // the newest time, so that retention removes no record too early
    const appended = part.reduce((latest, { record }) => Math.max(latest, record.appendedAt), 0)
    const compacted = part.map(({ forgetAt, record }): CompactedRecord => ({
      offset: record.position - start,
      before: appended - record.appendedAt,
      forgetAt
    }))
    const packed = pack(
      part.map(({ record }) => record),
      compacted
    )
    parameters.push(start, end, packed.records, packed.bytes, appended, packed.meta, packed.vals)
    start = end
    from = to
  } while (from < survivors.length)
  return parameters
}

/** When to compact, and how. After an abort the chunk that is under way is still completed. */
interface CompactOptions {
  readonly dirtyShare: number
  readonly deletionsMs: number
  readonly signal: AbortSignal
}
/**
 * Compacts a partition if more than `dirtyShare` of it is new since the last time. Returns how many records were removed. Each chunk is
 * replaced in one statement, so a reader finds either the old rows or the new ones, which cover the same positions.
 */
export const compact = async (sql: postgres.Sql, topicId: number, partition: number, options: CompactOptions) => {
  const { deletionsMs, dirtyShare, signal } = options
  const [due] = await sql.unsafe(dueQuery, [topicId, partition], { prepare: true })
  if (due === undefined || !isDue(due as unknown as Due, dirtyShare)) return 0
  const start = Number(due["start_position"])
  const end = Number(due["next_position"])
  const newest = await newestOf(sql, topicId, partition, start, end)
  const now = Date.now()
  let removed = 0
  for (let from = start; from < end;) {
    const rows = await readRows(sql, topicId, partition, from, end, true)
    if (signal.aborted) return removed
    if (rows.length === 0) break
    const next = rows.at(-1)!.next
    const before = rows.reduce((sum, row) => sum + outline(row.meta).length, 0)
    const survivors = survivorsOf(rows, partition, newest, now, deletionsMs)
    const parameters = coveringRows(survivors, rows[0]!.base, next)
    const merges = parameters.length / 7 < rows.length
    if (survivors.length < before || merges || survivors.some(({ marked }) => marked)) {
      const bases = `{${rows.map(({ base }) => base).join(",")}}`
      await sql.unsafe(replaceQuery(parameters.length / 7), [topicId, partition, bases, ...parameters], {
        prepare: false
      })
    }
    removed += before - survivors.length
    from = next
  }
  await sql`update millrace.log_head set clean_position = ${end}::bigint where topic_id = ${topicId} and partition = ${partition}`
  return removed
}
