// The queries of the status about timers and commands that wait. They change nothing.
import type * as Effect from "effect/Effect"
import { query, type Sql, type SqlError } from "../client/client.ts"

/** Timers and commands that wait. Names of fields are those that `status --json` prints. */
export interface TimerStatus {
  /** Timers whose time has not come. */
  readonly waiting: number
  /** Timers and commands that are due, those that failed included. */
  readonly due: number
  /** How long ago the oldest of them was due, in milliseconds; null if none is. */
  readonly oldest_ms: number | null
  /** How many failed and are tried again. */
  readonly failing: number
}
/** What failed for one reason. */
export interface FailingTimers {
  readonly projection: string
  readonly aggregate: string
  readonly reason: string
  readonly count: number
  readonly since_ms: number
  /** One of them. */
  readonly timer_id: string
}

/** Counts timers. */
export const readTimers = (sql: Sql): Effect.Effect<TimerStatus, SqlError> =>
  query("count timers", async () => {
    const [row] = await sql<Array<TimerStatus>>`
      select count(*) filter (where due > now())::int8 as waiting, count(*) filter (where due <= now())::int8 as due,
        round(extract(epoch from now() - min(due) filter (where due <= now())) * 1000)::float8 as oldest_ms,
        count(failed)::int8 as failing from millrace.timer`
    return row!
  })
/** Commands that fail, by projection, aggregate and reason, at most 20. */
export const readFailingTimers = (sql: Sql): Effect.Effect<ReadonlyArray<FailingTimers>, SqlError> =>
  query(
    "read failing timers",
    () => sql<Array<FailingTimers>>`
      select projection, aggregate, left(failed, 500) as reason, count(*)::int8 as count, min(timer_id::text) as timer_id,
        round(extract(epoch from now() - min(failing_since)) * 1000)::float8 as since_ms
      from millrace.timer where failed is not null group by 1, 2, 3 order by 6 desc limit 20`
  )
