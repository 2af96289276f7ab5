// The statements over projections' dead letters: the open ones, for the runner, and lists and decisions, for people.
import type { LogRecord } from "../../log/log.ts"
import { recordFromEnvelope } from "../../dead-letter/retry-record.ts"
import type { LiveDecision, ProjectionPartition } from "../../runner/store.ts"
import type { Sql } from "../client/client.ts"
import { arrayLiteral } from "../client/types.ts"

/** The record of a dead letter, as stored. */
export interface DeadLetterRow {
  readonly position: number
  readonly envelope: string
  readonly value: string | null
}
/** An open dead letter, as stored. */
export interface OpenDeadLetterRow extends DeadLetterRow {
  /** Null if it was stored before stream times were kept. */
  readonly stream_time: number | null
}

/** The record that became a dead letter. Its `appendedAt` is not stored and is 0 here; the caller has to set it. */
export const recordOfDeadLetter = ({ envelope, position, value }: DeadLetterRow, partition: number): LogRecord => {
  const kept = JSON.parse(envelope) as { readonly envelope?: string; readonly value?: string }
  const record =
    kept.envelope === undefined
      ? recordFromEnvelope(envelope, partition, value)
      : recordFromEnvelope(kept.envelope, partition, kept.value!)
  return { ...record, position, appendedAt: 0 }
}

const isOpen = (sql: Sql) => sql`status in ('parked', 'skipped', 'retrying')`
/** As the projection sees it, for which a discard counts from its record on. The index `dead_letters_open` has this condition. */
const isOpenInLog = (sql: Sql) => sql`(status in ('parked', 'skipped', 'retrying') or discard_record = 'pending')`
/** The condition that a row belongs to a projection's partition. */
export const isAt = (sql: Sql, { partition, projection, topic, version }: ProjectionPartition) =>
  sql`projection = ${projection} and version = ${version} and topic = ${topic} and partition = ${partition}`

/** The open dead letter at a position, and then at most `behind` open ones of its key after it. */
export const openDeadLetters = (
  sql: Sql,
  at: ProjectionPartition,
  position: number,
  ordered: boolean,
  behind: number
) => sql<Array<OpenDeadLetterRow>>`
  with head as (
    select key, position from millrace.dead_letters
    where ${isAt(sql, at)} and position = ${position} and ${isOpenInLog(sql)} and envelope is not null
  )
  select d.position, d.envelope, d.value, d.stream_time
  from head h
  join millrace.dead_letters d on ${isAt(sql, at)} and ${isOpenInLog(sql)} and d.envelope is not null
    and (d.position = h.position or (${ordered} and md5(d.key) = md5(h.key) and d.key = h.key and d.position > h.position))
  where not ${ordered} or not exists (
    select from millrace.dead_letters e
    where ${isAt(sql, at)} and ${isOpenInLog(sql)} and md5(e.key) = md5(h.key) and e.key = h.key and e.position < h.position
  )
  order by d.position
  limit ${behind + 1}`

/** Those of the keys that have a parked dead letter, or one whose discard record is not processed yet. */
export const parkedKeys = (sql: Sql, at: ProjectionPartition, keys: ReadonlyArray<string>) => sql<
  Array<{ readonly key: string }>
>`
  select k.key from unnest(${arrayLiteral(keys)}::text[]) as k(key)
  where exists (
    select from millrace.dead_letters d
    where ${isAt(sql, at)} and md5(d.key) = md5(k.key) and d.key = k.key
      and ${isOpenInLog(sql)} and status <> 'skipped'
  )`

/** What was decided about the live build's dead letters at these positions where the log has no record of it. */
export const liveDecisions = (sql: Sql, at: ProjectionPartition, first: number, last: number) => sql<
  Array<LiveDecision>
>`
  with found as (
    select d.position, d.key, d.status = 'discarded' and d.discard_record is null as discarded, d.error = 'EarlierParked' as behind
    from millrace.dead_letters d
    where (d.projection, d.topic, d.partition) = (${at.projection}, ${at.topic}, ${at.partition})
      and d.position between ${first} and ${last}
      and d.version = (
        select l.version from millrace.progress l join millrace.projection p on (p.name, p.version) = (l.projection, l.version)
        where (l.projection, l.topic, l.partition) = (${at.projection}, ${at.topic}, ${at.partition})
          and l.version <> ${at.version} and l.mode <> 'follower' and p.retired_at is null
        order by l.version desc limit 1
      )
  )
  select position, discarded, behind, behind and exists (
    select from millrace.dead_letters e where ${isAt(sql, at)} and e.key = f.key and e.position < f.position
      and e.status = 'discarded' and e.discard_record is null
  ) as "followsDiscarded"
  from found f where discarded or behind`

/** A dead letter of a projection. Times are epoch milliseconds. */
export interface StoredDeadLetter {
  readonly id: number
  readonly status: "parked" | "skipped" | "retrying" | "retried" | "discarded"
  readonly projection: string
  /** The number of the build. */
  readonly version: number
  /** The version that the code of the build declares. */
  readonly declared: number
  /** Whether the build is the live one. */
  readonly live: boolean
  readonly topic: string
  readonly partition: number
  readonly position: number
  readonly key: string | null
  readonly error: string
  readonly message: string
  /** The place in the application's code where the error comes from; null if it is not known. */
  readonly thrown_at: string | null
  readonly attempts: number
  readonly value: string | null
  readonly headers: Readonly<Record<string, string>>
  readonly event_time: number | null
  readonly trace_id: string | null
  readonly failed_at: number
  /** The position of its last retry record. */
  readonly retried_position: number | null
  /** The person who last retried or discarded it, and when. */
  readonly decided_by: string | null
  readonly decided_at: number | null
  /** As encoded by `envelopeOf`; null for a record of a lookup topic, which cannot be retried. */
  readonly envelope: string | null
}
/** Selects dead letters; undefined fields do not restrict. */
export interface DeadLetterQuery {
  readonly ids?: ReadonlyArray<number> | undefined
  readonly projection?: string | undefined
  /** The number of the build. */
  readonly build?: number | undefined
  readonly topic?: string | undefined
  readonly key?: string | undefined
  readonly error?: string | undefined
  /** Only those that failed at this time or later, in epoch milliseconds. */
  readonly since?: number | undefined
  /** Only those that failed in this millisecond or earlier, in epoch milliseconds. */
  readonly until?: number | undefined
  readonly statuses: ReadonlyArray<StoredDeadLetter["status"]>
  /** The largest number to return. */
  readonly limit: number
}
/** Whether a running process runs the build of a row of dead letters. */
const isRun = (sql: Sql, row: "a" | "d") => sql`exists (
    select from millrace.process p
    where p.last_seen > clock_timestamp() - interval '30 seconds' and ${sql.unsafe(`${row}.projection || '_v' || ${row}.version`)} = any (p.projections)
  )`
/** The version that the code of a row's build declares, and whether that is the live one. */
const ofBuild = (sql: Sql, row: "d" | "c") => {
  const [name, number] = [sql.unsafe(`${row}.projection`), sql.unsafe(`${row}.version`)]
  return sql`coalesce((select p.declared from millrace.projection p where (p.name, p.version) = (${name}, ${number})), ${number}) as declared,
    exists (select from millrace.live l where (l.projection, l.version) = (${name}, ${number})) as live`
}
const columns = (
  sql: Sql
) => sql`d.id, d.status, d.projection, d.version, ${ofBuild(sql, "d")}, d.topic, d.partition, d.position, d.key, d.error, d.message, d.thrown_at,
  d.attempts, d.value, d.headers, d.event_time, d.trace_id, d.failed_at, d.retried_position, d.decided_by, d.decided_at, d.envelope`
const matches = (
  sql: Sql,
  { build, error, ids, key, projection, since, statuses, topic, until }: DeadLetterQuery
) => sql`
  (${ids === undefined} or d.id = any (${arrayLiteral(ids ?? [])}::int8[]))
  and d.status = any (${arrayLiteral(statuses)}::text[])
  and (${projection ?? null}::text is null or d.projection = ${projection ?? null})
  and (${build ?? null}::int8 is null or d.version = ${build ?? null})
  and (${topic ?? null}::text is null or d.topic = ${topic ?? null})
  and (${key ?? null}::text is null or d.key = ${key ?? null})
  and (${error ?? null}::text is null or d.error = ${error ?? null})
  and (${since ?? null}::float8 is null or d.failed_at >= to_timestamp(${since ?? null}::float8 / 1000.0))
  and (${until ?? null}::float8 is null or d.failed_at < to_timestamp((${until ?? null}::float8 + 1) / 1000.0))`

/** How many dead letters match, whatever the limit. `isRetryable`: of those that can be retried. */
export const count = async (sql: Sql, filter: DeadLetterQuery, isRetryable: boolean): Promise<number> => {
  const [row] = await sql<Array<{ readonly n: number }>>`
    select count(*) as n from millrace.dead_letters d
    where ${matches(sql, filter)} and (${!isRetryable} or d.envelope is not null)`
  return row!.n
}
/** Lists dead letters, the newest or the oldest first. */
export const list = (sql: Sql, filter: DeadLetterQuery, oldestFirst = false) => sql<Array<StoredDeadLetter>>`
  select ${columns(sql)} from millrace.dead_letters d where ${matches(sql, filter)}
  order by case when ${oldestFirst} then d.id end, date_trunc('milliseconds', d.failed_at) desc, d.id desc limit ${filter.limit}`

/** Dead letters of a build that failed with errors of one name. Times are epoch milliseconds. */
export interface DeadLetterGroup {
  readonly projection: string
  /** The number of the build. */
  readonly version: number
  /** The version that the code of the build declares. */
  readonly declared: number
  /** Whether the build is the live one. */
  readonly live: boolean
  /** The error's name; `EarlierParked`: they wait behind others of their key. */
  readonly error: string
  readonly count: number
  readonly keys: number
  readonly first_failed_at: number
  readonly last_failed_at: number
  /** The id and the message of the newest one. */
  readonly sample: number
  readonly message: string
  /** How many others of the build wait behind these. */
  readonly waiting: number
}
/** Groups dead letters by build and error: root causes first, the largest group first. Those that wait behind others come last. */
export const groups = (sql: Sql, filter: DeadLetterQuery) => sql<Array<DeadLetterGroup>>`
  with chosen as (select d.* from millrace.dead_letters d where ${matches(sql, filter)}),
  newest as (
    select distinct on (projection, version, error) projection, version, error, id, message
    from chosen order by projection, version, error, failed_at desc, id desc
  ),
  behind as (
    select h.projection, h.version, h.error, count(*)::int8 as n
    from chosen w
    join lateral (
      select c.projection, c.version, c.error from millrace.dead_letters c
      where (c.projection, c.version, c.topic, c.partition) = (w.projection, w.version, w.topic, w.partition)
        and md5(c.key) = md5(w.key) and c.key = w.key and c.status in ('parked', 'skipped', 'retrying')
        and c.error <> 'EarlierParked' and c.position < w.position
      order by c.position limit 1
    ) h on true
    where w.error = 'EarlierParked' group by 1, 2, 3
  )
  select c.projection, c.version, ${ofBuild(sql, "c")}, c.error, count(*)::int8 as count, count(distinct c.key)::int8 as keys,
    min(c.failed_at) as first_failed_at, max(c.failed_at) as last_failed_at, n.id as sample, n.message, coalesce(max(b.n), 0)::int8 as waiting
  from chosen c join newest n using (projection, version, error) left join behind b using (projection, version, error)
  group by c.projection, c.version, c.error, n.id, n.message
  order by c.error = 'EarlierParked', count(*) + coalesce(max(b.n), 0) desc, 1, 2, 3 limit ${filter.limit}`

/**
 * The dead letters to retry, by partition and position. In place of one that waits behind others of its key, the first of these is
 * returned, because its retry retries them all.
 */
export const retryable = (sql: Sql, filter: DeadLetterQuery) => sql<Array<StoredDeadLetter>>`
  with chosen as (
    select d.* from millrace.dead_letters d
    where ${matches(sql, filter)} and d.envelope is not null
    order by d.id limit ${filter.limit}
  )
  select ${columns(sql)} from millrace.dead_letters d
  where d.id in (
    select case when c.error <> 'EarlierParked' then c.id else (
      select e.id from millrace.dead_letters e
      where (e.projection, e.version, e.topic, e.partition) = (c.projection, c.version, c.topic, c.partition)
        and md5(e.key) = md5(c.key) and e.key = c.key and e.status in ('parked', 'skipped', 'retrying')
      order by e.position limit 1
    ) end from chosen c
  )
  order by d.topic, d.projection, d.version, d.partition, d.position`

/** The number that the next build of each projection gets, or a lower one that no build has. */
export const nextBuilds = (sql: Sql, projections: ReadonlyArray<string>) => sql<
  Array<{ readonly projection: string; readonly next: number }>
>`
  select name as projection, max(version) + 1 as next from millrace.projection
  where name = any (${arrayLiteral(projections)}::text[]) group by name`

/** Marks dead letters as being retried. Returns the ids of those that are still open. */
export const markRetrying = (sql: Sql, ids: ReadonlyArray<number>, by: string) => sql<Array<{ readonly id: number }>>`
  update millrace.dead_letters set status = 'retrying', decided_by = ${by}, decided_at = now()
  where id in (
    select id from millrace.dead_letters
    where id = any (${arrayLiteral(ids)}::int8[]) and ${isOpen(sql)} order by id for update
  )
  returning id`

/** What became of dead letters that were retried. */
export interface RetriedRow {
  readonly processed: number
  readonly failed_again: number
  /** Those that a process is about to process; others wait for a process that runs their projection. */
  readonly waiting: number
  /** The ids of all that are not processed yet, whether a process is about to or not. */
  readonly pending: ReadonlyArray<number>
  /** Contributions of those that were processed, and of those behind them, that were too late for their windows. */
  readonly late: number
  /** Those that waited behind them and were processed after them, and those of these that failed. */
  readonly behind: number
  readonly failed_behind: number
  /** Some of those that failed again. */
  readonly failed: ReadonlyArray<{ readonly id: number; readonly error: string; readonly message: string }>
}
/** Dead letters whose retry waits because no process runs their build. */
export interface NotRun extends Pick<StoredDeadLetter, "projection" | "version" | "declared" | "live"> {
  readonly count: number
  /** Whether the configuration no longer has the version. */
  readonly removed: boolean
}
/** Those of the dead letters whose retry waits for a process that runs their build, by build. */
export const notRun = (sql: Sql, ids: ReadonlyArray<number>) => sql<Array<NotRun>>`
  select d.projection, d.version, ${ofBuild(sql, "d")}, count(*) as count, exists (
    select from millrace.projection p where (p.name, p.version) = (d.projection, d.version) and p.removed_at is not null
  ) as removed
  from millrace.dead_letters d
  where d.id = any (${arrayLiteral(ids)}::int8[]) and d.status = 'retrying' and not ${isRun(sql, "d")}
  group by d.projection, d.version order by 1, 2`
/** What became of dead letters since they were marked as being retried. */
export const retryOutcome = (sql: Sql, ids: ReadonlyArray<number>) => sql<Array<RetriedRow>>`
  with asked as (select * from millrace.dead_letters where id = any (${arrayLiteral(ids)}::int8[])),
  retried as ( -- with an order of keys, a retry also brings back those that wait behind its dead letter
    select distinct d.projection, d.version, d.topic, d.partition, d.position
    from asked a join millrace.dead_letters d using (projection, version, topic, partition, retried_position)
    where a.status = 'retried' and d.status = 'retried'
  ),
  behind as (
    select distinct d.id, d.status, d.error, d.message
    from asked a join millrace.dead_letters d using (projection, version, topic, partition, retried_position)
    where a.status = 'retried' and d.id not in (select id from asked)
      and (d.status = 'retried' or d.status = 'parked' and d.error <> 'EarlierParked')
  ),
  failed as (
    select id, error, message from asked where status = 'parked' union all select id, error, message from behind where status = 'parked'
    order by id limit 5
  )
  select count(*) filter (where a.status = 'retried') as processed, count(*) filter (where a.status = 'parked') as failed_again,
    count(*) filter (where a.status = 'retrying' and ${isRun(sql, "a")}) as waiting,
    (select coalesce(jsonb_agg(id order by id), '[]') from asked where status = 'retrying') as pending,
    (select count(*) from retried join millrace.late_events using (projection, version, topic, partition, position)) as late,
    (select count(*) from behind where status = 'retried') as behind,
    (select count(*) from behind where status = 'parked') as failed_behind,
    (select coalesce(jsonb_agg(f order by f.id), '[]') from failed f) as failed
  from asked a`

/** How many open dead letters wait behind these, and are retried with them. */
export const countBehind = async (sql: Sql, ids: ReadonlyArray<number>): Promise<number> => {
  const [row] = await sql<Array<{ readonly n: number }>>`
    select count(distinct d.id) as n from millrace.dead_letters a
    join millrace.dead_letters d on (d.projection, d.version, d.topic, d.partition) = (a.projection, a.version, a.topic, a.partition)
      and md5(d.key) = md5(a.key) and d.key = a.key and d.position > a.position and d.error = 'EarlierParked'
      and d.status in ('parked', 'skipped', 'retrying')
    where a.id = any (${arrayLiteral(ids)}::int8[]) and d.id <> all (${arrayLiteral(ids)}::int8[])`
  return row!.n
}

/** Those of the dead letters that can be discarded. The log may already have the retry record of one that is `retrying`. */
export const discardable = (sql: Sql, ids: ReadonlyArray<number>) => sql<Array<{ readonly id: number }>>`
  select id from millrace.dead_letters where id = any (${arrayLiteral(ids)}::int8[]) and status in ('parked', 'skipped')`

/**
 * Notes that dead letters are discarded; they stay in the table. `isLogged`: the log has their discard records, and one that is parked keeps its key
 * waiting until the projection has processed its own. The projection may have done that already.
 */
export const noteDiscarded = (sql: Sql, ids: ReadonlyArray<number>, by: string, isLogged: boolean) => sql`
  update millrace.dead_letters set status = 'discarded', decided_by = ${by}, decided_at = now(),
    discard_record = case when status = 'discarded' or not ${isLogged} then discard_record when status = 'parked' then 'pending' else 'processed' end
  where id in (
    select id from millrace.dead_letters where id = any (${arrayLiteral(ids)}::int8[])
      and (status in ('parked', 'skipped') or (status = 'discarded' and decided_by is null)) order by id for update
  )`
