// The advisory locks of a subscription's consumers, held by the process's session. The server releases them when the process dies.
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import { query, type SqlError } from "../client/errors.ts"
import { consumerKey, subscriptionKey } from "./leases-sql.ts"
import type { ListeningSession } from "../client/session.ts"

/** A consumer and its locks: one that shows that it lives, and one of the subscription, exclusive or shared. */
export interface ConsumerMember {
  readonly consumer: number
  readonly subscription: number
  readonly alone: boolean
  /** The id of the server process that holds the locks. */
  joined: number | undefined
  /** Whether this process has counted it among its consumers. */
  reserved: boolean
}
/** What all consumers of the process share. */
export interface SubscriptionLocks {
  readonly session: ListeningSession
  /**
   * How many consumers of this process each subscription has; Infinity for an exclusive one. A session gets a lock that it holds once more,
   * so the locks alone would not keep two consumers of one process apart.
   */
  readonly reserved: Map<number, number>
  /** Opens when a lock may have become free. */
  readonly released: Latch.Latch
}

/** Counts a consumer among this process's. False if another consumer of the process excludes it. */
const reserve = ({ reserved }: SubscriptionLocks, member: ConsumerMember): boolean => {
  const { alone, subscription } = member
  const count = reserved.get(subscription) ?? 0
  if (member.reserved) return true
  if (count === Infinity || (alone && count > 0)) return false
  reserved.set(subscription, alone ? Infinity : count + 1)
  member.reserved = true
  return true
}
/** Undoes `reserve`. */
export const unreserve = ({ released, reserved }: SubscriptionLocks, member: ConsumerMember): void => {
  if (!member.reserved) return
  member.reserved = false
  const count = member.alone ? 0 : (reserved.get(member.subscription) ?? 1) - 1
  if (count === 0) reserved.delete(member.subscription)
  else reserved.set(member.subscription, count)
  released.openUnsafe()
}

const lock = async ({ session }: SubscriptionLocks, member: ConsumerMember): Promise<"joined" | "busy" | "lost"> => {
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
/** Takes the locks. `busy`: another consumer excludes this one. `lost`: the session is lost at the moment. */
export const join = (
  locks: SubscriptionLocks,
  member: ConsumerMember
): Effect.Effect<"joined" | "busy" | "lost", SqlError> =>
  Effect.suspend(() => (reserve(locks, member) ? joinReserved(locks, member) : Effect.succeed("busy" as const)))
const joinReserved = (
  locks: SubscriptionLocks,
  member: ConsumerMember
): Effect.Effect<"joined" | "busy" | "lost", SqlError> =>
  Effect.uninterruptible(query("join", () => lock(locks, member))).pipe(
    Effect.catchIf(
      ({ retryable }) => retryable,
      () => Effect.succeed("lost" as const)
    )
  )
/** Whether the consumer holds its locks now. */
export const isJoined = ({ session }: SubscriptionLocks, { joined }: ConsumerMember): boolean =>
  joined !== undefined && joined === session.pid()

/** Releases the locks, if they are still held. */
export const leave = (locks: SubscriptionLocks, member: ConsumerMember): Effect.Effect<void> =>
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
