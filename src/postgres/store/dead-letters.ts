// The statements over dead letters beside the commit that parks them: what is open, for the runner, and lists and decisions, for people.
import type { LogRecord } from "../../log/log.ts"
import { recordFromEnvelope } from "../../dead-letter/retry-record.ts"
import type { ProjectionPartition } from "../../runner/store.ts"
import type { Sql } from "../client/client.ts"
import { arrayLiteral } from "../client/types.ts"

/** A letter's record, as the table has it. */
export interface LetterRow {
  readonly position: number
  readonly envelope: string
  readonly value: string | null
}

/** The record that was parked. `appendedAt` is not kept: it is for whoever brings it again to say. */
export const recordOfLetter = ({ envelope, position, value }: LetterRow, partition: number): LogRecord => {
  const kept = JSON.parse(envelope) as { readonly envelope?: string; readonly value?: string }
  const record =
    kept.envelope === undefined
      ? recordFromEnvelope(envelope, partition, value)
      : recordFromEnvelope(kept.envelope, partition, kept.value!)
  return { ...record, position, appendedAt: 0 }
}

const isOpen = (sql: Sql) => sql`status in ('parked', 'skipped', 'retrying')`
const at = (sql: Sql, { partition, projection, topic, version }: ProjectionPartition) =>
  sql`projection = ${projection} and version = ${version} and topic = ${topic} and partition = ${partition}`

/** The open letter at a position, then those of its key behind it. */
export const openLetters = (
  sql: Sql,
  place: ProjectionPartition,
  position: number,
  ordered: boolean,
  behind: number
) => sql<Array<LetterRow>>`
  with head as (
    select key, position from millrace.dead_letters
    where ${at(sql, place)} and position = ${position} and ${isOpen(sql)} and envelope is not null
  )
  select d.position, d.envelope, d.value
  from head h
  join millrace.dead_letters d on ${at(sql, place)} and ${isOpen(sql)} and d.envelope is not null
    and (d.position = h.position or (${ordered} and md5(d.key) = md5(h.key) and d.key = h.key and d.position > h.position))
  where not ${ordered} or not exists (
    select from millrace.dead_letters e
    where ${at(sql, place)} and ${isOpen(sql)} and md5(e.key) = md5(h.key) and e.key = h.key and e.position < h.position
  )
  order by d.position
  limit ${behind + 1}`

/** Those of the keys that have a parked letter. */
export const parkedKeys = (sql: Sql, place: ProjectionPartition, keys: ReadonlyArray<string>) => sql<
  Array<{ readonly key: string }>
>`
  select k.key from unnest(${arrayLiteral(keys)}::text[]) as k(key)
  where exists (
    select from millrace.dead_letters d
    where ${at(sql, place)} and md5(d.key) = md5(k.key) and d.key = k.key
      and ${isOpen(sql)} and status <> 'skipped'
  )`

/** A dead letter, for people. Times are epoch milliseconds. */
export interface Letter {
  readonly id: number
  readonly status: "parked" | "skipped" | "retrying" | "retried" | "discarded"
  readonly projection: string
  readonly version: number
  readonly topic: string
  readonly partition: number
  readonly position: number
  readonly key: string | null
  readonly error: string
  readonly message: string
  readonly attempts: number
  readonly value: string | null
  readonly headers: Readonly<Record<string, string>>
  readonly event_time: number | null
  readonly trace_id: string | null
  readonly failed_at: number
  /** Where the record lies by which it was last retried. */
  readonly retried_position: number | null
  /** Who last retried or discarded it, and when. */
  readonly decided_by: string | null
  readonly decided_at: number | null
  /** As `envelopeOf` makes it; null for a record of a lookup's topic, which no retry would help. */
  readonly envelope: string | null
}
/** Which letters. What is undefined does not matter. */
export interface LetterFilter {
  readonly ids?: ReadonlyArray<number> | undefined
  readonly projection?: string | undefined
  readonly topic?: string | undefined
  readonly key?: string | undefined
  readonly error?: string | undefined
  /** Failed from then on, epoch milliseconds. */
  readonly since?: number | undefined
  readonly statuses: ReadonlyArray<Letter["status"]>
  /** How many at most. */
  readonly limit: number
}
const columns = (
  sql: Sql
) => sql`d.id, d.status, d.projection, d.version, d.topic, d.partition, d.position, d.key, d.error, d.message,
  d.attempts, d.value, d.headers, d.event_time, d.trace_id, d.failed_at, d.retried_position, d.decided_by, d.decided_at, d.envelope`
const matches = (sql: Sql, { error, ids, key, projection, since, statuses, topic }: LetterFilter) => sql`
  (${ids === undefined} or d.id = any (${arrayLiteral(ids ?? [])}::int8[]))
  and d.status = any (${arrayLiteral(statuses)}::text[])
  and (${projection ?? null}::text is null or d.projection = ${projection ?? null})
  and (${topic ?? null}::text is null or d.topic = ${topic ?? null})
  and (${key ?? null}::text is null or d.key = ${key ?? null})
  and (${error ?? null}::text is null or d.error = ${error ?? null})
  and (${since ?? null}::float8 is null or d.failed_at >= to_timestamp(${since ?? null}::float8 / 1000.0))`

/** Letters, the newest or the oldest first. */
export const list = (sql: Sql, filter: LetterFilter, oldestFirst = false) => sql<Array<Letter>>`
  select ${columns(sql)} from millrace.dead_letters d where ${matches(sql, filter)}
  order by case when ${oldestFirst} then d.id else -d.id end limit ${filter.limit}`

/**
 * Letters as they would be retried: by place, in order, the oldest first. One that waits behind another of its key stands for the
 * first of them, which brings it.
 */
export const retryable = (sql: Sql, filter: LetterFilter) => sql<Array<Letter>>`
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

/** Notes that letters are about to be retried. Returns those that still are open. */
export const markRetrying = (sql: Sql, ids: ReadonlyArray<number>, by: string) => sql<Array<{ readonly id: number }>>`
  update millrace.dead_letters set status = 'retrying', decided_by = ${by}, decided_at = now()
  where id in (
    select id from millrace.dead_letters
    where id = any (${arrayLiteral(ids)}::int8[]) and ${isOpen(sql)} order by id for update
  )
  returning id`

/** Discards letters, the oldest first: they are kept and count as dealt with. Returns their ids. */
export const discard = (sql: Sql, filter: LetterFilter, by: string) => sql<Array<{ readonly id: number }>>`
  update millrace.dead_letters set status = 'discarded', decided_by = ${by}, decided_at = now()
  where id in (
    select d.id from millrace.dead_letters d where ${matches(sql, filter)} order by d.id limit ${filter.limit} for update
  )
  returning id`
