// How the members of a group share a topic's partitions: a loop over locks that an adapter of the log lends it. It reads no record.
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"

/** A group as a member sees it. */
export interface GroupView {
  readonly members: ReadonlyArray<number>
  /** Partitions that somebody has, this member included. */
  readonly taken: ReadonlySet<number>
}
/** One member's locks. Each partition is had by one member of the group at most. */
export interface GroupLocks<E> {
  /** This member's number among `GroupView.members`. */
  readonly member: number
  readonly partitions: number
  /** Undefined: every lock that this member had is lost, and no partition can be had for now. Joins the group where necessary. */
  readonly look: Effect.Effect<GroupView | undefined, E>
  /** Takes a free partition. The generation, higher than all before; undefined where another was faster, or the locks are lost. */
  readonly take: (partition: number) => Effect.Effect<number | undefined, E>
  /** Called for a lost one too. */
  readonly free: (partition: number) => Effect.Effect<void>
  /** Leaves the group. Partitions were freed before. */
  readonly leave: Effect.Effect<void>
  /** Waits until looking again is worth while; at once after a loss. */
  readonly changed: Effect.Effect<void>
}

interface Having<E> {
  readonly fiber: Fiber.Fiber<void, E>
  /** Its end is no failure. */
  stopping: boolean
}

/** How many partitions a member should have: all get the same number, and the first by number one more where they don't go round. */
export const shareOf = (member: number, members: ReadonlyArray<number>, partitions: number): number => {
  const rank = members.filter((other) => other < member).length
  const size = Math.max(1, members.length)
  return Math.floor(partitions / size) + (rank < partitions % size ? 1 : 0)
}

/**
 * Runs `use` for the partitions that fall to this member until one of them fails. A partition is freed only after its `use` has
 * ended. When the locks are lost every `use` is interrupted at once.
 */
export const sharePartitions = <L, E, R>(
  locks: GroupLocks<L>,
  use: (partition: number, generation: number) => Effect.Effect<void, E, R>
): Effect.Effect<never, E | L, R> =>
  Effect.scoped(
    Effect.gen(function* () {
      const failed = yield* Deferred.make<never, E>()
      const having = new Map<number, Having<E>>()

      const stop = Effect.fnUntraced(function* (partitions: ReadonlyArray<number>) {
        const stopping = partitions.map((partition) => having.get(partition)!)
        for (const one of stopping) one.stopping = true
        yield* Fiber.interruptAll(stopping.map(({ fiber }) => fiber))
        for (const partition of partitions) {
          yield* locks.free(partition)
          having.delete(partition)
        }
      }, Effect.uninterruptible)
      yield* Effect.addFinalizer(() => Effect.andThen(stop([...having.keys()]), locks.leave))

      const start = Effect.fnUntraced(function* (partition: number) {
        const generation = yield* locks.take(partition)
        if (generation === undefined) return
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

      const step = Effect.gen(function* () {
        const view = yield* locks.look
        if (view === undefined) return yield* stop([...having.keys()])
        const target = shareOf(locks.member, view.members, locks.partitions)
        const mine = [...having.keys()].toSorted((a, b) => a - b)
        if (mine.length > target) return yield* stop(mine.slice(target))
        for (let partition = 0; partition < locks.partitions && having.size < target; partition++) {
          if (!view.taken.has(partition)) yield* start(partition)
        }
      })
      return yield* Effect.raceFirst(Effect.forever(Effect.andThen(step, locks.changed)), Deferred.await(failed))
    })
  )
