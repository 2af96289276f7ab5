// Runs what uses the partitions of a member of a group: starts and stops it as the group shares anew, and beats beside it.
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type { LogError, UnknownTopic } from "../../log/log.ts"
import type { Client } from "../protocol/client.ts"
import { attempt } from "../protocol/errors.ts"
import { type Beat, defaultSessionMs, isForgotten, isPassing, Member, type Share } from "./group-member.ts"
import type { Options } from "../protocol/options.ts"

interface Having<E> {
  readonly fiber: Fiber.Fiber<void, E>
  /** Its end is no failure. */
  stopping: boolean
}

/** How long joining is tried while no coordinator answers where nothing is said, in sessions. */
const patience = 12

/** Joins until it is in. What was had is stopped by `stopAll` where the membership is gone, or nobody answers for a session. */
const join = Effect.fnUntraced(function* (
  member: Member,
  topic: string,
  { joinMs, sessionMs = defaultSessionMs }: Options,
  having: ReadonlyMap<number, unknown>,
  known: number,
  stopAll: Effect.Effect<void>
) {
  const since = Date.now()
  const passing = (cause: unknown) => isPassing(cause) && Date.now() - since < (joinMs ?? sessionMs * patience)
  const once = async (): Promise<Share | { readonly lost: boolean }> => {
    try {
      return await member.join([...having.keys()], known)
    } catch (cause) {
      if (!isForgotten(cause) && !passing(cause)) throw cause
      return { lost: isForgotten(cause) }
    }
  }
  for (let pause = 20; ; pause = Math.min(pause * 2, 1_000)) {
    const result = yield* attempt("assign", topic, once)
    if (!("lost" in result)) return result
    if (result.lost) member.forget()
    if (result.lost || Date.now() - since > sessionMs) yield* stopAll
    yield* Effect.sleep(pause)
  }
})

/** Beats until the group must share anew, or what had to be given up is; runs `lose` where membership is gone, `stopAll` where nobody answers. */
const beat = Effect.fnUntraced(function* (
  member: Member,
  { heartbeatMs = 500, sessionMs = defaultSessionMs }: Options,
  lose: Effect.Effect<void>,
  stopAll: Effect.Effect<void>,
  revoked: Fiber.Fiber<void> | undefined
) {
  let heard = Date.now()
  let stopped = false
  const done = revoked === undefined ? Effect.never : Effect.exit(Fiber.join(revoked))
  while (true) {
    yield* Effect.raceFirst(
      Effect.sleep(heartbeatMs),
      Effect.tap(done, () => Effect.sync(() => (stopped = true)))
    )
    if (stopped) return
    const told = yield* Effect.promise((): Promise<Beat | "silent"> => member.beat().catch(() => "silent" as const))
    if (told === "fine") heard = Date.now()
    if (told === "rejoin") return
    // the brokers have given its partitions to others by now
    if (told === "lost") return yield* lose
    // the membership may still be there when the brokers are back, and a group waits long for a member that is gone
    if (told === "silent" && Date.now() - heard > sessionMs) return yield* stopAll
  }
})

/**
 * Runs `use` for the partitions that fall to this member until one of them fails. A partition is given up only after its `use` has ended;
 * those that stay go on meanwhile. When the membership is lost, or the coordinator silent for a session, every `use` is interrupted.
 */
export const assign = <E, R>(
  client: Client,
  topic: string,
  group: string,
  use: (partition: number, generation: number) => Effect.Effect<void, E, R>
): Effect.Effect<never, E | LogError | UnknownTopic, R> =>
  Effect.scoped(
    Effect.gen(function* () {
      const member = new Member(client, topic, group)
      const failed = yield* Deferred.make<never, E>()
      const having = new Map<number, Having<E>>()
      let known = 0

      const stop = Effect.fnUntraced(function* (partitions: ReadonlyArray<number>) {
        const stopping = partitions.flatMap((partition) => {
          const one = having.get(partition)
          return one === undefined ? [] : [[partition, one] as const]
        })
        for (const [, one] of stopping) one.stopping = true
        yield* Fiber.interruptAll(stopping.map(([, { fiber }]) => fiber))
        for (const [partition, one] of stopping) if (having.get(partition) === one) having.delete(partition)
      }, Effect.uninterruptible)
      const stopAll = Effect.suspend(() => stop([...having.keys()]))
      yield* Effect.addFinalizer(() =>
        Effect.andThen(
          stopAll,
          Effect.promise(() => member.leave())
        )
      )

      const start = Effect.fnUntraced(function* (partition: number, generation: number) {
        const one: { stopping: boolean } = { stopping: false }
        const running = use(partition, generation).pipe(
          Effect.onExit((exit) =>
            Exit.isFailure(exit) && !one.stopping ? Deferred.failCause(failed, exit.cause) : Effect.void
          )
        )
        // detached, for the finalizer above ends it, in its turn
        const fiber = yield* Effect.forkDetach(Effect.interruptible(running))
        having.set(partition, Object.assign(one, { fiber }))
      }, Effect.uninterruptible)

      const lose = Effect.andThen(
        Effect.sync(() => member.forget()),
        stopAll
      )
      const round = Effect.gen(function* () {
        const { generation, partitions } = yield* join(member, topic, client.options, having, known, stopAll)
        known = Math.max(known, generation)
        const revoked = [...having].flatMap(([partition, { stopping }]) =>
          partitions.includes(partition) && !stopping ? [] : [partition]
        )
        for (const partition of partitions) if (!having.has(partition)) yield* start(partition, generation)
        const stopping = revoked.length === 0 ? undefined : yield* Effect.forkChild(stop(revoked))
        yield* beat(member, client.options, lose, stopAll, stopping)
      })
      return yield* Effect.raceFirst(Effect.forever(round), Deferred.await(failed))
    })
  )
