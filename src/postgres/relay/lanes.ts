// Lanes of a relay on PostgreSQL: their grouping is rows, and who has which is advisory locks, which a process that dies lets go at once, and
// one that stands still loses.
import { randomInt } from "node:crypto"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { shareOf } from "../../log/group.ts"
import type { LaneClaims, LaneGrouping, RelayLanes } from "../../relay/outbox.ts"
import type { RelayError } from "../../relay/target.ts"
import type { Sql } from "../client/client.ts"
import { queryFor } from "./outbox-sql.ts"
import { make as makeSession, type ListeningSession } from "../client/session.ts"

// First keys of the advisory locks: two a target, beside those of groups of the log's readers.
const membersKey = (number: number) => 1_820_000_000 + 2 * number
const lanesKey = (number: number) => membersKey(number) + 1
/** A member says every second that it is there. After so long a silence its session is ended, in milliseconds. */
const silentMs = 10_000
const insufficientPrivilege = "42501"

/** Sets the number of lanes, or begins with one, and names the ids of all that there are. */
const regroup = async (sql: Sql, target: string, lanes: number | undefined, idOf: (lane: number) => string) => {
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

interface Member {
  readonly session: ListeningSession
  readonly number: number
  readonly id: number
}
interface Lock {
  readonly member: boolean
  readonly id: number
  readonly own: boolean
  /** Its session was not heard of for too long; null: whose it is, this role may not see. */
  readonly silent: boolean | null
}
const silence = `clock_timestamp() - interval '${silentMs} milliseconds'`
// one statement over one connection: it may be another one than before, and then it has no locks
const look = ({ number, session }: Member) =>
  session.sql.unsafe<Array<Lock>>(
    `select (l.classid::bigint = $1::bigint) as member, l.objid::bigint::int as id, l.pid = pg_backend_pid() as own,
    a.state_change < ${silence} as silent
  from pg_locks l left join pg_stat_activity a on a.pid = l.pid
  where l.locktype = 'advisory' and l.objsubid = 2 and l.granted and l.classid::bigint in ($1::bigint, $2::bigint)
    and l.database = (select oid from pg_database where datname = current_database())`,
    [membersKey(number), lanesKey(number)],
    { prepare: true }
  )
/**
 * Ends the sessions of members that stand still, so that others get their lanes. Such a process, once it goes on, is fenced by its target; if it
 * was only slow it joins again. Where this role may not end them they keep their lanes.
 */
const endSilent = async ({ number, session }: Member): Promise<void> => {
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

const claim = async (member: Member, lanes: number): Promise<LaneClaims> => {
  const { id, number, session } = member
  if (session.pid() === undefined) return nothing
  let locks = await look(member)
  if (locks.some(({ own, silent }) => !own && silent === true)) {
    await endSilent(member)
    locks = await look(member)
  }
  if (!locks.some((lock) => lock.member && lock.own)) {
    await session.sql`select pg_try_advisory_lock(${membersKey(number)}::int, ${id}::int)`
    locks = await look(member)
  }
  const members = locks.filter((lock) => lock.member).map((lock) => lock.id)
  const had = locks.filter((lock) => !lock.member && lock.own).map((lock) => lock.id)
  const gone = had.filter((lane) => lane >= lanes)
  for (const lane of gone) await session.sql`select pg_advisory_unlock(${lanesKey(number)}::int, ${lane}::int)`
  const held = had.filter((lane) => lane < lanes)
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

/** Joins those who share a target's lanes, over a connection of its own until the scope closes. */
export const lanesOf = Effect.fnUntraced(function* (
  sql: Sql,
  target: string,
  lanes: number | undefined,
  idOf: (lane: number) => string
): Effect.fn.Return<RelayLanes, RelayError, Scope.Scope> {
  const run = queryFor(target)
  const number = yield* run("publish", () => regroup(sql, target, lanes, idOf))
  const quiet = () => undefined
  const session = yield* makeSession(sql, "millrace_relay", { notified: quiet, ready: quiet, lost: quiet })
  yield* session.opened
  const member: Member = { session, number, id: randomInt(1, 2 ** 31 - 1) }
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
