// Deletes ids of events by which duplicates were found, once no record that the log keeps can be a duplicate of them.
import * as Effect from "effect/Effect"
import { query, type Sql, type SqlError } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"

/** A source of a projection that dedupes, whose topic has a retention. Times are in milliseconds. */
export interface DedupedSource {
  readonly projection: string
  /** The version that the code declares; all its builds are meant. */
  readonly declared: number
  readonly topic: string
  readonly retentionMs: number
  readonly withinMs: number
}

/**
 * Deletes at most `limit` rows of seen ids, and returns how many. A row is deleted if all this holds:
 * - its ids were stored longer ago than the retention, so the log does not have their records any more;
 * - their times are so far before the partition's stream time that an event that is dated within the retention cannot be near them;
 * - no dead letter that is open, which a retry may bring back, is dated near them.
 */
export const pruneSeen = (
  sql: Sql,
  sources: ReadonlyArray<DedupedSource>,
  limit = 500
): Effect.Effect<number, SqlError> =>
  query("delete ids of events that the log no longer has", async () => {
    const rows = await sql`
      delete from millrace.seen where ctid = any (array(
        select s.ctid
        from unnest(${arrayOf(sources.map(({ projection }) => projection))}::text[], ${arrayOf(sources.map(({ declared }) => declared))}::int4[],
          ${arrayOf(sources.map(({ topic }) => topic))}::text[], ${arrayOf(sources.map(({ retentionMs }) => retentionMs))}::float8[],
          ${arrayOf(sources.map(({ withinMs }) => withinMs))}::float8[]) as d(name, declared, topic, retention, within)
        join millrace.projection p on (p.name, p.declared) = (d.name, d.declared)
        join millrace.progress g on (g.projection, g.version, g.topic) = (p.name, p.version, d.topic)
        join millrace.seen s on (s.projection, s.version, s.topic, s.partition) = (g.projection, g.version, g.topic, g.partition)
          and s.max_time < g.stream_time - d.retention - d.within
        where s.stored_at < clock_timestamp() - d.retention * interval '1 millisecond'
          and not exists (
            select from millrace.dead_letters l
            where (l.projection, l.version, l.topic, l.partition) = (s.projection, s.version, s.topic, s.partition)
              and (l.status in ('parked', 'skipped', 'retrying') or l.discard_record = 'pending')
              and coalesce(extract(epoch from l.event_time) * 1000.0 between s.min_time - d.within and s.max_time + d.within, true)
          )
        limit ${limit}
        for update of s skip locked
      )) returning 1`
    return rows.length
  })
