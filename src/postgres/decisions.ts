// What people decided about messages that subscriptions gave up and that relays parked: the statements. It reads no topic and sends nothing.
import type { Parked } from "../outbox.ts"
import type { Sql } from "./client.ts"
import { arrayLiteral } from "./types.ts"

/** What became of a letter. */
export type Status = "parked" | "retrying" | "retried" | "discarded"
/** A decision about a message that a subscription gave up. */
export interface Decision {
  readonly origin: string
  readonly status: Status
  readonly decided_by: string
  /** Epoch milliseconds. */
  readonly decided_at: number
}
/** Decisions about letters of a topic. */
export const decisions = (sql: Sql, topic: string) => sql<Array<Decision>>`
  select origin, status, decided_by, decided_at from millrace.subscription_letter where topic = ${topic}`

/** Writes a decision down, unless the letter was retried or discarded before. Returns whether it was. */
export const decide = async (sql: Sql, topic: string, origin: string, status: Status, by: string): Promise<boolean> => {
  const rows = await sql`
    insert into millrace.subscription_letter as l (topic, origin, status, decided_by)
    values (${topic}, ${origin}, ${status}, ${by})
    on conflict (topic, origin) do update set status = excluded.status, decided_by = excluded.decided_by,
      decided_at = clock_timestamp()
    where l.status = 'retrying'
    returning 1`
  return rows.length > 0
}

/** A message that a relay parked, for people. Times are epoch milliseconds. */
export interface ParkedLetter extends Parked {
  readonly id: number
  readonly target: string
  readonly status: Status
  readonly parked_at: number
  readonly decided_by: string | null
  readonly decided_at: number | null
}
/** Which of them. What is undefined does not matter; `topic` is the name without tenant and namespace, or the full one. */
export interface ParkedFilter {
  readonly ids?: ReadonlyArray<number> | undefined
  readonly projection?: string | undefined
  readonly topic?: string | undefined
  readonly key?: string | undefined
  /** Parked from then on, epoch milliseconds. */
  readonly since?: number | undefined
  readonly statuses: ReadonlyArray<string>
  readonly limit: number
  readonly oldestFirst: boolean
}
/** Messages that relays parked. Those of a stream are in its order where the oldest come first. */
export const parked = (sql: Sql, filter: ParkedFilter) => {
  const { ids, key, limit, oldestFirst, projection, since, statuses, topic } = filter
  return sql<Array<ParkedLetter>>`
    select id, target, projection, source, partition, seq, incarnation, topic, key, meta, val, reason, parked_at, status,
      decided_by, decided_at
    from millrace.relay_parked
    where (${ids === undefined} or id = any (${arrayLiteral(ids ?? [])}::int8[]))
      and status = any (${arrayLiteral(statuses)}::text[])
      and (${projection ?? null}::text is null or projection = ${projection ?? null})
      and (${topic ?? null}::text is null or topic = ${topic ?? null}
        or regexp_replace(topic, '^.*/|-partition-[0-9]+$', '', 'g') = ${topic ?? null})
      and (${key ?? null}::text is null or key = ${key ?? null})
      and (${since ?? null}::float8 is null or parked_at >= to_timestamp(${since ?? null}::float8 / 1000.0))
    order by case when ${oldestFirst} then id else -id end
    limit ${limit}`
}
/** Writes a decision down, unless the message was retried or discarded before. Returns whether it was. */
export const decideParked = async (
  sql: Sql,
  id: number,
  status: Status,
  by: string,
  reason?: string
): Promise<boolean> => {
  const rows = await sql`
    update millrace.relay_parked
    set status = ${status}, decided_by = ${by}, decided_at = clock_timestamp(), reason = coalesce(${reason ?? null}, reason)
    where id = ${id} and status in ('parked', 'retrying')
    returning 1`
  return rows.length > 0
}
