// The statements that read events: a page of a stream, forwards with its snapshot or backwards, and a boundary by tags.

/** How many rows a page has at most: of ordinary loads, and of those that ask for few events. */
const pageRows = 2_000
const fewRows = 100
/** How many bytes of values a page has at most; one row may have more. */
export const pageBytes = 4 << 20
/** How many rows of a boundary are read at most. */
export const boundaryRows = 50_000

/** A row of a load. `appended` and `remembered` are what the command answered before. */
export interface LoadRow extends PageRow {
  /** Only where the answer is loaded, too. */
  readonly kind?: "page" | "appended" | "remembered"
  readonly base_position?: number | null
  readonly appended_ms?: number | null
  readonly digest?: string | null
}
/** The row that every load has. */
export interface PageRow {
  /** Of the stream; null if it has no events. `remembered`: what the command was decided on. */
  readonly version: number | null
  readonly closed: "archived" | null
  /** The version of the snapshot; null if there is no snapshot. */
  readonly snapshot: number | null
  /** The snapshot's state; `remembered`: the answer. */
  readonly text: string | null
  /** The version of the first event; null if there are none. */
  readonly first_version: number | null
  /** A JSON array with the `meta` of each row; `appended`: of its row. */
  readonly meta: string | null
  readonly vals: string | null
  /** A JSON array of each row's position and of when it was appended, in epoch milliseconds, in turn. */
  readonly places: string | null
}
/** A row of `log_batch` that is read by itself. */
export interface EventsRow {
  readonly first_version: number
  readonly base_position: number
  readonly appended_ms: number
  readonly meta: string
  readonly vals: string
}

const appendedMs = "(extract(epoch from appended_at) * 1000)::float8"
// the same, rounded as readers of `appendedMs` do. It is exact: a double holds today's microseconds. A numeric and its text cost the server more
const roundedMs = "((date_part('epoch', appended_at) * 1000000)::int8 + 500) / 1000"
// `order by … limit` keeps the planner from scanning the table for a stream that has most of its rows; a parameter as the limit would spoil that
// the server joins the rows, because a row that arrives by itself costs the client far more than its events
// the first row may begin before the page, unless that begins with the first version
const page = (rows: number) => `
    select min(first_version) as first_version, '[' || string_agg(meta, ',' order by first_version) || ']' as meta,
      string_agg(vals, e'\n' order by first_version) as vals,
      '[' || string_agg(base_position || ',' || appended_ms, ',' order by first_version) || ']' as places
    from (select c.*, sum(c.bytes) over (order by c.first_version rows unbounded preceding) as total from (
      select first_version, base_position, ${roundedMs} as appended_ms, meta, vals, bytes from millrace.log_batch
      where topic_id = $1::int4 and partition = $2::int4 and entity = $3::text and entity is not null
        and first_version >= case when $5::int8 is null and n.version is null then 1 else coalesce((select first_version from millrace.log_batch
          where topic_id = $1::int4 and partition = $2::int4 and entity = $3::text and entity is not null
            and first_version <= coalesce($5::int8, n.version + 1)
          order by first_version desc limit 1), 0) end
        and first_version <= $6::int8
      order by first_version limit ${rows}) c
    ) d
    where total <= ${pageBytes} or total = bytes`
// one row, and joins that find one row or none each: every further part of a plan costs the server more than ten events do
const load = (rows: number, columns = "") => `
  select ${columns}s.version, s.closed, n.version as snapshot, n.state as text, p.first_version, p.meta, p.vals, p.places
  from (select) one
  left join (select version, closed from millrace.event_stream where topic_id = $1::int4 and stream = $3::text limit 1) s on true
  left join (select version, state from millrace.event_snapshot
    where topic_id = $1::int4 and stream = $3::text and shape = $4::text and version <= $6::int8 and $5::int8 is null limit 1) n on true
  cross join lateral (${page(rows)}) p`
const loadAndAnswer = (rows: number) => `${load(
  rows,
  "'page' as kind, null::int8 as base_position, null::float8 as appended_ms, null::uuid as digest, "
)}
  union all
  (select 'appended', base_position, ${appendedMs}, command_digest, null, null, null, null, first_version, meta, vals, null from millrace.log_batch
  where topic_id = $1::int4 and partition = $2::int4 and command_id = $7::uuid and entity = $3::text and entity is not null limit 1)
  union all
  (select 'remembered', null, null, digest, version, null, null, answer, null, null, null, null from millrace.command
  where topic_id = $1::int4 and stream = $3::text and command_id = $7::uuid and answered_at > now() - interval '7 days' limit 1)`
const [loadPage, loadFew] = [load(pageRows), load(fewRows)]
const [loadPageAndAnswer, loadFewAndAnswer] = [loadAndAnswer(pageRows), loadAndAnswer(fewRows)]
/**
 * The statement that loads a page with at most so many events: topic, partition, stream, shape, first version, last version, and the command's id if
 * its answer is loaded, too.
 */
export const loadStatement = (events: number, isAnswered = true): string => {
  const isFew = events <= fewRows
  if (isAnswered) return isFew ? loadFewAndAnswer : loadPageAndAnswer
  return isFew ? loadFew : loadPage
}

const backwards = (rows: number) => `
  select first_version, base_position, appended_ms, meta, vals from (
    select c.*, row_number() over w as n, sum(c.bytes) over w as total from (
      select first_version, base_position, ${appendedMs} as appended_ms, meta, vals, bytes from millrace.log_batch
      where topic_id = $1::int4 and partition = $2::int4 and entity = $3::text and entity is not null and first_version <= $4::int8
      order by first_version desc limit ${rows}) c
    window w as (order by c.first_version desc)) d
  where n = 1 or total <= ${pageBytes} order by first_version desc`
const [backwardsPage, backwardsFew] = [backwards(pageRows), backwards(fewRows)]
/** The statement that reads a page backwards: topic, partition, stream, first version. */
export const backwardsStatement = (events: number): string => (events <= fewRows ? backwardsFew : backwardsPage)

/**
 * The statement that reads a boundary: topic, tags. Events and versions are of one snapshot, or a boundary could be newer than the events that
 * it stands for. Rows with the versions come first, as `meta` (the tag) and `version`.
 */
export const boundaryStatement = `
  select 'tag' as kind, null::int4 as partition, null::int8 as first_version, null::int8 as base_position, null::float8 as appended_ms, tag as meta, null::text as vals,
    version, 0::int8 as n
  from millrace.event_tag where topic_id = $1::int4 and tag = any($2::text[])
  union all
  (select 'batch', partition, first_version, base_position, ${appendedMs}, meta, vals, null, row_number() over (order by appended_at, partition, base_position)
  from millrace.log_batch where topic_id = $1::int4 and tags && $2::text[] and tags is not null order by appended_at, partition, base_position limit ${boundaryRows + 1})
  order by kind desc, n`
/** A row of a boundary: a tag and its version, or events. */
export interface BoundaryRow extends EventsRow {
  readonly kind: "tag" | "batch"
  readonly partition: number | null
  readonly version: number | null
}
