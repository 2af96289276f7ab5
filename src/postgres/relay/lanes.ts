// Lanes of relays on PostgreSQL. Their grouping is stored in rows. The lanes that a process holds are advisory locks, which the server
// releases when the process dies, and which it loses when it hangs.
import { randomInt } from "node:crypto"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { shareOf } from "../../log/group.ts"
import type { LaneClaims, LaneGrouping, RelayLanes } from "../../relay/outbox.ts"
import type { RelayError } from "../../relay/target.ts"
import type { Sql } from "../client/client.ts"
import { queryFor } from "./outbox-sql.ts"
import { make as makeSession, type ListeningSession } from "../client/session.ts"

// First keys of the advisory locks, two for each target; groups of the log have others.
const membersKey = (number: number) => 1_820_000_000 + 2 * number
const lanesKey = (number: number) => membersKey(number) + 1
/** A process uses its session every second. After so many milliseconds without that, another process ends the session. */
const silentMs = 10_000
const insufficientPrivilege = "42501"

/** Sets the number of lanes, if given (at first 1), and stores the producer ids of all lanes. Returns the number of the target. */
const storeGrouping = async (sql: Sql, target: string, lanes: number | undefined, idOf: (lane: number) => string) => {
  await sql`
    insert into millrace.relay_grouping as g (target, lanes) values (${target}, ${lanes ?? 1})
    on conflict (target) do update set lanes = excluded.lanes, generation = g.generation + 1, fenced = false
      where ${lanes !== undefined} and g.lanes <> excluded.lanes`
  const [row] = await sql<Array<{ readonly lanes: number; readonly number: number }>>`
    select lanes, number from millrace.relay_grouping where target = ${target}`
  for (let lane = 0; lane < row!.lanes; lane++)
    await sql`insert into millrace.relay_lane values (${target}, ${lane}, ${idOf(lane)}) on conflict do nothing`
  return row!.number
}
const groupingOf = async (sql: Sql, target: string): Promise<LaneGrouping> => {
  const [row] = await sql<Array<Omit<LaneGrouping, "ids"> & { readonly ids: string }>>`
    select g.lanes, g.generation, g.fenced, (
      select json_agg(l.producer_id order by l.lane)::text from millrace.relay_lane l where l.target = g.target
    ) as ids from millrace.relay_grouping g where g.target = ${target}`
  return { ...row!, ids: JSON.parse(row!.ids) as ReadonlyArray<string> }
}

/** This process as one of those that share a target's lanes. */
interface LaneMember {
  readonly session: ListeningSession
  readonly number: number
  readonly id: number
}
/** An advisory lock of a member or of a lane. */
interface LaneLock {
  /** Whether it is a member's. */
  readonly member: boolean
  /** The member, or the number of the lane. */
  readonly id: number
  readonly own: boolean
  /** Whether its session was unused for too long; null if this role may not see that. */
  readonly silent: boolean | null
}
const silence = `clock_timestamp() - interval '${silentMs} milliseconds'`
// One statement, and so one connection: after a reconnect it is another one, which holds no locks.
const readLocks = ({ number, session }: LaneMember) =>
  session.sql.unsafe<Array<LaneLock>>(
    `select (l.classid::bigint = $1::bigint) as member, l.objid::bigint::int as id, l.pid = pg_backend_pid() as own,
    a.state_change < ${silence} as silent
  from pg_locks l left join pg_stat_activity a on a.pid = l.pid
  where l.locktype = 'advisory' and l.objsubid = 2 and l.granted and l.classid::bigint in ($1::bigint, $2::bigint)
    and l.database = (select oid from pg_database where datname = current_database())`,
    [membersKey(number), lanesKey(number)],
    { prepare: true }
  )
/**
 * Ends the sessions of processes that hang, so that others get their lanes. When such a process continues, its target fences it, and it
 * joins again. If this role may not end sessions, hanging processes keep their lanes.
 */
const endSilent = async ({ number, session }: LaneMember): Promise<void> => {
  try {
    await session.sql.unsafe(
      `select pg_terminate_backend(a.pid) from pg_stat_activity a
  where a.pid <> pg_backend_pid() and a.state_change < ${silence} and exists (
    select from pg_locks l
    where l.pid = a.pid and l.locktype = 'advisory' and l.objsubid = 2 and l.granted
      and l.classid::bigint in ($1::bigint, $2::bigint)
      and l.database = (select oid from pg_database where datname = current_database()))`,
      [membersKey(number), lanesKey(number)]
    )
  } catch (error) {
    if ((error as { readonly code?: string }).code !== insufficientPrivilege) throw error
  }
}
const nothing: LaneClaims = { held: [], surplus: 0 }

const claim = async (member: LaneMember, lanes: number): Promise<LaneClaims> => {
  const { id, number, session } = member
  if (session.pid() === undefined) return nothing
  let locks = await readLocks(member)
  if (locks.some(({ own, silent }) => !own && silent === true)) {
    await endSilent(member)
    locks = await readLocks(member)
  }
  if (!locks.some((lock) => lock.member && lock.own)) {
    await session.sql`select pg_try_advisory_lock(${membersKey(number)}::int, ${id}::int)`
    locks = await readLocks(member)
  }
  const members = locks.filter((lock) => lock.member).map((lock) => lock.id)
  const current = locks.filter((lock) => !lock.member && lock.own).map((lock) => lock.id)
  const gone = current.filter((lane) => lane >= lanes)
  for (const lane of gone) await session.sql`select pg_advisory_unlock(${lanesKey(number)}::int, ${lane}::int)`
  const held = current.filter((lane) => lane < lanes)
  const share = shareOf(id, members, lanes)
  const taken = new Set(locks.filter((lock) => !lock.member).map((lock) => lock.id))
  for (let lane = 0; lane < lanes && held.length < share; lane++) {
    if (taken.has(lane)) continue
    const [row] = await session.sql<Array<{ readonly got: boolean }>>`
      select pg_try_advisory_lock(${lanesKey(number)}::int, ${lane}::int) as got`
    if (row!.got) held.push(lane)
  }
  return { held: held.toSorted((a, b) => a - b), surplus: Math.max(0, held.length - share) }
}

/** Joins the processes that share a target's lanes, over a connection of its own, until the scope closes. */
export const lanesOf = Effect.fnUntraced(function* (
  sql: Sql,
  target: string,
  lanes: number | undefined,
  idOf: (lane: number) => string
): Effect.fn.Return<RelayLanes, RelayError, Scope.Scope> {
  const run = queryFor(target)
  const number = yield* run("publish", () => storeGrouping(sql, target, lanes, idOf))
  const quiet = () => undefined
  const session = yield* makeSession(sql, "millrace_relay", { notified: quiet, ready: quiet, lost: quiet })
  yield* session.opened
  const member: LaneMember = { session, number, id: randomInt(1, 2 ** 31 - 1) }
  return {
    grouping: run("publish", () => groupingOf(sql, target)),
    fenced: (generation) =>
      Effect.asVoid(
        run(
          "publish",
          () => sql`
          update millrace.relay_grouping set fenced = true where target = ${target} and generation = ${generation}`
        )
      ),
    claim: (count) => run("publish", () => claim(member, count)),
    release: (lane) =>
      Effect.asVoid(
        run("publish", () => session.sql`select pg_advisory_unlock(${lanesKey(number)}::int, ${lane}::int)`)
      )
  }
})
