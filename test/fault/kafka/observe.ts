// What the harness sees of the application in PostgreSQL while it runs: how far it is, who commits, and whether one moment is whole.
import { setTimeout as sleep } from "node:timers/promises"
import type postgres from "postgres"
import type { Differences } from "./differences.ts"

type Sql = postgres.Sql
/** Where a partition stands. */
export interface Place {
  readonly partition: number
  readonly position: number
  readonly epoch: number
  readonly published: number
  /** How much of that Kafka has, as the relay noted; undefined before it noted anything. */
  readonly relayed: number | undefined
  readonly halted: string | null
  readonly relayHalted: string | null
}

const tries = 20
/** Asks again where a connection was lost, or none is had: the harness looks at a server that it kills. */
export const patiently = async <A>(ask: () => Promise<A>): Promise<A> => {
  for (let n = 1; ; n++) {
    try {
      return await ask()
    } catch (error) {
      if (n === tries) throw error
      await sleep(Math.min(100 * n, 1_000))
    }
  }
}

/** All partitions, at one moment. */
export const places = (sql: Sql): Promise<ReadonlyArray<Place>> =>
  patiently(
    async () =>
      await sql<Array<Place>>`
    select g.partition, g.next_position::float8 as position, g.epoch::float8 as epoch, g.outbox_seq::float8 as published,
      r.seq::float8 as relayed, g.halted, r.halted as "relayHalted"
    from millrace.progress g left join millrace.relay_position r on r.target = 'kafka'
      and (r.projection, r.source, r.partition) = (g.projection, g.topic, g.partition)
    where g.projection = 'signals' order by g.partition`
  )

/** How many claims there have been. */
export const claims = async (sql: Sql): Promise<number> =>
  (await places(sql)).reduce((sum, { epoch }) => sum + epoch, 0)

/** Whether every partition was handled up to its end. */
export const isHandled = async (
  sql: Sql,
  ends: ReadonlyArray<{ readonly partition: number; readonly end: number }>
) => {
  const found = new Map((await places(sql)).map(({ partition, position }) => [partition, position]))
  return ends.every(({ end, partition }) => (found.get(partition) ?? 0) >= end)
}
// one commit's text, or that of several together
const commitText = "%update millrace.progress%commit_no + 1%"
/** Ends the sessions in the middle of a commit; how many. */
export const endCommits = async (sql: Sql): Promise<number> => {
  const rows = await patiently(
    async () =>
      await sql<Array<{ ended: boolean }>>`
    select pg_terminate_backend(pid) as ended from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and state = 'active' and query like ${commitText}`
  )
  return rows.filter(({ ended }) => ended).length
}
/** Ends the sessions that hold relays' lanes, as a network does that forgets them; how many. */
export const endLanes = async (sql: Sql): Promise<number> => {
  const rows = await patiently(
    async () =>
      await sql`
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'millrace log session'`
  )
  return rows.length
}
/** Holds every partition's row over a connection of its own, so that commits wait; returns what lets go. */
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
  // a session that ends rolls back
  return () => held.end({ timeout: 1 })
}

/** Compares two looks at one run: nothing goes back, and at no moment is a commit torn. */
export class Watch {
  private before: ReadonlyArray<Place> = []

  /** Positions and sequences may go back from here on: another database was put in place. */
  forget(): void {
    this.before = []
  }
  async look(sql: Sql, differences: Differences): Promise<void> {
    const now = await places(sql)
    for (const [i, before] of this.before.entries()) {
      for (const what of ["position", "published", "epoch"] as const)
        if (now[i]![what] < before[what])
          differences.add("wrong", `${what} of partition ${i} went back from ${before[what]} to ${now[i]![what]}`)
    }
    this.before = now
    const [row] = await sql<Array<{ events: number; counted: number }>>`
      select (select sum(events)::float8 from millrace.progress) as events,
        (select coalesce(sum(events), 0)::float8 from entity_activity where window_size = '1m')
          + (select count(*) from millrace.late_events where window_size = '1m')::float8 as counted`
    const { counted, events } = row!
    if (counted < events) differences.add("lost", `${events} events are handled, and ${counted} counted`)
    if (counted > events) differences.add("doubled", `${events} events are handled, and ${counted} counted`)
  }
}
