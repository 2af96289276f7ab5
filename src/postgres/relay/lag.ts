// How far relays are behind, for the status: messages, and the age of the oldest one that its target does not have.
import type * as Effect from "effect/Effect"
import { timeHeader } from "../../log/time-mark.ts"
import { query, type Sql, type SqlError } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"

/** What a relay target lacks, and why any of its streams are halted. Names of fields are those that `status` prints. */
export interface RelayRow {
  readonly target: string
  /** Messages for the target that it does not have. An upper bound if a stream has more than 5,000 segments to go of which the target skips some. */
  readonly lag: number
  /** How long ago the oldest of them was committed, in milliseconds of the server's clock; null if the target lacks none. */
  readonly oldest_ms: number | null
  readonly halted: string | null
  /** How many of its streams are halted. */
  readonly halted_streams: number
  /** How long ago a position moved last; null if none ever has. */
  readonly moved_ms: number | null
}

/** How many segments of a stream are looked through for those that a target does not skip. */
const looked = 5_000
/** The target that gets no time marks: its relay drops them, since projections read them from the log. */
const withoutMarks = "pulsar"

/**
 * Every target, ordered by name: those given and those that have positions. A target without positions lacks everything. Topics that it
 * skips (see `storeSkipped`), and time marks for Pulsar, do not count.
 */
export const readRelays = (
  sql: Sql,
  targets: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<RelayRow>, SqlError> =>
  query(
    "read relays",
    () => sql<Array<RelayRow>>`
      with target as (
        select n.target, coalesce((select array_agg(k.topic) from millrace.relay_skipped k where k.target = n.target), '{}') as skipped,
          n.target = ${withoutMarks} or exists (select from millrace.relay_skipped k where k.target = n.target) as skips
        from (select unnest(${arrayOf(targets)}::text[]) as target union select target from millrace.relay_position) n
      ), stream as (
        select projection, topic as source, partition, max(outbox_seq) as seq from millrace.progress group by 1, 2, 3
        union all
        select a.name, a.name, h.partition, h.next_position from millrace.log_topic a join millrace.log_head h using (topic_id)
        where a.aggregate and h.published
      )
      select t.target,
        coalesce(sum(case when not t.skips then greatest(s.seq - coalesce(r.seq, 0), 0)
          else coalesce(o.messages, 0) + case when o.segments = ${looked} then greatest(s.seq - o.last, 0) else 0 end end), 0)::int8 as lag,
        round(extract(epoch from clock_timestamp() - min(coalesce(o.oldest, case when o.segments = ${looked} then o.newest end))) * 1000)::float8 as oldest_ms,
        string_agg(distinct r.halted, '; ') as halted,
        count(r.halted) as halted_streams,
        round(extract(epoch from clock_timestamp() - max(r.moved_at)) * 1000)::float8 as moved_ms
      from target t
      left join stream s on true
      left join millrace.relay_position r on (r.target, r.projection, r.source, r.partition) = (t.target, s.projection, s.source, s.partition)
      left join lateral (
        select sum(w.messages) filter (where not w.skip) as messages, min(w.created_at) filter (where not w.skip) as oldest,
          max(w.created_at) as newest, max(w.first_seq + w.messages - 1) as last, count(*) as segments
        from (
          select o.first_seq, o.messages, o.created_at, o.target = any (t.skipped)
            or (t.target = ${withoutMarks} and o.messages = 1 and o.vals = '' and o.meta like ${`%"${timeHeader}"%`}) as skip
          from millrace.outbox o
          where (o.projection, o.source, o.partition) = (s.projection, s.source, s.partition) and o.first_seq > coalesce(r.seq, 0)
          order by o.first_seq
          limit case when t.skips then ${looked} else 1 end
        ) w
      ) o on s.seq > coalesce(r.seq, 0)
      group by t.target order by t.target`
  )

/** Stores which topics do not go to a target. Other targets keep theirs. */
export const storeSkipped = (
  sql: Sql,
  target: string,
  topics: ReadonlyArray<string>
): Effect.Effect<unknown, SqlError> =>
  query(
    "note which topics a relay skips",
    () => sql`
      with gone as (
        delete from millrace.relay_skipped where target = ${target} and topic <> all (${arrayOf(topics)}::text[])
      )
      insert into millrace.relay_skipped (target, topic) select ${target}, unnest(${arrayOf(topics)}::text[]) on conflict do nothing`
  )

/** Topics that every one of the targets skips: nothing publishes them. */
export const readUnpublished = (
  sql: Sql,
  targets: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<string>, SqlError> =>
  query("look for topics that no relay publishes", async () => {
    const rows = await sql<Array<{ readonly topic: string }>>`
      select topic from millrace.relay_skipped where target = any (${arrayOf(targets)}::text[])
      group by topic having count(*) = ${targets.length} order by 1 limit 50`
    return rows.map(({ topic }) => topic)
  })
