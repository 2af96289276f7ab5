// Which projections a person has paused: rows that every process reads, and that `millrace pause` and `resume` write.
import type * as Effect from "effect/Effect"
import { query, type Sql, type SqlError } from "../client/client.ts"

/** A projection that is paused. */
export interface PausedProjection {
  readonly projection: string
  /** For how long it has been, in milliseconds of the database's clock. */
  readonly pausedMs: number
}

/** The projections that are paused. */
export const readPauses = (sql: Sql): Effect.Effect<ReadonlyArray<PausedProjection>, SqlError> =>
  query(
    "read which projections are paused",
    () => sql<Array<PausedProjection>>`
      select projection, (extract(epoch from clock_timestamp() - paused_at) * 1000)::float8 as "pausedMs"
      from millrace.pause order by projection`
  )

/** Pauses a projection. False if it was paused before. */
export const storePause = (sql: Sql, projection: string): Effect.Effect<boolean, SqlError> =>
  query("pause a projection", async () => {
    const rows = await sql`insert into millrace.pause (projection) values (${projection})
      on conflict do nothing returning projection`
    return rows.length > 0
  })

/** Lets a projection go on. False if it was not paused. */
export const deletePause = (sql: Sql, projection: string): Effect.Effect<boolean, SqlError> =>
  query("resume a projection", async () => {
    const rows = await sql`delete from millrace.pause where projection = ${projection} returning projection`
    return rows.length > 0
  })

/** Whether the live build of a projection is written by the statements that append events, or is to be. */
export const isInline = (sql: Sql, projection: string): Effect.Effect<boolean, SqlError> =>
  query("look how a projection runs", async () => {
    const rows = await sql`
      select from millrace.projection p join millrace.live l on (l.projection, l.version) = (p.name, p.version)
      where p.name = ${projection} and (p.lifecycle = 'inline' or p.released
        or exists (select from millrace.progress g where (g.projection, g.version) = (p.name, p.version) and g.inline))`
    return rows.length > 0
  })
