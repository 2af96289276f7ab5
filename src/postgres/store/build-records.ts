// What two builds of a projection have beside their rows: late events and dead letters, as relations that can be compared, and published messages.
import type * as Effect from "effect/Effect"
import { query, type Session, type SqlError } from "../client/client.ts"
import type { ComparedColumn, ComparedRelations } from "./compare.ts"

type Builds = { readonly live: number; readonly candidate: number }

const types = { text: 25, integer: 23, bigint: 20, jsonb: 3802, "timestamp with time zone": 1184 } as const
const column = (name: string, type: keyof typeof types): ComparedColumn => ({
  name,
  type,
  oid: types[type],
  delimiter: undefined
})
const literal = (text: string) => `'${text.replaceAll("'", "''")}'`
const both = (of: (build: number) => string, { candidate, live }: Builds) => ({
  live: of(live),
  candidate: of(candidate)
})
const place = [column("topic", "text"), column("partition", "integer"), column("position", "bigint")]

/** The contributions that came too late, by event and window. `nth` numbers those of one event to one window. */
export const lateEventsOf = (projection: string, builds: Builds): ComparedRelations => ({
  ...both(
    (build) => `select ctid as _ctid, topic, partition, position, window_name as "window", window_size as size,
      coalesce(window_start, '-infinity') as start, (row_number() over (partition by topic, partition, position, window_name,
        window_size, window_start order by number))::int4 as nth, key, contribution
      from millrace.late_events where projection = ${literal(projection)} and version = ${build}`,
    builds
  ),
  key: [
    ...place,
    column("window", "text"),
    column("size", "text"),
    column("start", "timestamp with time zone"),
    column("nth", "integer")
  ],
  columns: [column("key", "jsonb"), column("contribution", "jsonb")]
})

/** Whether the dead letter `d` is of a source of its build, and not of a lookup topic: these have no position. */
const ofSource = `exists (select from millrace.progress g where (g.projection, g.version, g.topic) = (d.projection, d.version, d.topic))`

/**
 * The dead letters of sources, open and decided ones, by event. One whose retry was asked for is parked until the retry was processed. Those of lookup
 * topics are no results of the replay: a build that is created later does not have those of records that were compacted away.
 */
export const deadLettersOf = (projection: string, builds: Builds): ComparedRelations => ({
  ...both(
    (
      build
    ) => `select ctid as _ctid, topic, partition, position, case status when 'retrying' then 'parked' else status end as status, error
      from millrace.dead_letters d where projection = ${literal(projection)} and version = ${build} and ${ofSource}`,
    builds
  ),
  key: place,
  columns: [column("status", "text"), column("error", "text")]
})

/** How many dead letters of lookup topics two builds have. */
export const countLookupDeadLetters = (
  tx: Session,
  projection: string,
  { candidate, live }: Builds
): Effect.Effect<{ readonly live: number; readonly candidate: number }, SqlError> =>
  query("count dead letters of lookup topics", async () => {
    const [counts] = await tx.unsafe<Array<{ readonly live: number; readonly candidate: number }>>(
      `select count(*) filter (where version = $2::int4) as live, count(*) filter (where version = $3::int4) as candidate
      from millrace.dead_letters d where projection = $1 and version in ($2::int4, $3::int4) and not ${ofSource}`,
      [projection, live, candidate]
    )
    return counts!
  })

/** How many messages the handlers of two builds have published to a topic, or would have, the one that follows. */
export interface PublishedMessages {
  readonly topic: string
  readonly live: number
  readonly candidate: number
}
/**
 * The messages of handlers by topic; undefined if they cannot be compared, because a build began before messages were counted, or began at
 * another position. Messages of windows are not among them: how often a row is published depends on the borders of batches.
 */
export const readPublished = (
  tx: Session,
  projection: string,
  { candidate, live }: Builds
): Effect.Effect<ReadonlyArray<PublishedMessages> | undefined, SqlError> =>
  query("count published messages", async () => {
    const at = [projection, live, candidate]
    const [known] = await tx.unsafe<Array<{ readonly isKnown: boolean }>>(
      `select coalesce(bool_and((a.published is not null and b.published is not null and a.first_position = b.first_position) is true), false) as "isKnown"
      from (select * from millrace.progress where projection = $1 and version = $2::int4) a
      full join (select * from millrace.progress where projection = $1 and version = $3::int4) b using (topic, partition)`,
      at
    )
    if (!known!.isKnown) return undefined
    return tx.unsafe<Array<PublishedMessages>>(
      `select m.key as topic, coalesce(sum(m.value::int8) filter (where g.version = $2::int4), 0)::int8 as live,
        coalesce(sum(m.value::int8) filter (where g.version = $3::int4), 0)::int8 as candidate
      from millrace.progress g, jsonb_each_text(g.published) m
      where g.projection = $1 and g.version in ($2::int4, $3::int4) group by 1 order by 1`,
      at
    )
  })
