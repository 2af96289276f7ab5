// The statements that read events: a page of a stream, forwards with its snapshot or backwards, and a boundary by tags.

/** How many rows a page has at most: of ordinary loads, and of those that ask for few events. */
const pageRows = 2_000
const fewRows = 100
/** How many bytes of values a page has at most; one row may have more. */
export const pageBytes = 4 << 20
/** How many rows of a boundary are read at most. */
export const boundaryRows = 50_000

/** A row of a read. Which columns it has depends on its `kind`. */
export interface ReadRow {
  /** `batch`: all rows of a page, whose `meta` is a JSON array of theirs; null if there are none. */
  readonly kind: "stream" | "batch" | "appended" | "remembered"
  readonly first_version: number | null
  readonly base_position: number | null
  readonly appended_ms: number | null
  readonly meta: string | null
  readonly vals: string | null
  /** `stream`: the stream's version; `remembered`: the version that the command was decided on. */
  readonly version: number | null
  readonly closed: "archived" | "erased" | null
  /**
   * `stream`: the snapshot's state, of version `first_version`; `remembered`: the answer; `batch`: a JSON array of each row's position and of when it
   * was appended, in turn.
   */
  readonly text: string | null
  readonly digest: string | null
}

// as JSON, and as a number: casting the numeric costs the server more than its text
const appendedMsText = "extract(epoch from appended_at) * 1000"
const appendedMs = `(${appendedMsText})::float8`
// `order by … limit` keeps the planner from scanning the table for a stream that has most of its rows; a parameter as the limit would spoil that
// the server joins the rows, because a row that arrives by itself costs the client far more than its events
const page = (rows: number) => `
  select 'batch', min(first_version), null::int8, null::float8,
    '[' || string_agg(meta, ',' order by first_version) || ']', string_agg(vals, e'\\n' order by first_version), null::int8, null::text,
    '[' || string_agg(base_position || ',' || appended_ms, ',' order by first_version) || ']', null::uuid from (
    select c.*, sum(c.bytes) over (order by c.first_version rows unbounded preceding) as total from (
      select first_version, base_position, ${appendedMsText} as appended_ms, meta, vals, bytes from millrace.log_batch
      where topic_id = $1::int4 and partition = $2::int4 and entity = $3::text and entity is not null
        and first_version >= coalesce((select first_version from millrace.log_batch
          where topic_id = $1::int4 and partition = $2::int4 and entity = $3::text and entity is not null and first_version <= (select version from start)
          order by first_version desc limit 1), 0)
        and first_version <= $6::int8
      order by first_version limit ${rows}) c
    ) d
  where total <= ${pageBytes} or total = bytes`
const answers = `
  union all
  (select 'appended', first_version, base_position, ${appendedMs}, meta, vals, null, null, null, command_digest from millrace.log_batch
  where topic_id = $1::int4 and partition = $2::int4 and command_id = $7::uuid and entity = $3::text and entity is not null limit 1)
  union all
  (select 'remembered', null, null, null, null, null, version, null, answer, digest from millrace.command
  where topic_id = $1::int4 and stream = $3::text and command_id = $7::uuid and answered_at > now() - interval '7 days' limit 1)`
const load = (rows: number, more: string) => `
  with snap as materialized (select version, state from millrace.event_snapshot
    where topic_id = $1::int4 and stream = $3::text and shape = $4::text and version <= $6::int8 and $5::int8 is null
  ), start as materialized (select coalesce($5::int8, (select version from snap) + 1, 1) as version)
  select 'stream' as kind, (select version from snap) as first_version, null::int8 as base_position, null::float8 as appended_ms, null::text as meta,
    null::text as vals, s.version, s.closed, (select state from snap) as text, null::uuid as digest
  from (select) one left join (select version, closed from millrace.event_stream where topic_id = $1::int4 and stream = $3::text limit 1) s on true
  union all
  (${page(rows)})${more}`
const [loadPage, loadFew] = [load(pageRows, ""), load(fewRows, "")]
const [loadPageAndAnswer, loadFewAndAnswer] = [load(pageRows, answers), load(fewRows, answers)]
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
  select 'batch' as kind, first_version, base_position, appended_ms, meta, vals from (
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
/** A row of a boundary. */
export interface BoundaryRow extends Pick<ReadRow, "first_version" | "base_position" | "appended_ms" | "vals"> {
  readonly kind: "tag" | "batch"
  readonly partition: number | null
  readonly meta: string
  readonly version: number | null
}
