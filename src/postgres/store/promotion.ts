// The steps of a promotion: freeze the live build, let the follower drain to where it stands, and switch. Each step is one statement, so a process
// that dies leaves nothing to undo: a freeze ends by itself.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { query, type Session, type Sql, SqlError } from "../client/client.ts"

/** What is promoted. */
export interface Promotion {
  readonly projection: string
  /** The number of the build that is live. */
  readonly live: number
  /** The number of the follower that replaces it. */
  readonly follower: number
  /** A UUID. A call that is repeated with the same token has no further effect. */
  readonly token: string
}
/** A partition of the live build, and the position at which it was frozen: the first one that it has not processed. */
export interface FrozenPartition {
  readonly topic: string
  readonly partition: number
  readonly position: number
}
/** How far a partition of the live build and of a follower is. */
export interface FollowerPosition {
  readonly topic: string
  readonly partition: number
  /** The first position that the build has not processed; null if it has no such partition. */
  readonly live: number | null
  readonly follower: number | null
  /** How far the follower may go where the live build does not read the topic; null if it does. See `millrace.own_bound`. */
  readonly own: number | null
  /** The reason why the partition of the follower is halted; null if it is not. */
  readonly halted: string | null
}
/** The switch was refused: not everything is as it was frozen. Nothing was changed. */
export class FlipRefused extends Schema.TaggedError<FlipRefused>()("FlipRefused", {
  projection: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `projection ${this.projection}: ${this.reason}`
  }
}

/**
 * Freezes all partitions of the live build for `ms` milliseconds: until then it commits nothing, and waits. Undefined if nothing was frozen, because
 * another promotion has frozen it, or it is not the live build; then try again later. A freeze need not be undone: when its time is over, the
 * next commit of the live build ends it. With the token of an earlier call the freeze is extended.
 */
export const freeze = (
  sql: Sql | Session,
  { live, projection, token }: Omit<Promotion, "follower">,
  ms: number
): Effect.Effect<ReadonlyArray<FrozenPartition> | undefined, SqlError> =>
  query("freeze the live build", async () => {
    const frozen = await sql.unsafe<Array<FrozenPartition>>(
      `select topic, partition, next_position as position from millrace.promote_freeze($1, $2::int4, $3::uuid, $4::float8) order by 1, 2`,
      [projection, live, token, ms]
    )
    return frozen.length === 0 ? undefined : frozen
  })

/** Reads how far each partition of both builds is. Empty if the one is not the live build any more. */
export const readFollowerPositions = (
  sql: Sql | Session,
  { follower, live, projection }: Omit<Promotion, "token">
): Effect.Effect<ReadonlyArray<FollowerPosition>, SqlError> =>
  query("read the positions of builds", () =>
    sql.unsafe<Array<FollowerPosition>>(
      `select topic, partition, o.next_position as live, n.next_position as follower, n.halted,
        millrace.own_bound(n.projection, n.version, n.topic, n.partition) as own
      from (select * from millrace.progress where projection = $1 and version = $2::int4) o
      full join (select * from millrace.progress where projection = $1 and version = $3::int4) n using (topic, partition)
      where exists (select from millrace.live l where l.projection = $1 and l.version = $2::int4) order by 1, 2`,
      [projection, live, follower]
    )
  )

/** Whether both builds are at the same positions of the topics that both read. */
export const isEven = (positions: ReadonlyArray<FollowerPosition>): boolean => {
  const topicsOf = (build: "live" | "follower") =>
    new Set(positions.flatMap((one) => (one[build] === null ? [] : [one.topic])))
  const [followed, processed] = [topicsOf("follower"), topicsOf("live")]
  return positions.every(
    ({ follower, live, topic }) => !(followed.has(topic) && processed.has(topic)) || follower === live
  )
}

/** Ends a freeze of this token before its time. Returns how many partitions were frozen. */
export const thaw = (
  sql: Sql | Session,
  { live, projection, token }: Omit<Promotion, "follower">
): Effect.Effect<number, SqlError> =>
  query("thaw the live build", async () => {
    const [row] = await sql.unsafe<Array<{ readonly thawed: number }>>(
      `select millrace.promote_thaw($1, $2::int4, $3::uuid) as thawed`,
      [projection, live, token]
    )
    return row!.thawed
  })

/**
 * Makes the follower the live build, and the live build a follower, in one transaction: readers see the new one from then on, and it publishes
 * where the old one stopped. `before` if an earlier call with this token did it. Fails with `FlipRefused`, and changes nothing, if a partition is
 * not frozen by this token any more, or the follower is not at the same positions. After a lost reply (`SqlError.inDoubt`), call it again.
 */
export const flip = (
  sql: Sql | Session,
  { follower, live, projection, token }: Promotion
): Effect.Effect<"now" | "before", SqlError | FlipRefused> =>
  query("make the follower the live build", async () => {
    const [row] = await sql.unsafe<Array<{ readonly result: string }>>(
      `select millrace.promote_flip($1, $2::int4, $3::int4, $4::uuid) as result`,
      [projection, live, follower, token]
    )
    return row!.result === "done" ? ("now" as const) : ("before" as const)
  }).pipe(
    Effect.mapError((error) => (error.code === refused ? new FlipRefused({ projection, reason: error.reason }) : error))
  )
/** The SQLSTATE of `millrace.promote_flip`. */
const refused = "MR001"

/** Whether the promotion of a token was made. */
export const readPromotion = (sql: Sql, token: string): Effect.Effect<boolean, SqlError> =>
  query("look for the promotion", async () => {
    const [row] = await sql`select from millrace.promotion where token = ${token}::uuid`
    return row !== undefined
  })
/** Stores for how long the projection processed nothing in a promotion, in milliseconds. */
export const storePause = (sql: Sql, token: string, pauseMs: number) =>
  query(
    "store the pause of the promotion",
    () => sql`update millrace.promotion set pause_ms = ${pauseMs} where token = ${token}::uuid`
  )
