// The queries of the status, and of the counts that commands print. They change nothing.
import type * as Effect from "effect/Effect"
import { query, type Sql, type SqlError } from "../client/client.ts"

/** A projection's partition as the database has it. Names of fields are those that `status` prints. */
export interface PartitionRow {
  readonly name: string
  /** The number of the build. */
  readonly version: number
  /** The version that the code declares. */
  readonly declared: number
  readonly topic: string
  readonly partition: number
  /** Of the record that is processed next. */
  readonly position: number
  readonly epoch: number
  /** Messages that its stream has published, without time marks. */
  readonly published: number
  /** Milliseconds since 1970; null before the first event. */
  readonly stream_time: number | null
  readonly mode: string
  /** Whether the configuration no longer has this version of the projection. */
  readonly removed: boolean
  /** Why the partition is halted, as its runner recorded it; null if it is not. */
  readonly halted: string | null
  /** Why it is tried again, for how many milliseconds it has been; null if it is not. */
  readonly waiting: string | null
  readonly waiting_ms: number | null
  /** The process that made the last claim; null if none did, or a process of an earlier release. */
  readonly claimed_by: string | null
  /** How long ago the last commit was, in milliseconds of the server's clock; null if there was none. */
  readonly committed_ms: number | null
}
/** Dead letters that are open: neither retried nor discarded. */
export interface OpenDeadLetters {
  /** Events of projections, without those of builds that follow another one. */
  readonly events: number
  /** Events of the builds that follow. */
  readonly followed: number
  /** Messages that relay targets refused. */
  readonly messages: number
}

/** Where investigation builds stop in their partitions, by `stopKey`; builds that follow the live one without an end are not there. */
export const readStops = (sql: Sql): Effect.Effect<ReadonlyMap<string, number>, SqlError> =>
  query("read where builds stop", async () => {
    const rows = await sql<
      Array<Pick<PartitionRow, "name" | "version" | "topic" | "partition"> & { readonly stop: number }>
    >`select g.projection as name, g.version, g.topic, g.partition, millrace.until_bound(g.projection, g.version, g.topic, g.partition) as stop
      from millrace.progress g where exists (select from millrace.rebuild_until u where (u.projection, u.version) = (g.projection, g.version))`
    return new Map(rows.map((row) => [stopKey(row), row.stop]))
  })
/** Names a partition of a build. */
export const stopKey = ({
  name,
  partition,
  topic,
  version
}: Pick<PartitionRow, "name" | "version" | "topic" | "partition">): string =>
  `${name}_v${version} ${topic}/${partition}`

/** Every partition of every projection that is not retired. */
export const readPartitions = (sql: Sql): Effect.Effect<ReadonlyArray<PartitionRow>, SqlError> =>
  query(
    "read positions",
    () => sql<Array<PartitionRow>>`
      select g.projection as name, g.version, p.declared, g.topic, g.partition, g.next_position as position, g.epoch, g.outbox_seq - g.marks as published, g.stream_time, g.mode, p.removed_at is not null as removed, g.halted,
        g.waiting, round(extract(epoch from clock_timestamp() - g.waiting_since) * 1000)::float8 as waiting_ms,
        g.claimed_by, round(extract(epoch from clock_timestamp() - g.committed_at) * 1000)::float8 as committed_ms
      from millrace.progress g join millrace.projection p on (p.name, p.version) = (g.projection, g.version)
      where p.retired_at is null order by 1, 2, 4, 5`
  )

/** How far a partition that publishes has announced its stream time to the topics that other projections read. */
export interface AnnouncementRow extends Pick<PartitionRow, "name" | "declared" | "topic" | "partition"> {
  /** Milliseconds since 1970. */
  readonly stream_time: number
  /** The stream time that all partitions of a topic know, by topic. */
  readonly announced: Readonly<Record<string, { readonly time: number | null }>> | null
}
/** Every partition that publishes and has a stream time. */
export const readAnnouncements = (sql: Sql): Effect.Effect<ReadonlyArray<AnnouncementRow>, SqlError> =>
  query(
    "read announced times",
    () => sql<Array<AnnouncementRow>>`
      select g.projection as name, p.declared, g.topic, g.partition, g.stream_time, g.announced
      from millrace.progress g join millrace.projection p on (p.name, p.version) = (g.projection, g.version)
      where g.mode <> 'follower' and p.retired_at is null and g.stream_time is not null order by 1, 2, 3, 4`
  )

/** The server's clock, epoch milliseconds. */
export const readClock = (sql: Sql): Effect.Effect<number, SqlError> =>
  query("read the database's clock", async () => {
    const [row] = await sql<Array<{ readonly now: number }>>`
      select (extract(epoch from clock_timestamp()) * 1000)::float8 as now`
    return row!.now
  })

/** How many dead letters there are, by what they belong to and by their status. */
export interface DeadLetterCount {
  /** A projection, `<name>_v<version>`, or a relay target. */
  readonly of: string
  readonly status: string
  readonly count: number
}
/** Counts dead letters of projections that are parked, skipped or being retried. */
export const countByProjection = (sql: Sql): Effect.Effect<ReadonlyArray<DeadLetterCount>, SqlError> =>
  query(
    "count dead letters by projection",
    () => sql<Array<DeadLetterCount>>`
      select projection || '_v' || version as of, status, count(*) as count from millrace.dead_letters
      where status in ('parked', 'skipped', 'retrying') group by 1, 2 order by 1, 2`
  )
/** Counts messages that relays parked and that are open. */
export const countByTarget = (sql: Sql): Effect.Effect<ReadonlyArray<DeadLetterCount>, SqlError> =>
  query(
    "count dead letters by relay",
    () => sql<Array<DeadLetterCount>>`
      select target as of, status, count(*) as count from millrace.relay_parked
      where status in ('parked', 'retrying') group by 1, 2 order by 1, 2`
  )

/** Counts open dead letters. */
export const countDeadLetters = (sql: Sql): Effect.Effect<OpenDeadLetters, SqlError> =>
  query("count dead letters", async () => {
    const [row] = await sql<Array<OpenDeadLetters>>`
      select count(*) filter (where not follows)::int8 as events, count(*) filter (where follows)::int8 as followed,
        (select count(*) from millrace.relay_parked where status in ('parked', 'retrying')) as messages
      from (
        select exists (select from millrace.live l where l.projection = d.projection and l.version <> d.version) as follows
        from millrace.dead_letters d where status in ('parked', 'retrying')
      ) d`
    return row!
  })

/** What the live builds of all projections have counted since they began. */
export interface EventCounts {
  readonly duplicates: number
  /** Contributions that came too late for a window. */
  readonly late: number
  /** Events that were parked, whatever was decided about them. */
  readonly deadLetters: number
  /** Those of them that wait for a decision. */
  readonly openDeadLetters: number
}
/** Counts duplicates, late contributions and dead letters of live builds. */
export const countEvents = (sql: Sql): Effect.Effect<EventCounts, SqlError> =>
  query("count events", async () => {
    const [row] = await sql<Array<EventCounts>>`
      with other as (
        select b.name, b.version from millrace.projection b
        where b.retired_at is not null or exists (select from millrace.live l where l.projection = b.name and l.version <> b.version)
      ), letters as (
        select status from millrace.dead_letters d where (d.projection, d.version) not in (select name, version from other)
      )
      select (
          select coalesce(sum(duplicates), 0)::int8 from millrace.progress g where (g.projection, g.version) not in (select name, version from other)
        ) as duplicates,
        (select count(*) from millrace.late_events e where (e.projection, e.version) not in (select name, version from other)) as late,
        (select count(*) from letters) as "deadLetters",
        (select count(*) from letters where status in ('parked', 'retrying')) as "openDeadLetters"`
    return row!
  })
/** Counts the rows of a read model. */
export const countRows = (sql: Sql, readModel: string): Effect.Effect<number, SqlError> =>
  query("count rows", async () => {
    const [row] = await sql<Array<{ readonly rows: number }>>`select count(*) as rows from ${sql(readModel)}`
    return row!.rows
  })
