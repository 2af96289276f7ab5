// The rows that say how a rebuild is to go: read by every process that runs the build, written by `millrace rebuild`.
import type * as Effect from "effect/Effect"
import { query, type Session, type Sql, type SqlError } from "../client/client.ts"

/** What a rebuild is to do now. */
export type RebuildState = "running" | "paused" | "done" | "cancelled"
/** A build of a projection. */
export interface BuildId {
  readonly projection: string
  /** The number of the build. */
  readonly version: number
}
/** A rebuild as it is stored. */
export interface StoredRebuild extends BuildId {
  readonly state: RebuildState
  /** Events a second, for all processes together; null: no limit. */
  readonly rate: number | null
  /** How long an event may wait for the live build before the rebuild waits, in milliseconds; null: no limit. */
  readonly maxLiveLagMs: number | null
}
/** The smallest and the largest limit of a rebuild, in events a second or in seconds: beyond them the database's intervals overflow. */
export const limitBounds = { least: 0.001, most: 1_000_000_000 }
/** Limits to set; undefined: as before, null: none. */
export interface RebuildLimits {
  readonly rate: number | null | undefined
  readonly maxLiveLagMs: number | null | undefined
}

const columns = `projection, version, state, rate, max_live_lag_ms as "maxLiveLagMs"`

/** The rebuild of a build; undefined if none was started, as for a build that a process created for a new version. */
export const readRebuild = (
  sql: Sql | Session,
  { projection, version }: BuildId
): Effect.Effect<StoredRebuild | undefined, SqlError> =>
  query("read the state of a rebuild", async () => {
    const [row] = await sql.unsafe<Array<StoredRebuild>>(
      `select ${columns} from millrace.rebuild where projection = $1 and version = $2::int4`,
      [projection, version],
      { prepare: true }
    )
    return row
  })

/** Notes that a rebuild runs, from now on or again, and sets its limits. */
export const startRebuild = (
  sql: Sql | Session,
  { projection, version }: BuildId,
  { maxLiveLagMs, rate }: RebuildLimits
): Effect.Effect<void, SqlError> =>
  query("note that a rebuild runs", () =>
    sql
      .unsafe(
        `insert into millrace.rebuild as r (projection, version, state, rate, max_live_lag_ms) values ($1, $2::int4, 'running', $3::float8, $4::float8)
        on conflict (projection, version) do update set state = 'running', updated_at = clock_timestamp(), next_at = null,
          rate = case when $5 then excluded.rate else r.rate end,
          max_live_lag_ms = case when $6 then excluded.max_live_lag_ms else r.max_live_lag_ms end`,
        [projection, version, rate ?? null, maxLiveLagMs ?? null, rate !== undefined, maxLiveLagMs !== undefined]
      )
      .then(() => undefined)
  )

/** Sets the state of a rebuild, whose row is created if there is none; of one that is done also how fast it was. */
export const setRebuildState = (
  sql: Sql | Session,
  { projection, version }: BuildId,
  state: RebuildState,
  eventsPerSecond?: number
): Effect.Effect<void, SqlError> =>
  query("note the state of a rebuild", () =>
    sql
      .unsafe(
        `insert into millrace.rebuild as r (projection, version, state, events_per_second) values ($1, $2::int4, $3, $4::float8)
        on conflict (projection, version) do update set state = excluded.state, updated_at = clock_timestamp(),
          events_per_second = coalesce(excluded.events_per_second, r.events_per_second)`,
        [projection, version, state, eventsPerSecond ?? null]
      )
      .then(() => undefined)
  )

/** How fast the last rebuild of the projection was that was measured, in events a second; undefined if none was. */
export const readMeasuredRate = (sql: Sql | Session, projection: string): Effect.Effect<number | undefined, SqlError> =>
  query("read how fast the last rebuild was", async () => {
    const [row] = await sql.unsafe<Array<{ readonly rate: number }>>(
      `select events_per_second as rate from millrace.rebuild where projection = $1 and events_per_second is not null
      order by updated_at desc limit 1`,
      [projection]
    )
    return row?.rate
  })

/** Takes the next turn of so many events from the rate that all processes share. Returns in how many milliseconds it comes; undefined if there is no rate any more. */
export const takeTurn = (
  sql: Sql,
  { projection, version }: BuildId,
  events: number
): Effect.Effect<number | undefined, SqlError> =>
  query("take a turn in a rebuild", async () => {
    const [row] = await sql.unsafe<Array<{ readonly ms: number }>>(
      `update millrace.rebuild set next_at = greatest(next_at, clock_timestamp()) + $3::float8 / rate * interval '1 second'
      where projection = $1 and version = $2::int4 and state = 'running' and rate is not null
      returning (extract(epoch from next_at - clock_timestamp()) * 1000 - $3::float8 / rate * 1000)::float8 as ms`,
      [projection, version, events],
      { prepare: true }
    )
    return row && Math.max(0, row.ms)
  })

/** How far a partition is in the live build and in one that follows it. */
export interface RebuildPosition {
  readonly topic: string
  readonly partition: number
  /** The first position that the live build has; null if it does not have the partition. */
  readonly first: number | null
  /** The next position of the live build, and of the follower; null if it does not have the partition. */
  readonly live: number | null
  readonly follower: number | null
  /** How far the follower may go where the live build does not read the topic; null if it does. See `millrace.own_bound`. */
  readonly own: number | null
  /** Where the follower stops; null if it is no investigation build. */
  readonly stop: number | null
  /** Why the follower is halted; null if it is not. */
  readonly halted: string | null
}
/** The positions of the live build of a projection and of another build; of the live one alone if `version` is undefined. */
export const readRebuildPositions = (
  sql: Sql | Session,
  projection: string,
  version: number | undefined
): Effect.Effect<ReadonlyArray<RebuildPosition>, SqlError> =>
  query("read the positions of a rebuild", () =>
    sql.unsafe<Array<RebuildPosition>>(
      `with live as (select g.* from millrace.progress g join millrace.live l using (projection, version) where g.projection = $1)
      select topic, partition, o.first_position as first, o.next_position as live, n.next_position as follower, n.halted,
        millrace.own_bound(n.projection, n.version, n.topic, n.partition) as own,
        millrace.until_bound(n.projection, n.version, n.topic, n.partition) as stop
      from live o full join (select * from millrace.progress where projection = $1 and version = $2::int4) n using (topic, partition)
      order by 1, 2`,
      [projection, version ?? null]
    )
  )

/** The bytes of tables with their indexes, together. Tables that do not exist count nothing. */
export const readTableBytes = (
  sql: Sql | Session,
  qualifiedNames: ReadonlyArray<string>
): Effect.Effect<number, SqlError> =>
  query("read the size of tables", async () => {
    const [row] = await sql.unsafe<Array<{ readonly bytes: number }>>(
      `select coalesce(sum(pg_total_relation_size(to_regclass(t))), 0)::float8 as bytes from unnest($1::text[]) t`,
      [`{${qualifiedNames.map((name) => JSON.stringify(name)).join(",")}}`]
    )
    return row!.bytes
  })
