// How far subscriptions of topics in the database are behind, and whether a consumer is connected to them.
import type * as Effect from "effect/Effect"
import { query, type Sql, type SqlError } from "../client/client.ts"
import { subscriptionKey } from "./leases-sql.ts"

/** A subscription, as `status` prints it. */
export interface SubscriptionRow {
  readonly topic: string
  readonly subscription: string
  /** Messages that were not delivered yet. */
  readonly undelivered: number
  /** Messages that were delivered and are not acknowledged. */
  readonly unacknowledged: number
  /** Whether a consumer is connected. */
  readonly consumed: boolean
}
/** How many subscriptions are read at most. */
const most = 200

/** The subscriptions, ordered by topic and name. */
export const readSubscriptions = (sql: Sql): Effect.Effect<ReadonlyArray<SubscriptionRow>, SqlError> =>
  query(
    "read subscriptions",
    () => sql<Array<SubscriptionRow>>`
      select t.name as topic, s.name as subscription, sum(l.undelivered)::int8 as undelivered, sum(l.unacknowledged)::int8 as unacknowledged,
        exists (
          select from pg_locks k
          where k.locktype = 'advisory' and k.objsubid = 2 and k.granted and k.classid::bigint = ${subscriptionKey}::bigint
            and k.objid::bigint = s.subscription_id
            and k.database = (select oid from pg_database where datname = current_database())
        ) as consumed
      from millrace.subscription s
      join millrace.log_topic t using (topic_id)
      join millrace.subscription_lag l on (l.topic, l.subscription) = (t.name, s.name)
      group by t.name, s.name, s.subscription_id order by 1, 2 limit ${most}`
  )
