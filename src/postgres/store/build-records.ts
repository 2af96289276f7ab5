// What two builds of a projection noted beside their rows: late events and dead letters, as relations that can be compared.
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

/** The dead letters, open and decided ones, by event. One whose retry was asked for is parked until the retry was processed. */
export const deadLettersOf = (projection: string, builds: Builds): ComparedRelations => ({
  ...both(
    (
      build
    ) => `select ctid as _ctid, topic, partition, position, case status when 'retrying' then 'parked' else status end as status, error
      from millrace.dead_letters where projection = ${literal(projection)} and version = ${build}`,
    builds
  ),
  key: place,
  columns: [column("status", "text"), column("error", "text")]
})
