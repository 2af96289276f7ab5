// What the harness reads in PostgreSQL while the application runs: positions, commits under way, and whether a snapshot is consistent.
import type postgres from "postgres"
import type { Differences } from "../harness/differences.ts"
import { patiently } from "../harness/postgres.ts"

type Sql = postgres.Sql
/** How far a partition of the projection is. */
export interface PartitionState {
  readonly partition: number
  readonly position: number
  readonly epoch: number
  readonly published: number
  /** How much of that is relayed, as the relay has stored; undefined if it has not stored anything yet. */
  readonly relayed: number | undefined
  readonly halted: string | null
  readonly relayHalted: string | null
}

/** The state of all partitions in one snapshot. */
export const partitionStates = (sql: Sql): Promise<ReadonlyArray<PartitionState>> =>
  patiently(
    async () =>
      await sql<Array<PartitionState>>`
    select g.partition, g.next_position::float8 as position, g.epoch::float8 as epoch, g.outbox_seq::float8 as published,
      r.seq::float8 as relayed, g.halted, r.halted as "relayHalted"
    from millrace.progress g left join millrace.relay_position r on r.target = 'kafka'
      and (r.projection, r.source, r.partition) = (g.projection, g.topic, g.partition)
    where g.projection = 'signals' order by g.partition`
  )

/** How often partitions have been claimed so far. */
export const claims = async (sql: Sql): Promise<number> =>
  (await partitionStates(sql)).reduce((sum, { epoch }) => sum + epoch, 0)

/** Whether every partition is processed up to its end. */
export const isHandled = async (
  sql: Sql,
  ends: ReadonlyArray<{ readonly partition: number; readonly end: number }>
) => {
  const found = new Map((await partitionStates(sql)).map(({ partition, position }) => [partition, position]))
  return ends.every(({ end, partition }) => (found.get(partition) ?? 0) >= end)
}
// matches the statement of one commit, and that of several together
const commitText = "%update millrace.progress%commit_no + 1%"
/** Ends the sessions that are executing a commit, and returns how many. */
export const endCommits = async (sql: Sql): Promise<number> => {
  const rows = await patiently(
    async () =>
      await sql<Array<{ ended: boolean }>>`
    select pg_terminate_backend(pid) as ended from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and state = 'active' and query like ${commitText}`
  )
  return rows.filter(({ ended }) => ended).length
}
/** Ends the sessions that hold relays' lanes, as a network does that drops idle connections, and returns how many. */
export const endLanes = async (sql: Sql): Promise<number> => {
  const rows = await patiently(
    async () =>
      await sql`
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'millrace log session'`
  )
  return rows.length
}
/** Locks the row of every partition, so that commits wait. Returns how to release them. */
export const holdCommits = (connect: () => Sql): Promise<() => Promise<void>> => patiently(() => hold(connect))
const hold = async (connect: () => Sql) => {
  const held = connect()
  const text = "begin; select from millrace.progress where projection = 'signals' order by topic, partition for update"
  try {
    await held.unsafe(text)
  } catch (error) {
    await held.end({ timeout: 1 })
    throw error
  }
  // ending the session rolls back
  return () => held.end({ timeout: 1 })
}

/** Compares snapshots of one run: no position goes back, and no snapshot contains a part of a commit. */
export class Watch {
  private before: ReadonlyArray<PartitionState> = []

  /** Lets positions and sequences go back once, because another database was put in place. */
  forget(): void {
    this.before = []
  }
  async look(sql: Sql, differences: Differences): Promise<void> {
    const now = await partitionStates(sql)
    for (const [i, before] of this.before.entries()) {
      for (const what of ["position", "published", "epoch"] as const)
        if (now[i]![what] < before[what])
          differences.add("wrong", `${what} of partition ${i} went back from ${before[what]} to ${now[i]![what]}`)
    }
    this.before = now
    const [row] = await sql<Array<{ events: number; counted: number }>>`
      select (select sum(events)::float8 from millrace.progress where projection = 'signals') as events,
        (select coalesce(sum(events), 0)::float8 from entity_activity where window_size = '1m')
          + (select count(*) from millrace.late_events where window_size = '1m')::float8 as counted`
    const { counted, events } = row!
    if (counted < events) differences.add("lost", `${events} events are processed, but ${counted} counted`)
    if (counted > events) differences.add("doubled", `${events} events are processed, but ${counted} counted`)
  }
}
