// The statement that looks up what commands answered before.
import { arrayOf } from "../client/columns.ts"
import type { AppendRow } from "./append-sql.ts"

/** What a command answered before. `records` is 0 if it appended nothing; then `first_version` is the one after the version it was decided on. */
export interface LookedUp {
  /** The index of the command. */
  readonly i: number
  readonly first_version: number
  readonly records: number
  readonly position: number
  readonly digest: string | null
}
/** Its parameters are those of `columnsOf`. */
export const lookUpStatement = `
  with req as materialized (select * from unnest($1::int4[], $2::int4[], $3::text[], $4::uuid[]) with ordinality as r(topic_id, partition, stream, command_id, i))
  select r.i::int4 - 1 as i, b.first_version, b.records, b.base_position as position, b.command_digest as digest from req r cross join lateral (
    select first_version, records, base_position, command_digest from millrace.log_batch l
    where (l.topic_id, l.partition, l.command_id, l.entity) = (r.topic_id, r.partition, r.command_id, r.stream) and l.entity is not null limit 1) b
  union all
  select r.i::int4 - 1, c.version + 1, 0, -1, c.digest from req r cross join lateral (
    select version, digest from millrace.command m where (m.topic_id, m.stream, m.command_id) = (r.topic_id, r.stream, r.command_id)
      and m.answered_at > now() - interval '7 days' limit 1) c
  order by 1`
export const columnsOf = (
  rows: ReadonlyArray<Pick<AppendRow, "commandId" | "partition" | "stream" | "topicId">>
): Array<string> => [
  arrayOf(rows.map(({ topicId }) => topicId)),
  arrayOf(rows.map(({ partition }) => partition)),
  arrayOf(rows.map(({ stream }) => stream)),
  arrayOf(rows.map(({ commandId }) => commandId))
]
