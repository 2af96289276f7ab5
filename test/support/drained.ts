// Reads in tests how far a follower is from where the live build stands.
import type * as Effect from "effect/Effect"
import { query, type Session, type Sql, type SqlError } from "../../src/postgres/client/client.ts"
import type { Promotion } from "../../src/postgres/store/promotion.ts"

/** How far a follower is from where the live build stands. */
export interface Drain {
  /** Whether every partition of both builds is at the same position. */
  readonly isDrained: boolean
  /** How many records it has to go. */
  readonly behind: number
  /** The reason why a partition of the follower is halted; null if none is. */
  readonly halted: string | null
}
/** Reads how far the follower is from the live build. With a frozen live build it says when the switch can be made. */
export const drained = (
  sql: Sql | Session,
  { follower, live, projection }: Omit<Promotion, "token">
): Effect.Effect<Drain, SqlError> =>
  query("read how far the follower is", async () => {
    const [row] = await sql.unsafe<Array<Drain>>(
      `select coalesce(bool_and((o.next_position = n.next_position) is true), false) as "isDrained",
        coalesce(sum(greatest(o.next_position - n.next_position, 0)), 0)::int8 as behind, min(n.halted) as halted
      from (select * from millrace.progress where projection = $1 and version = $2::int4) o
      full join (select * from millrace.progress where projection = $1 and version = $3::int4) n using (topic, partition)`,
      [projection, live, follower]
    )
    return row!
  })
