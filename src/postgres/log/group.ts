// Groups of the log on PostgreSQL. Members and their partitions are advisory locks, which the server releases when a process dies.
import { randomInt } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type { GroupLocks, GroupView } from "../../log/group.ts"
import type { LogError } from "../../log/log.ts"
import { logQuery } from "./errors.ts"
import type { ListeningSession } from "../client/session.ts"

// First keys of the advisory locks, two for each group, far from numbers that applications would choose.
const membersKey = (group: number) => 1_830_000_000 + 2 * group
const partitionsKey = (group: number) => membersKey(group) + 1
/** First key of the lock that a topic's cleaner holds; the second is the topic's number. */
export const cleanerKey = 1_829_999_999

const lookQuery = `
select (l.classid::bigint = $1::bigint) as member, l.objid::bigint::int as id, pg_backend_pid() as pid
from pg_locks l
where l.locktype = 'advisory' and l.objsubid = 2 and l.granted and l.classid::bigint in ($1::bigint, $2::bigint)
  and l.database = (select oid from pg_database where datname = current_database())`

/** What all group members of this process share. */
export interface ProcessGroups {
  readonly session: ListeningSession
  /** `<group>:<partition>` of the held locks. A session would get a lock that it holds once more, for another member of this process. */
  readonly held: Set<string>
  /** By group: latches that open when something may have changed. */
  readonly changes: Map<number, Set<Latch.Latch>>
}

/** Has the group's members look again, in this process and in others, which also look by themselves if the notification is lost. */
const notifyGroup = ({ changes, session }: ProcessGroups, group: number) => {
  for (const latch of changes.get(group) ?? []) latch.openUnsafe()
  if (session.pid() !== undefined) session.sql`select pg_notify('millrace_log', ${`g;${group}`})`.catch(() => undefined)
}

interface Member {
  readonly groups: ProcessGroups
  readonly topic: string
  readonly group: number
  readonly id: number
  readonly latch: Latch.Latch
  /** The id of the server process that holds this member's locks. */
  joined: number | undefined
}

/** Undefined after a retryable failure: the session was lost, and reconnects. */
const undefinedIfLost = <A>(effect: Effect.Effect<A, LogError>): Effect.Effect<A | undefined, LogError> =>
  effect.pipe(
    Effect.catchTag("LogError", (error) => (error.retryable ? Effect.succeed(undefined) : Effect.fail(error)))
  )

const join = async (member: Member, pid: number) => {
  const { group, groups, id } = member
  const [row] = await groups.session.sql`
    select pg_try_advisory_lock(${membersKey(group)}::int, ${id}::int) as got, pg_backend_pid() as pid`
  if (row?.["pid"] !== pid) return
  member.joined = pid
  notifyGroup(groups, group)
}
const look = async (member: Member): Promise<GroupView | undefined> => {
  const { group, latch } = member
  const { session } = member.groups
  latch.closeUnsafe()
  const pid = session.pid()
  if (member.joined !== undefined && member.joined !== pid) {
    // partitions that were taken through the previous session are given up first, then this looks again
    member.joined = undefined
    if (pid !== undefined) latch.openUnsafe()
    return undefined
  }
  if (pid === undefined) return undefined
  if (member.joined === undefined) await join(member, pid)
  const rows = await session.sql.unsafe<Array<{ member: boolean; id: number; pid: number }>>(
    lookQuery,
    [membersKey(group), partitionsKey(group)],
    { prepare: true }
  )
  if (rows.length === 0 || rows[0]!.pid !== pid || session.pid() !== pid) return undefined
  const ids = (members: boolean) => rows.filter((row) => row.member === members).map((row) => row.id)
  return { members: ids(true), taken: new Set(ids(false)) }
}
const take = async ({ group, groups, joined }: Member, partition: number): Promise<number | undefined> => {
  const { held, session } = groups
  const key = `${group}:${partition}`
  if (joined === undefined || session.pid() !== joined || held.has(key)) return undefined
  held.add(key)
  try {
    const [row] = await session.sql`
      select case when pg_try_advisory_lock(${partitionsKey(group)}::int, ${partition}::int)
        then nextval('millrace.log_generation')::float8 end as generation, pg_backend_pid() as pid`
    if (row?.["pid"] === joined && session.pid() === joined && row["generation"] !== null)
      return Number(row["generation"])
  } catch (cause) {
    held.delete(key)
    throw cause
  }
  held.delete(key)
  return undefined
}
const unlock = ({ groups: { session }, joined }: Member, first: number, second: number) =>
  Effect.promise(async () => {
    if (joined === undefined || session.pid() !== joined) return
    await session.sql`select pg_advisory_unlock(${first}::int, ${second}::int)`.catch(() => undefined)
  }).pipe(Effect.timeoutOption("2 seconds"))

/** Creates a member of a group. It also looks every `everyMs` milliseconds, because a killed process sends no notification. */
export const locksOf = (
  groups: ProcessGroups,
  topic: string,
  group: number,
  partitions: number,
  everyMs: number
): GroupLocks<LogError> => {
  const latch = Latch.makeUnsafe(false)
  const member: Member = { groups, topic, group, id: randomInt(1, 2 ** 31 - 1), latch, joined: undefined }
  const latches = groups.changes.get(group) ?? new Set()
  groups.changes.set(group, latches.add(latch))
  return {
    member: member.id,
    partitions,
    look: undefinedIfLost(logQuery("assign", topic, () => look(member))),
    take: (partition) => undefinedIfLost(logQuery("assign", topic, () => take(member, partition))),
    free: Effect.fnUntraced(function* (partition: number) {
      yield* unlock(member, partitionsKey(group), partition)
      groups.held.delete(`${group}:${partition}`)
      notifyGroup(groups, group)
    }),
    leave: Effect.gen(function* () {
      latches.delete(latch)
      yield* unlock(member, membersKey(group), member.id)
      notifyGroup(groups, group)
    }),
    changed: Effect.raceFirst(latch.await, Effect.sleep(everyMs))
  }
}
