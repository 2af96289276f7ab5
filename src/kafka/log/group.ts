// Runs the partitions of a member of a Kafka consumer group: starts and stops them at each rebalance, and sends heartbeats meanwhile.
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { groupPartitions } from "../../log/group-partitions.ts"
import type { LogError, UnknownTopic } from "../../log/log.ts"
import type { Client, KafkaOptions } from "../protocol/protocol.ts"
import { attempt } from "./failures.ts"
import {
  defaultSessionMs,
  type GroupAssignment,
  GroupMember,
  type HeartbeatAnswer,
  isForgotten,
  isPassing
} from "./group-member.ts"

/** How many sessions joining is tried by default while no coordinator answers. */
const joinSessions = 12

/**
 * Joins, and tries again while that may help. Partitions are stopped by `stopAll` if the membership is lost, or no coordinator answers for a
 * session. `known` is the highest generation that this member knows.
 */
const join = Effect.fnUntraced(function* (
  member: GroupMember,
  topic: string,
  { joinMs, sessionMs = defaultSessionMs }: KafkaOptions,
  running: () => ReadonlyArray<number>,
  known: number,
  stopAll: Effect.Effect<void>
) {
  const since = Date.now()
  const mayPass = (cause: unknown) => isPassing(cause) && Date.now() - since < (joinMs ?? sessionMs * joinSessions)
  const once = async (): Promise<GroupAssignment | { readonly isLost: boolean }> => {
    try {
      return await member.join(running(), known)
    } catch (cause) {
      if (!isForgotten(cause) && !mayPass(cause)) throw cause
      return { isLost: isForgotten(cause) }
    }
  }
  for (let pause = 20; ; pause = Math.min(pause * 2, 1_000)) {
    const result = yield* attempt("assign", topic, once)
    if (!("isLost" in result)) return result
    if (result.isLost) member.forget()
    if (result.isLost || Date.now() - since > sessionMs) yield* stopAll
    yield* Effect.sleep(pause)
  }
})

/**
 * Sends heartbeats until the group must rebalance, or `revoked` has stopped what this member must release. Runs `lose` if the membership is
 * lost, and `stopAll` if no coordinator answers for a session.
 */
const beat = Effect.fnUntraced(function* (
  member: GroupMember,
  { heartbeatMs = 500, sessionMs = defaultSessionMs }: KafkaOptions,
  lose: Effect.Effect<void>,
  stopAll: Effect.Effect<void>,
  revoked: Fiber.Fiber<void> | undefined
) {
  let heardAt = Date.now()
  let isReleased = false
  const released = revoked === undefined ? Effect.never : Effect.exit(Fiber.join(revoked))
  while (true) {
    yield* Effect.raceFirst(
      Effect.sleep(heartbeatMs),
      Effect.tap(released, () => Effect.sync(() => (isReleased = true)))
    )
    if (isReleased) return
    const answer = yield* Effect.promise((): Promise<HeartbeatAnswer | "silent"> =>
      member.beat().catch(() => "silent" as const)
    )
    if (answer === "fine") heardAt = Date.now()
    if (answer === "rejoin") return
    // the brokers have assigned its partitions to other members by now
    if (answer === "lost") return yield* lose
    // the membership may still exist when the brokers are back, and a group waits long for a member that is gone
    if (answer === "silent" && Date.now() - heardAt > sessionMs) return yield* stopAll
  }
})

/**
 * Runs `use` for the partitions that this member is assigned until one of them fails. A partition is released only after its `use` has ended;
 * those that stay go on meanwhile. If the membership is lost, or the coordinator is silent for a session, every `use` is interrupted.
 */
export const assign = <E, R>(
  client: Client,
  topic: string,
  group: string,
  use: (partition: number, generation: number) => Effect.Effect<void, E, R>
): Effect.Effect<never, E | LogError | UnknownTopic, R> =>
  Effect.scoped(
    Effect.gen(function* () {
      const member = new GroupMember(client, topic, group)
      const own = yield* groupPartitions(use)
      let known = 0
      yield* Effect.addFinalizer(() =>
        Effect.andThen(
          own.stopAll,
          Effect.promise(() => member.leave())
        )
      )
      const lose = Effect.andThen(
        Effect.sync(() => member.forget()),
        own.stopAll
      )
      const round = Effect.gen(function* () {
        const { generation, partitions } = yield* join(member, topic, client.options, own.running, known, own.stopAll)
        known = Math.max(known, generation)
        const revoked = own.running().filter((one) => !partitions.includes(one) || own.isStopping(one))
        for (const partition of partitions) if (!own.has(partition)) yield* own.start(partition, generation)
        const stopping = revoked.length === 0 ? undefined : yield* Effect.forkChild(own.stop(revoked))
        yield* beat(member, client.options, lose, own.stopAll, stopping)
      })
      return yield* Effect.raceFirst(Effect.forever(round), own.failed)
    })
  )
