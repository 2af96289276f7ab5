// The queries of the status about how long records and messages waited last: when positions moved, and when segments were published. They change nothing.
import type * as Effect from "effect/Effect"
import { query, type Sql, type SqlError } from "../client/client.ts"

/** The partition of a live build and topic whose position moved last, and when that was. */
export interface LastMove {
  readonly projection: string
  readonly topic: string
  readonly partition: number
  /** The position after the newest record that was processed. */
  readonly position: number
  /** Epoch milliseconds of the server's clock, and how long ago that was. */
  readonly moved_at: number
  readonly ago_ms: number
}
/** How long the segment waited that a relay published last. */
export interface RelayDelay {
  readonly target: string
  /** From the commit of the rows until the target had the messages, in milliseconds. */
  readonly relay_ms: number
  /** How long ago that was, in milliseconds. */
  readonly ago_ms: number
}

/** One partition for each live build and topic. Inline builds are left out: they commit with the append. */
export const readLastMoves = (sql: Sql): Effect.Effect<ReadonlyArray<LastMove>, SqlError> =>
  query(
    "read when positions moved",
    () => sql<Array<LastMove>>`
      select distinct on (g.projection, g.topic) g.projection, g.topic, g.partition, g.next_position as position,
        (extract(epoch from g.moved_at) * 1000)::float8 as moved_at,
        round(extract(epoch from clock_timestamp() - g.moved_at) * 1000)::float8 as ago_ms
      from millrace.progress g join millrace.live l using (projection, version)
      where g.moved_at is not null and not g.inline
      order by g.projection, g.topic, g.moved_at desc, g.partition`
  )

/** The stream of each target that moved last, if the outbox still has its segment. */
export const readRelayDelays = (sql: Sql): Effect.Effect<ReadonlyArray<RelayDelay>, SqlError> =>
  query(
    "read how long messages waited",
    () => sql<Array<RelayDelay>>`
      select p.target, greatest(round(extract(epoch from p.moved_at - o.created_at) * 1000), 0)::float8 as relay_ms,
        round(extract(epoch from clock_timestamp() - p.moved_at) * 1000)::float8 as ago_ms
      from (
        select distinct on (target) * from millrace.relay_position where moved_at is not null order by target, moved_at desc
      ) p
      cross join lateral (
        select created_at from millrace.outbox o
        where (o.projection, o.source, o.partition) = (p.projection, p.source, p.partition) and o.first_seq <= p.seq
        order by o.first_seq desc limit 1
      ) o
      order by p.target`
  )
