// The statements over decisions about dead letters of topics, and over messages that relays parked.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ParkedMessage } from "../../relay/outbox.ts"
import type { ResendAttempt, ResendJournal } from "../../dead-letter/resend.ts"
import { storable } from "../../text/text.ts"
import { query, session, type Sql, type SqlError } from "../client/client.ts"
import { arrayLiteral } from "../client/types.ts"

/** The state of a dead letter of a topic or a relay. */
export type DeadLetterStatus = "parked" | "retrying" | "retried" | "discarded"
/** A decision about a dead letter of a topic. */
export interface DeadLetterDecision {
  /** Identifies the dead letter within the topic. */
  readonly origin: string
  readonly status: DeadLetterStatus
  readonly decided_by: string
  /** Epoch milliseconds. */
  readonly decided_at: number
}
/** All decisions about dead letters of a topic. */
export const decisions = (sql: Sql, topic: string) => sql<Array<DeadLetterDecision>>`
  select origin, status, decided_by, decided_at from millrace.topic_letter where topic = ${topic}`

/** Discards a dead letter of a topic. Returns false if it was retried or discarded before. */
export const discard = async (sql: Sql, topic: string, origin: string, by: string): Promise<boolean> => {
  const rows = await sql`
    insert into millrace.topic_letter as l (topic, origin, status, decided_by)
    values (${topic}, ${origin}, 'discarded', ${by})
    on conflict (topic, origin) do update set status = excluded.status, decided_by = excluded.decided_by,
      decided_at = clock_timestamp()
    where l.status = 'retrying'
    returning 1`
  return rows.length > 0
}

const note = <A>(run: () => PromiseLike<A>) => query("note a retry", run)
/** The attempt's number: microseconds since 1970, which grow as long as the server's clock does. */
const number = (sql: Sql) => sql`(extract(epoch from decided_at) * 1000000)::int8 as number`
/** Runs a statement that notes an attempt and returns it; undefined if the dead letter is no longer open. */
const noted = (run: () => PromiseLike<ReadonlyArray<ResendAttempt>>) =>
  Effect.map(note(run), ([row]) => row && { ...row })

/** The journal of a dead letter of a topic. One without a row is parked. */
export const topicJournal = (sql: Sql, topic: string, origin: string, by: string): ResendJournal<SqlError> => {
  const it = sql`topic = ${topic} and origin = ${origin} and status = 'retrying'`
  return {
    begin: ({ after, part }) =>
      noted(
        () => sql<Array<ResendAttempt>>`
            insert into millrace.topic_letter as l (topic, origin, status, decided_by, sent_to, sent_after)
            values (${topic}, ${origin}, 'retrying', ${by}, ${part}, ${after})
            on conflict (topic, origin) do update set tries = l.tries + 1, decided_by = excluded.decided_by
            where l.status = 'retrying'
            returning coalesce(sent_to, ${part}) as part, sent_after as after, ${number(sql)}, tries > 1 as resumed`
      ),
    again: ({ after, part }) =>
      noted(
        () => sql<Array<ResendAttempt>>`
            update millrace.topic_letter
            set sent_to = ${part}, sent_after = ${after}, decided_at = clock_timestamp()
            where ${it} returning sent_to as part, sent_after as after, ${number(sql)}, true as resumed`
      ),
    end: note(
      () => sql`update millrace.topic_letter set status = 'retried', decided_at = clock_timestamp() where ${it}`
    ),
    undo: () => note(() => sql`delete from millrace.topic_letter where ${it}`)
  }
}

/** A message that a relay parked. Times are epoch milliseconds. */
export interface ParkedDeadLetter extends ParkedMessage {
  readonly id: number
  readonly target: string
  readonly status: DeadLetterStatus
  readonly parked_at: number
  readonly decided_by: string | null
  readonly decided_at: number | null
}
/** Selects messages; undefined fields do not restrict. `topic` is the name with or without tenant and namespace. */
export interface ParkedQuery {
  readonly ids?: ReadonlyArray<number> | undefined
  readonly projection?: string | undefined
  readonly target?: string | undefined
  readonly topic?: string | undefined
  readonly key?: string | undefined
  /** Only those that were parked at this time or later, in epoch milliseconds. */
  readonly since?: number | undefined
  /** Only those that were parked in this millisecond or earlier, in epoch milliseconds. */
  readonly until?: number | undefined
  readonly statuses: ReadonlyArray<string>
  readonly limit: number
  readonly oldestFirst: boolean
}
const matches = (
  sql: Sql,
  { ids, key, projection, since, statuses, target, topic, until }: Omit<ParkedQuery, "limit" | "oldestFirst">
) => sql`
  (${ids === undefined} or id = any (${arrayLiteral(ids ?? [])}::int8[]))
  and status = any (${arrayLiteral(statuses)}::text[])
  and (${projection ?? null}::text is null or projection = ${projection ?? null})
  and (${target ?? null}::text is null or target = ${target ?? null})
  and (${topic ?? null}::text is null or topic = ${topic ?? null}
    or regexp_replace(topic, '^.*/|-partition-[0-9]+$', '', 'g') = ${topic ?? null})
  and (${key ?? null}::text is null or key = ${key ?? null})
  and (${since ?? null}::float8 is null or parked_at >= to_timestamp(${since ?? null}::float8 / 1000.0))
  and (${until ?? null}::float8 is null or parked_at < to_timestamp((${until ?? null}::float8 + 1) / 1000.0))`
/** How many messages that relays parked match. */
export const countParked = async (sql: Sql, filter: Omit<ParkedQuery, "limit" | "oldestFirst">): Promise<number> => {
  const [row] = await sql<Array<{ readonly n: number }>>`
    select count(*) as n from millrace.relay_parked where ${matches(sql, filter)}`
  return row!.n
}
/** Messages of one target that relays parked. Times are epoch milliseconds. */
export interface ParkedGroup {
  readonly target: string
  readonly count: number
  readonly keys: number
  readonly first: number
  readonly last: number
  /** The id and the reason of the newest one. */
  readonly sample: number
  readonly message: string
}
/** Groups messages that relays parked by their target, the largest group first. */
export const groupParked = (sql: Sql, filter: Omit<ParkedQuery, "oldestFirst">) => sql<Array<ParkedGroup>>`
  with chosen as (select * from millrace.relay_parked where ${matches(sql, filter)}),
  newest as (select distinct on (target) target, id, reason from chosen order by target, parked_at desc, id desc)
  select c.target, count(*) as count, count(distinct c.key) as keys, min(c.parked_at) as first,
    max(c.parked_at) as last, n.id as sample, n.reason as message
  from chosen c join newest n using (target) group by c.target, n.id, n.reason order by 2 desc, 1 limit ${filter.limit}`
/** Lists messages that relays parked. With the oldest first, those of a stream are in the stream's order. */
export const parked = (sql: Sql, filter: ParkedQuery) => {
  const { limit, oldestFirst } = filter
  return sql<Array<ParkedDeadLetter>>`
    select id, target, projection, source, partition, seq, incarnation, topic, key, meta, val, reason, parked_at, status,
      decided_by, decided_at
    from millrace.relay_parked
    where ${matches(sql, filter)}
    order by case when ${oldestFirst} then id end, date_trunc('milliseconds', parked_at) desc, id desc
    limit ${limit}`
}
/** Discards a message that a relay parked. Returns false if it was retried or discarded before. */
export const discardParked = async (sql: Sql, id: number, by: string): Promise<boolean> => {
  const rows = await sql`
    update millrace.relay_parked set status = 'discarded', decided_by = ${by}, decided_at = clock_timestamp()
    where id = ${id} and status in ('parked', 'retrying')
    returning 1`
  return rows.length > 0
}

/** The journal of a message that a relay parked. It is sent to the topic that it was meant for. */
export const parkedJournal = (sql: Sql, id: number, by: string): ResendJournal<SqlError> => {
  // earlier versions of Millrace did not count attempts, and left 0 for an unfinished one
  const columns = sql`topic as part, sent_after as after, ${number(sql)}, tries > 1 as resumed`
  return {
    begin: ({ after }) =>
      noted(
        () => sql<Array<ResendAttempt>>`
            update millrace.relay_parked set status = 'retrying', decided_by = ${by},
              tries = case when status = 'parked' then 1 else greatest(tries, 1) + 1 end,
              sent_after = case when status = 'parked' then ${after} else sent_after end,
              decided_at = case when status = 'parked' then clock_timestamp() else decided_at end
            where id = ${id} and status in ('parked', 'retrying')
            returning ${columns}`
      ),
    again: ({ after }) =>
      noted(
        () => sql<Array<ResendAttempt>>`
            update millrace.relay_parked set sent_after = ${after}, decided_at = clock_timestamp()
            where id = ${id} and status = 'retrying' returning ${columns}`
      ),
    end: note(
      () => sql`
        update millrace.relay_parked set status = 'retried', decided_at = clock_timestamp()
        where id = ${id} and status = 'retrying'`
    ),
    undo: (reason) =>
      note(
        () => sql`
          update millrace.relay_parked set status = 'parked', reason = ${storable(reason)} where id = ${id} and status = 'retrying'`
      )
  }
}

/**
 * Makes this process the only one on the database that retries or discards dead letters, until the scope closes or the process dies.
 * Returns false if another process is.
 */
export const lockRetries = Effect.fnUntraced(function* (sql: Sql): Effect.fn.Return<boolean, SqlError, Scope.Scope> {
  const own = yield* session(sql)
  const [row] = yield* query(
    "lock retries",
    () => own<Array<{ readonly got: boolean }>>`select pg_try_advisory_lock(1835625580, 1684828448) as got`
  )
  return row!.got
})
