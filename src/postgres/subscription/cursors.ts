// The statements over subscriptions on PostgreSQL and their cursors. A cursor is the next position of a partition to be claimed.
import type { StartPosition } from "../../subscription/fanout.ts"
import type { Sql } from "../client/client.ts"
import { arrayLiteral } from "../client/types.ts"

/** The SQL of the position in partition `h` where a subscription starts. */
const startOf = (sql: Sql, from: StartPosition) => {
  if (from === "earliest") return sql`h.start_position`
  if (from === "latest") return sql`h.next_position`
  if ("time" in from) {
    return sql`coalesce((
      select min(b.base_position) from millrace.log_batch b
      where (b.topic_id, b.partition) = (h.topic_id, h.partition) and b.records > 0
        and b.appended_at >= to_timestamp(${from.time}::float8 / 1000)
    ), h.next_position)`
  }
  return sql`coalesce((
    select least(greatest(p.position, h.start_position), h.next_position)
    from unnest(${arrayLiteral(from.places.map(({ partition }) => partition))}::integer[],
      ${arrayLiteral(from.places.map(({ position }) => position))}::bigint[]) as p (partition, position)
    where p.partition = h.partition
    order by p.position
    limit 1
  ), h.start_position)`
}
/** Finds a subscription of a topic, or creates it with its cursors. No row if another process creates it at the same moment. */
export const open = (sql: Sql, topicId: number, name: string, type: string, from: StartPosition) => sql<
  Array<{ readonly subscription_id: number; readonly type: string }>
>`
  with made as (
    insert into millrace.subscription (topic_id, name, type) values (${topicId}, ${name}, ${type})
    on conflict do nothing
    returning subscription_id, type
  ), cursor as (
    insert into millrace.subscription_cursor (subscription_id, partition, next_position)
    select m.subscription_id, h.partition, ${startOf(sql, from)}
    from made m, millrace.log_head h
    where h.topic_id = ${topicId}
  )
  select subscription_id, type from made
  union all
  select subscription_id, type from millrace.subscription where topic_id = ${topicId} and name = ${name}`

/** A subscription of a topic; no row if it does not exist. */
export const find = (sql: Sql, topicId: number, name: string) =>
  sql<
    Array<{ readonly subscription_id: number; readonly type: string }>
  >`select subscription_id, type from millrace.subscription where topic_id = ${topicId} and name = ${name}`

/** Moves all cursors and deletes all leases. The subscription must have no consumer meanwhile. */
export const seek = (sql: Sql, subscription: number, to: StartPosition) => sql`
  with moved as (
    update millrace.subscription_cursor c set next_position = ${startOf(sql, to)}, claims = c.claims + 1
    from millrace.subscription s
    join millrace.log_head h on h.topic_id = s.topic_id
    where s.subscription_id = ${subscription} and (c.subscription_id, c.partition) = (s.subscription_id, h.partition)
  )
  delete from millrace.subscription_lease where subscription_id = ${subscription}`

/** Changes the type of a subscription. */
export const setType = (sql: Sql, subscription: number, type: string) =>
  sql`update millrace.subscription set type = ${type} where subscription_id = ${subscription}`

/** The cursor of each partition. */
export const cursors = (sql: Sql, subscription: number) => sql<
  Array<{ readonly partition: number; readonly next: number }>
>`
  select partition, next_position::float8 as next from millrace.subscription_cursor
  where subscription_id = ${subscription} order by partition`

/** Moves a cursor to a position that retention has deleted everything before. */
export const skipTo = (sql: Sql, subscription: number, partition: number, position: number) => sql`
  update millrace.subscription_cursor set next_position = ${position}, claims = claims + 1
  where subscription_id = ${subscription} and partition = ${partition} and next_position < ${position}::bigint`

/** Deletes a subscription, with its cursors and leases. */
export const remove = (sql: Sql, topic: string, name: string) => sql`
  delete from millrace.subscription s using millrace.log_topic t
  where s.topic_id = t.topic_id and t.name = ${topic} and s.name = ${name}`
