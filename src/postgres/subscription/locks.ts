// Who consumes a subscription: advisory locks of the process's session, let go at once when it dies. It knows nothing of messages.
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import { query, type SqlError } from "../client/errors.ts"
import { consumerKey, subscriptionKey } from "./leases-sql.ts"
import type { ListeningSession } from "../client/session.ts"

/** A consumer's locks: that it lives, and its part in the subscription, alone or shared. */
export interface Member {
  readonly consumer: number
  readonly subscription: number
  readonly alone: boolean
  /** The server process that has the locks. */
  joined: number | undefined
  /** Whether it has a place among this process's consumers. */
  reserved: boolean
}
/** What all consumers of the process share. */
export interface Locks {
  readonly session: ListeningSession
  /** The session would give a lock twice to two consumers here, so they are counted: by subscription, Infinity for one alone. */
  readonly reserved: Map<number, number>
  /** Opened when a lock may be free. */
  readonly nudged: Latch.Latch
}

/** Reserves a place among this process's consumers. False: one of them is in the way. */
const reserve = ({ reserved }: Locks, member: Member): boolean => {
  const { alone, subscription } = member
  const count = reserved.get(subscription) ?? 0
  if (member.reserved) return true
  if (count === Infinity || (alone && count > 0)) return false
  reserved.set(subscription, alone ? Infinity : count + 1)
  member.reserved = true
  return true
}
export const unreserve = ({ nudged, reserved }: Locks, member: Member): void => {
  if (!member.reserved) return
  member.reserved = false
  const count = member.alone ? 0 : (reserved.get(member.subscription) ?? 1) - 1
  if (count === 0) reserved.delete(member.subscription)
  else reserved.set(member.subscription, count)
  nudged.openUnsafe()
}

const lock = async ({ session }: Locks, member: Member): Promise<"joined" | "busy" | "lost"> => {
  const pid = session.pid()
  if (pid === undefined) return "lost"
  const { alone, consumer, subscription } = member
  const [row] = await session.sql`
    select case when ${alone}::boolean then pg_try_advisory_lock(${subscriptionKey}::integer, ${subscription}::integer)
        else pg_try_advisory_lock_shared(${subscriptionKey}::integer, ${subscription}::integer) end as got,
      pg_backend_pid() as pid`
  if (row?.["pid"] !== pid) return "lost"
  if (row["got"] !== true) return "busy"
  const [alive] = await session.sql`
    select pg_try_advisory_lock(${consumerKey}::integer, ${consumer}::integer) as got, pg_backend_pid() as pid`
  if (alive?.["pid"] !== pid || session.pid() !== pid) return "lost"
  member.joined = pid
  return "joined"
}
/** Takes a place and the locks. Lost: there is no session at the moment. */
export const join = (locks: Locks, member: Member): Effect.Effect<"joined" | "busy" | "lost", SqlError> =>
  Effect.suspend(() => (reserve(locks, member) ? joinReserved(locks, member) : Effect.succeed("busy" as const)))
const joinReserved = (locks: Locks, member: Member): Effect.Effect<"joined" | "busy" | "lost", SqlError> =>
  Effect.uninterruptible(query("join", () => lock(locks, member))).pipe(
    Effect.catchIf(
      ({ retryable }) => retryable,
      () => Effect.succeed("lost" as const)
    )
  )
/** Whether the locks are held now. */
export const isJoined = ({ session }: Locks, { joined }: Member): boolean =>
  joined !== undefined && joined === session.pid()

/** Lets the locks go, if they are still there. */
export const leave = (locks: Locks, member: Member): Effect.Effect<void> =>
  Effect.promise(async () => {
    const { session } = locks
    if (!isJoined(locks, member)) return
    member.joined = undefined
    await session.sql`
      select pg_advisory_unlock(${consumerKey}::integer, ${member.consumer}::integer),
        case when ${member.alone}::boolean then pg_advisory_unlock(${subscriptionKey}::integer, ${member.subscription}::integer)
          else pg_advisory_unlock_shared(${subscriptionKey}::integer, ${member.subscription}::integer) end`.catch(
      () => undefined
    )
  }).pipe(Effect.timeoutOption("2 seconds"), Effect.asVoid)
