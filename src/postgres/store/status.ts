// The queries of the status, and of the counts that commands print. They change nothing.
import type * as Effect from "effect/Effect"
import { query, type Sql, type SqlError } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"

/** A projection's partition as the database has it. Names of fields are those that `status` prints. */
export interface PartitionRow {
  readonly name: string
  readonly version: number
  readonly topic: string
  readonly partition: number
  /** Of the record that is processed next. */
  readonly position: number
  readonly epoch: number
  /** Milliseconds since 1970; null before the first event. */
  readonly stream_time: number | null
  readonly mode: string
  /** Why the partition is halted, as its runner recorded it; null if it is not. */
  readonly halted: string | null
  /** Whether nothing was committed for as long as was asked. */
  readonly quiet: boolean
}
/** How many messages a relay target lacks, and why any of its streams are halted. */
export interface RelayRow {
  readonly target: string
  readonly lag: number
  readonly halted: string | null
}
/** Dead letters that are open: neither retried nor discarded. */
export interface OpenDeadLetters {
  /** Events of projections. */
  readonly events: number
  /** Messages that relay targets refused. */
  readonly messages: number
}

/** Every partition of every projection. `quietMs`: a partition without a commit for that long, in milliseconds, is quiet. */
export const readPartitions = (sql: Sql, quietMs: number): Effect.Effect<ReadonlyArray<PartitionRow>, SqlError> =>
  query(
    "read positions",
    () => sql<Array<PartitionRow>>`
      select g.projection as name, g.version, g.topic, g.partition, g.next_position as position, g.epoch, g.stream_time, g.mode, g.halted,
        coalesce(g.committed_at, 'epoch') < now() - ${quietMs}::float8 * interval '1 millisecond' as quiet
      from millrace.progress g order by 1, 2, 3, 4`
  )

/** Every target, ordered by name. A target without positions lacks all messages. */
export const readRelays = (
  sql: Sql,
  targets: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<RelayRow>, SqlError> =>
  query(
    "read relays",
    () => sql<Array<RelayRow>>`
      select target, coalesce(sum(greatest(lag, 0)), 0)::int8 as lag, string_agg(distinct halted, '; ') as halted from (
        select t.target, (select max(o.outbox_seq) from millrace.progress o where o.projection = s.projection
            and o.topic = s.topic and o.partition = s.partition) - coalesce(r.seq, 0) as lag, r.halted
        from unnest(${arrayOf(targets)}::text[]) as t(target)
        cross join (select distinct projection, topic, partition from millrace.progress) s
        left join millrace.relay_position r on r.target = t.target and r.projection = s.projection and r.source = s.topic
          and r.partition = s.partition
      ) streams group by target order by target`
  )

/** Counts open dead letters. */
export const countDeadLetters = (sql: Sql): Effect.Effect<OpenDeadLetters, SqlError> =>
  query("count dead letters", async () => {
    const [row] = await sql<Array<OpenDeadLetters>>`
      select (select count(*) from millrace.dead_letters where status in ('parked', 'retrying')) as events,
        (select count(*) from millrace.relay_parked where status in ('parked', 'retrying')) as messages`
    return row!
  })

/** What all projections have counted since the database was created. */
export interface EventCounts {
  readonly duplicates: number
  /** Contributions that came too late for a window. */
  readonly late: number
  /** Events that were parked, whatever was decided about them. */
  readonly deadLetters: number
}
/** Counts duplicates, late contributions and dead letters of projections. */
export const countEvents = (sql: Sql): Effect.Effect<EventCounts, SqlError> =>
  query("count events", async () => {
    const [row] = await sql<Array<EventCounts>>`
      select (select coalesce(sum(duplicates), 0)::int8 from millrace.progress) as duplicates,
        (select count(*) from millrace.late_events) as late,
        (select count(*) from millrace.dead_letters) as "deadLetters"`
    return row!
  })
/** Counts the rows of a read model. */
export const countRows = (sql: Sql, readModel: string): Effect.Effect<number, SqlError> =>
  query("count rows", async () => {
    const [row] = await sql<Array<{ readonly rows: number }>>`select count(*) as rows from ${sql(readModel)}`
    return row!.rows
  })
