// The statement that appends events: commands of any streams in one batch, or several streams of one command, all or nothing.
//
// All parts share a snapshot, which is older than the locks that the statement takes. So whatever decides is read from locked rows: an
// `on conflict do update` reads the newest row, also one that was committed while it waited. Rows are locked in one order everywhere:
// timers, streams, tags, counters, then the tables of inline projections by name.
//
// Setting up a statement with many parts takes the server longer than running it for one command. So a batch is sent first by a statement that
// expects all commands to pass, as nearly all do, and is rolled back if one does not; only then by the one that judges each of them.
import type { CommitStatement, Parameter } from "../store/commit-parts.ts"
import { StatementParts } from "../store/commit-parts.ts"
import type { NewRecord } from "../../log/log.ts"
import type { KeyRef } from "../../erasure/sealed.ts"
import { arrayOf } from "../client/columns.ts"
import { type InBatch, sequence } from "./passing.ts"

/** What an append expects, as the statement takes it: a version, or one of these. */
export const expectAny = -1
export const expectExists = -2

/** One command's events for one stream, as the statement takes them. */
export interface AppendRow {
  readonly topicId: number
  readonly topic: string
  readonly stream: string
  readonly partition: number
  readonly expected: number
  /** A uuid made of the command's id, and one made of its digest. */
  readonly commandId: string
  readonly digest: string | null
  /** The uuid of the command that the stream's last event must be of; null if it does not matter. */
  readonly follows: string | null
  readonly records: number
  readonly bytes: number
  /** As in `log_batch`. */
  readonly meta: string
  readonly vals: string
  readonly tags: ReadonlyArray<string>
  /** The events as records of the log. */
  readonly logRecords: ReadonlyArray<NewRecord>
  /** The timer that the command fires; null if it is none. */
  readonly timer: string | null
  /** The keys that sealed its personal fields. */
  readonly keys: ReadonlyArray<KeyRef>
  /** The same for the outbox, where a control character stands for each event's version. */
  readonly segmentMeta: () => string
}
/** A tag that a boundary checks, or that events have. */
export interface TagRow {
  readonly topicId: number
  readonly tag: string
  /** Undefined: it is not checked. */
  readonly expected: number | undefined
  /** 1 if events have it, else 0. */
  readonly added: number
}
/** What a statement appends, and how. */
export interface AppendRequest {
  readonly rows: ReadonlyArray<AppendRow>
  /** Whether one refusal refuses all. Then `tags` has those of the boundary and of all events. */
  readonly isAtomic: boolean
  readonly tags: ReadonlyArray<TagRow>
  /** The incarnation of outbox segments. */
  readonly incarnation: string
  /** Whether outbox segments are made. Without them, appends to a partition that is published fail with the code `unpublishedCode`. */
  readonly isPublished: boolean
  /** The inline builds that the statement writes for, by topic, as the topics' counters have them: another text refuses all. */
  readonly inline: ReadonlyMap<number, string | null>
  /** Whether one refusal or repeat refuses all, because the rows of inline builds are of all appends together. */
  readonly isStrict: boolean
  /** Whether each command is judged. Otherwise `mayAllPass` must be true of the rows, and what does not pass refuses all with `judge`. */
  readonly isJudged: boolean
}
/** A row of the answer, for each of `rows` by its index. */
export interface AppendedRow {
  readonly i: number
  readonly repeated: boolean
  /** Null: it was refused. */
  readonly first_version: number | null
  readonly records: number
  readonly position: number
  /** The version of the stream, if it was refused. */
  readonly actual: number | null
  readonly closed: "archived" | null
  /** The digest of the command that was answered before. */
  readonly digest: string | null
}
/** Why a statement was rolled back: the detail of an error with the code `refusedCode`. */
export interface Refusal {
  /** Something was committed after the statement's snapshot that it must see: send all again. */
  readonly again: boolean
  /** Not all commands pass: send them by the statement that judges each. Then nothing else is given. */
  readonly judge?: boolean
  readonly refused: ReadonlyArray<{
    readonly i: number
    readonly actual: number
    readonly closed: "archived" | null
  }> | null
  /** The commands that were answered before, where one of them refuses all. */
  readonly repeated?: ReadonlyArray<number> | null
  /** Rows whose timer was fired or cancelled meanwhile, by their number from 1. Then nothing else is given. */
  readonly gone?: ReadonlyArray<number>
  readonly tags: ReadonlyArray<{
    readonly topic_id: number
    readonly tag: string
    readonly expected: number
    readonly actual: number
  }> | null
  /** Keys that were destroyed. */
  readonly erased?: ReadonlyArray<KeyRef> | null
}
/** The SQLSTATE of `millrace.refuse_append`. */
export const refusedCode = "MR409"
/** The SQLSTATE of a statement without segments that appends to a partition which relays publish. */
export const unpublishedCode = "23502"
/** What stands for the version of each event in `segmentMeta`: JSON text never has it. */
export const versionMark = "\u0001"

type Parameters = (value: Parameter) => string
const column = (parameter: Parameters, type: string, values: ReadonlyArray<string | number | null>) =>
  `${parameter(arrayOf(values))}::${type}[]`

type RequestColumn = readonly [name: string, type: string, of: (row: AppendRow) => string | number | null]
const requestColumns = ({ isPublished }: AppendRequest): ReadonlyArray<RequestColumn> => [
  ["topic_id", "int4", ({ topicId }) => topicId],
  ["stream", "text", ({ stream }) => stream],
  ["partition", "int4", ({ partition }) => partition],
  ["expected", "int8", ({ expected }) => expected],
  ["command_id", "uuid", ({ commandId }) => commandId],
  ["digest", "uuid", ({ digest }) => digest],
  ["follows", "uuid", ({ follows }) => follows],
  ["n", "int4", ({ records }) => records],
  ["bytes", "int4", ({ bytes }) => bytes],
  ["meta", "text", ({ meta }) => meta],
  ["vals", "text", ({ vals }) => vals],
  ["tags", "text", ({ tags }) => (tags.length === 0 ? null : arrayOf(tags))],
  ["topic", "text", ({ topic }) => topic],
  ["segment", "text", ({ segmentMeta }) => (isPublished ? segmentMeta() : null)]
]
const requests = (parameter: Parameters, request: AppendRequest, more: ReadonlyArray<RequestColumn> = []) => {
  const columns = [...requestColumns(request), ...more]
  const arrays = columns.map(([, type, of]) => column(parameter, type, request.rows.map(of)))
  return `req as materialized (select * from unnest(${arrays.join(", ")}) with ordinality as r(${columns.map(([name]) => name).join(", ")}, i))`
}
/** The same for one command where all pass: its values are written out, so that the server neither reads arrays nor scans and joins rows. */
const onlyRequest = (parameter: Parameters, request: AppendRequest) => {
  const values = requestColumns(request).map(
    ([name, type, of]) => `${parameter(of(request.rows[0]!))}::${type} as ${name}`
  )
  const n = `${parameter(request.rows[0]!.records)}::int4`
  return `req as not materialized (select ${values.join(", ")}, 0 as before_n, ${n} as total_n, 0 as before, ${n} as total, 1::int8 as i)`
}

// `offset 0` and `limit 1` keep the lookups by key from being planned as a scan while the table is small
const known = `known as materialized (select r.i, r.topic_id, r.stream, s.version, s.closed, s.remembered from req r cross join lateral (
    select version, closed, remembered from millrace.event_stream e where (e.topic_id, e.stream) = (r.topic_id, r.stream) limit 1) s)`
const done = `done as materialized (
    select r.i, b.first_version, b.records, b.base_position, b.command_digest as digest from req r cross join lateral (
      select first_version, records, base_position, command_digest from millrace.log_batch l
      where (l.topic_id, l.partition, l.command_id, l.entity) = (r.topic_id, r.partition, r.command_id, r.stream) and l.entity is not null
      limit 1) b
    union all
    select r.i, c.version + 1, 0, -1, c.digest from req r cross join lateral (
      select version, digest from millrace.command m where (m.topic_id, m.stream, m.command_id) = (r.topic_id, r.stream, r.command_id)
        and m.answered_at > now() - interval '7 days' limit 1) c)`
// versions only grow: what the snapshot has beyond the expected version is a conflict, without a lock
const behind = `behind as materialized (select distinct r.topic_id, r.stream, k.version, k.closed from req r join known k using (i)
    where r.expected >= 0 and k.version > r.expected and r.i not in (select i from done))`
// A command that was decided on the events of another passes only if that one appends them in this statement, or has appended them as the
// stream's last ones: rows do not change and versions have no gaps, so the snapshot tells, and the expected version is checked under the
// lock. What comes after one that does not pass was decided on events that are not there.
const astray = `astray as materialized (select r.topic_id, r.stream, min(r.i) as i from req r where r.follows is not null
    and not exists (select from req q where (q.topic_id, q.stream, q.command_id) = (r.topic_id, r.stream, r.follows) and q.i < r.i
      and q.i not in (select i from done))
    and (select true from millrace.log_batch l where (l.topic_id, l.partition, l.command_id, l.entity) = (r.topic_id, r.partition, r.follows, r.stream)
      and l.entity is not null and l.first_version + l.records - 1 = r.expected limit 1) is null
    group by 1, 2)`
// The keys are locked until the commit, so that an erasure and this exclude each other. The condition is read from the locked rows: a snapshot
// may be older than an erasure that the lock waited for.
const alive = (parameter: Parameters, keys: ReadonlyArray<KeyRef>) => `sealed_by as materialized (select * from unnest(
      ${column(
        parameter,
        "text",
        keys.map(({ subject }) => subject)
      )}, ${column(
        parameter,
        "int4",
        keys.map(({ number }) => number)
      )}) as q(subject, number)),
  alive as materialized (select k.subject, k.number from millrace.subject_key k
    where (k.subject, k.number) in (select q.subject, q.number from sealed_by q) and k.key is not null order by k.subject, k.number for share),
  erased as materialized (select millrace.refuse_append(json_build_object('again', false, 'erased', json_agg(q))::text)
    from sealed_by q where not exists (select from alive a where (a.subject, a.number) = (q.subject, q.number)) having count(*) > 0)`
// several commands of one stream may follow one another: the expectation of the first one that is not done counts for all
const fresh = (isAtomic: boolean, isSealed: boolean) => `fresh as materialized (
    select i, topic_id, stream, partition, n, sum(n) over per as total_n, sum(n) over up_to - n as before_n, first_value(expected) over up_to as expected
    from req where ${isAtomic ? "not exists (select from done) and not exists (select from behind)" : "i not in (select i from done) and (topic_id, stream) not in (select topic_id, stream from behind) and not exists (select from astray a where (a.topic_id, a.stream) = (req.topic_id, req.stream) and req.i >= a.i and req.follows is not null)"}${isSealed ? " and (select count(*) from erased) = 0" : ""}
    window per as (partition by topic_id, stream), up_to as (partition by topic_id, stream order by i))`
const passes = `s.closed is null and (excluded.asked in (-1, s.version) or (excluded.asked = -2 and s.version > 0))`
const isAppended = `s.added > 0 and s.version > 0`
// the lock, the check and the version in one pass over one row; a row that is inserted with version 0 was refused
const headOf = (
  source: string
) => `head as (insert into millrace.event_stream as s (topic_id, stream, version, asked, added)
    select topic_id, stream, case when expected in (-1, 0) then total_n else 0 end, expected, total_n
    from ${source} order by topic_id, stream collate "C"
    on conflict (topic_id, stream) do update set asked = excluded.asked,
      version = s.version + case when ${passes} then excluded.added else 0 end,
      added = case when ${passes} then excluded.added else 0 end
    returning s.topic_id, s.stream, s.version, ${isAppended} as ok, s.closed, s.remembered)`
const head = headOf("fresh where before_n = 0")
const refused = `refused as materialized (select f.i, h.version as actual, h.closed from head h join fresh f using (topic_id, stream) where not h.ok)`
const missed = `missed as materialized (select from head h left join (select distinct topic_id, stream, remembered from known) k using (topic_id, stream)
    where h.remembered <> coalesce(k.remembered, 0))`

// A statement that has nothing to append is rolled back: its commit would be flushed while others wait for its locks.
const batchVerdict = `verdict as materialized (select millrace.refuse_append(json_build_object('again', exists (select from missed),
      'refused', (select json_agg(r) from refused r))::text)
    where exists (select from missed) or (exists (select from head) and not exists (select from head where ok)))`
// the rows of inline builds are of all commands
const strictVerdict = `verdict as materialized (select millrace.refuse_append(json_build_object('again', exists (select from missed),
      'refused', (select json_agg(r) from (select * from refused union all
        select q.i, b.version, null from behind b join req q using (topic_id, stream) where q.i not in (select i from done) union all
        select q.i, coalesce(k.version, 0), k.closed from astray a join req q using (topic_id, stream) left join known k on k.i = q.i
          where q.i >= a.i and q.follows is not null and q.i not in (select i from done)) r),
      'repeated', (select json_agg(i) from done))::text)
    where exists (select from missed) or exists (select from refused) or exists (select from behind) or exists (select from astray)
      or exists (select from done))`
const atomicVerdict = `verdict as materialized (select millrace.refuse_append(json_build_object('again', exists (select from missed),
      'refused', (select json_agg(r) from (select * from refused union all
        select q.i, b.version, b.closed from behind b join req q using (topic_id, stream)) r),
      'tags', (select json_agg(json_build_object('topic_id', topic_id, 'tag', tag, 'expected', asked, 'actual', -2 - version)) from tags where version < 0))::text)
    where exists (select from missed) or exists (select from refused) or exists (select from behind) or exists (select from tags where version < 0))`

// until the rollback a negative version says what was found instead of the expected one: -2 less that
const atomicTags = (parameter: Parameters, rows: ReadonlyArray<TagRow>) => {
  const of = (type: string, value: (row: TagRow) => string | number | null) => column(parameter, type, rows.map(value))
  return `tags as (insert into millrace.event_tag as t (topic_id, tag, version, asked, added)
    select topic_id, tag, case when coalesce(expected, 0) = 0 then added else -2 end, expected, added
    from unnest(${of("int4", (row) => row.topicId)}, ${of("text", (row) => row.tag)}, ${of("int8", (row) => row.expected ?? null)},
      ${of("int4", (row) => row.added)}) as q(topic_id, tag, expected, added)
    where exists (select from fresh) and (select count(*) from head) >= 0 order by topic_id, tag collate "C"
    on conflict (topic_id, tag) do update set asked = excluded.asked, added = excluded.added,
      version = case when coalesce(excluded.asked, t.version) = t.version then t.version + excluded.added else -2 - t.version end
    returning t.topic_id, t.tag, t.version, t.asked)`
}
const batchTags = `tags as (insert into millrace.event_tag as t (topic_id, tag, version, asked, added)
    select o.topic_id, g.tag, count(*), null, 0 from ok o join req r using (i) cross join lateral unnest(r.tags::text[]) as g(tag)
    where g.tag not like '$%'
    group by 1, 2 order by 1, g.tag collate "C"
    on conflict (topic_id, tag) do update set version = t.version + excluded.version
    returning 1)`

const ok = `ok as materialized (select f.i, f.topic_id, f.stream, f.partition, h.version - f.total_n + f.before_n + 1 as first_version,
      sum(f.n) over (partition by f.topic_id, f.partition) as total,
      sum(f.n) over (partition by f.topic_id, f.partition order by f.i) - f.n as before
    from head h join fresh f using (topic_id, stream) where h.ok and (select count(*) from verdict) = 0)`
/** Refuses all, so that each command is judged. */
const judge = `millrace.refuse_append('{"judge":true}')`
/** Refuses the only command of a statement, whose stream is not as it expects. */
const refuseOnly = `millrace.refuse_append(json_build_object('again', false,
      'refused', json_build_array(json_build_object('i', 1, 'actual', h.version, 'closed', h.closed)))::text)`
/**
 * The parts before the counters where all commands pass. A command that appended before violates the index of command ids; one that was answered
 * without events is looked up under the stream's lock. `req` has the columns of `fresh` as well: the first command of a stream brings its
 * expectation, and the others were decided on what that one leaves.
 */
const passing = (parameter: Parameters, request: AppendRequest, isSealed: boolean) => {
  const places = new Map(sequence(request.rows).map((place, i) => [request.rows[i]!, place]))
  const of = (name: string, value: (place: InBatch) => number): RequestColumn => [
    name,
    "int4",
    (row) => value(places.get(row)!)
  ]
  const more = [
    of("before_n", ({ inStream }) => inStream),
    of("total_n", ({ ofStream }) => ofStream),
    of("before", ({ inPartition }) => inPartition),
    of("total", ({ ofPartition }) => ofPartition)
  ]
  const isOnly = request.rows.length === 1
  return [
    isOnly ? onlyRequest(parameter, request) : requests(parameter, request, more),
    headOf(`req where before_n = 0${isSealed ? " and (select count(*) from erased) = 0" : ""}`),
    `ok as materialized (select r.*, h.version - r.total_n + r.before_n + 1 as first_version from head h join req r using (topic_id, stream)
    where case when not h.ok then ${isOnly ? refuseOnly : judge} = 0 when h.remembered > 0 then millrace.is_unanswered(r.topic_id, r.stream, r.command_id) else true end)`
  ]
}
const passed = (
  after: string
) => `select o.i::int4 - 1 as i, false as repeated, o.first_version, o.n as records, p.next_position - o.total + o.before as position,
    null::int8 as actual, null::text as closed, null::uuid as digest
  from ok o join pos p using (topic_id, partition)${after}`
/**
 * Deletes the timers that the appended commands fire, and rolls back if one of them is gone. Only rows that pass are looked at, because the
 * timer of a refused command must stay. They are locked in the order of their slots, as by commits that cancel them.
 */
const timers = (parameter: Parameters, rows: ReadonlyArray<AppendRow>) => [
  `fires as materialized (select o.i, t.timer_id from ok o
    join unnest(${column(
      parameter,
      "uuid",
      rows.map(({ timer }) => timer)
    )}) with ordinality as t(timer_id, i) using (i) where t.timer_id is not null)`,
  `waiting as materialized (select t.timer_id from millrace.timer t where t.timer_id in (select timer_id from fires)
    order by t.slot, t.timer_id for update)`,
  `fired as (delete from millrace.timer t using waiting w where t.timer_id = w.timer_id returning t.timer_id)`,
  `gone as materialized (select millrace.refuse_append(json_build_object('again', false, 'gone', json_agg(f.i))::text)
    from fires f where f.timer_id not in (select timer_id from fired) having count(*) > 0)`
]
// the inline builds that rows were computed for must be those that the topic has, under the lock of its counter
const inlineOf = (parameter: Parameters, inline: ReadonlyMap<number, string | null>) => `inline_of as materialized (
    select * from unnest(${column(parameter, "int4", [...inline.keys()])}, ${column(parameter, "text", [...inline.values()])}) as k(topic_id, inline))`
const posOf = (
  source: string,
  guard = ""
) => `pos as (insert into millrace.log_head as p (topic_id, partition, next_position, inline) ${source}
    on conflict (topic_id, partition) do update set next_position = case when p.inline is distinct from excluded.inline
      then millrace.refuse_inline(p.topic_id, p.inline)${guard} else p.next_position + excluded.next_position end
    returning p.topic_id, p.partition, p.next_position, p.published)`
const inlineOfTopic = "(select k.inline from inline_of k where k.topic_id = o.topic_id)"
const pos = (parameter: Parameters, { inline }: AppendRequest, after: string) => [
  inlineOf(parameter, inline),
  posOf(`select o.topic_id, o.partition, max(o.total), ${inlineOfTopic}
    from ok o where (select count(*) from ${after}) >= 0 group by 1, 2 order by 1, 2`)
]
const passingPos = (parameter: Parameters, { inline, isPublished }: AppendRequest, after: string) => {
  const hasInline = [...inline.values()].some((builds) => builds !== null)
  const ran = after === "ok" ? "" : ` and (select count(*) from ${after}) >= 0`
  return [
    ...(hasInline ? [inlineOf(parameter, inline)] : []),
    posOf(
      `select o.topic_id, o.partition, o.total, ${hasInline ? inlineOfTopic : "null"} from ok o where o.before = 0${ran} order by 1, 2`,
      isPublished ? "" : ` when p.published then ${judge}`
    )
  ]
}
const logOf = (
  r: string,
  source: string
) => `log as (insert into millrace.log_batch as b (topic_id, partition, base_position, next_position, records, bytes, meta, vals,
      entity, first_version, command_id, command_digest, tags)
    select o.topic_id, o.partition, p.next_position - o.total + o.before, p.next_position - o.total + o.before + ${r}.n, ${r}.n, ${r}.bytes, ${r}.meta, ${r}.vals,
      o.stream, o.first_version, ${r}.command_id, ${r}.digest, ${r}.tags::text[]
    from ${source}
    returning b.topic_id, b.entity as stream, b.command_id, b.base_position, b.first_version, b.records)`
const log = logOf("r", "ok o join pos p using (topic_id, partition) join req r using (i) order by 1, 2, 3")
const passingLog = logOf("o", "ok o join pos p using (topic_id, partition)")
/** One segment for each partition that is published. Its sequence is the position and 1. */
const outbox = (incarnation: string) => `outbox as (
    insert into millrace.outbox (projection, source, partition, first_seq, messages, incarnation, target, target_partition, meta, vals)
    select r.topic, r.topic, o.partition, min(p.next_position - o.total) + 1, sum(r.n), ${incarnation}::uuid, r.topic, o.partition,
      '[' || string_agg(m.text, ',' order by o.before) || ']', string_agg(r.vals, e'\\n' order by o.before)
    from ok o join pos p using (topic_id, partition) join req r using (i) cross join lateral (
      select string_agg(piece || case when k <= r.n then (o.first_version + k - 1)::text else '' end, '' order by k) as text
      from string_to_table(r.segment, e'\\x01') with ordinality as u(piece, k)) m
    where p.published and (select count(*) from log) >= 0 group by r.topic, o.topic_id, o.partition order by 1, o.partition
    returning 1)`

const answer = (
  after: string
) => `select r.i::int4 - 1 as i, d.i is not null as repeated, coalesce(d.first_version, l.first_version) as first_version,
    coalesce(d.records, l.records, 0) as records, coalesce(d.base_position, l.base_position, -1) as position,
    coalesce(h.version, b.version, k.version) as actual, coalesce(h.closed, b.closed, k.closed) as closed, d.digest
  from req r left join done d using (i) left join known k using (i) left join behind b on (b.topic_id, b.stream) = (r.topic_id, r.stream)
    left join head h on (h.topic_id, h.stream) = (r.topic_id, r.stream)
    left join log l on (l.topic_id, l.stream, l.command_id) = (r.topic_id, r.stream, r.command_id)
  where (select count(*) from verdict) = 0${after} order by 1`

const keysOf = (rows: ReadonlyArray<AppendRow>): ReadonlyArray<KeyRef> => [
  ...new Map(rows.flatMap(({ keys }) => keys).map((key) => [JSON.stringify([key.subject, key.number]), key])).values()
]
/**
 * Builds the statement. `more` adds parts that write what belongs to the same commit, after the events and in their order; they may select
 * from `ok` (`i`, `topic_id`, `stream`, `partition`, `first_version` of what is appended), `req`, `pos` and `log`.
 */
export const appendStatement = (
  request: AppendRequest,
  more: (parts: StatementParts) => void = () => undefined
): CommitStatement => {
  const hasTimers = request.rows.some(({ timer }) => timer !== null)
  const keys = keysOf(request.rows)
  const hasTags = request.isAtomic || request.rows.some(({ tags }) => tags.length > 0)
  const after = hasTimers ? "gone" : hasTags ? "tags" : "ok"
  const passingParts = (parameter: Parameters) => {
    const [req, ...others] = passing(parameter, request, keys.length > 0)
    return [
      req!,
      ...(keys.length === 0 ? [] : [alive(parameter, keys)]),
      ...others,
      ...(hasTags ? [batchTags] : []),
      ...(hasTimers ? timers(parameter, request.rows) : []),
      ...passingPos(parameter, request, after),
      passingLog,
      ...(request.isPublished ? [outbox(parameter(request.incarnation))] : [])
    ]
  }
  const judgedParts = (parameter: Parameters) => [
    requests(parameter, request),
    known,
    done,
    behind,
    ...(request.isAtomic ? [] : [astray]),
    ...(keys.length === 0 ? [] : [alive(parameter, keys)]),
    fresh(request.isAtomic, keys.length > 0),
    head,
    refused,
    missed,
    ...(request.isAtomic
      ? [atomicTags(parameter, request.tags), atomicVerdict, ok]
      : [request.isStrict ? strictVerdict : batchVerdict, ok]),
    ...(!request.isAtomic && hasTags ? [batchTags] : []),
    ...(hasTimers ? timers(parameter, request.rows) : []),
    ...pos(parameter, request, after),
    log,
    outbox(parameter(request.incarnation))
  ]
  const parts = new StatementParts(1, request.isJudged ? judgedParts : passingParts)
  more(parts)
  return parts.statement((ran) =>
    request.isJudged ? answer(ran === "" ? "" : ` and ${ran}`) : passed(ran === "" ? "" : ` where ${ran}`)
  )
}
