// Shares a topic's partitions among the members of a group: a loop over locks that an adapter of the log provides.
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"

/** A group as a member sees it. */
export interface GroupView {
  readonly members: ReadonlyArray<number>
  /** Partitions that some member holds, this member's included. */
  readonly taken: ReadonlySet<number>
}
/** One member's locks. At most one member of the group holds a partition. */
export interface GroupLocks<E> {
  /** This member's number among `GroupView.members`. */
  readonly member: number
  readonly partitions: number
  /** The group as it is now; joins it first if necessary. Undefined: all locks of this member are lost and none can be taken for now. */
  readonly look: Effect.Effect<GroupView | undefined, E>
  /**
   * Takes a free partition and returns its generation, which is higher than every earlier one. Undefined if another member was faster, or if
   * the locks are lost.
   */
  readonly take: (partition: number) => Effect.Effect<number | undefined, E>
  /** Gives a partition back. Is also called for a partition whose lock is lost. */
  readonly free: (partition: number) => Effect.Effect<void>
  /** Leaves the group. Is called after all partitions were given back. */
  readonly leave: Effect.Effect<void>
  /** Waits until the group may have changed; returns at once after locks were lost. */
  readonly changed: Effect.Effect<void>
}

/** A partition that this member works on. */
interface HeldPartition<E> {
  readonly fiber: Fiber.Fiber<void, E>
  /** This member interrupts it, so its end is no failure. */
  stopping: boolean
}

/** How many partitions a member should hold: an equal share, and one more for the first members (by number) if there is a remainder. */
export const shareOf = (member: number, members: ReadonlyArray<number>, partitions: number): number => {
  const rank = members.filter((other) => other < member).length
  const size = Math.max(1, members.length)
  return Math.floor(partitions / size) + (rank < partitions % size ? 1 : 0)
}

/**
 * Runs `use` for each partition that is assigned to this member, until one of them fails. A partition is given back only after its `use`
 * has ended. When the locks are lost, every `use` is interrupted at once. Fails with the first failure of a `use` or of the locks.
 */
export const sharePartitions = <L, E, R>(
  locks: GroupLocks<L>,
  use: (partition: number, generation: number) => Effect.Effect<void, E, R>
): Effect.Effect<never, E | L, R> =>
  Effect.scoped(
    Effect.gen(function* () {
      const failed = yield* Deferred.make<never, E>()
      const held = new Map<number, HeldPartition<E>>()

      const stop = Effect.fnUntraced(function* (partitions: ReadonlyArray<number>) {
        const stopping = partitions.map((partition) => held.get(partition)!)
        for (const one of stopping) one.stopping = true
        yield* Fiber.interruptAll(stopping.map(({ fiber }) => fiber))
        for (const partition of partitions) {
          yield* locks.free(partition)
          held.delete(partition)
        }
      }, Effect.uninterruptible)
      yield* Effect.addFinalizer(() => Effect.andThen(stop([...held.keys()]), locks.leave))

      const start = Effect.fnUntraced(function* (partition: number) {
        const generation = yield* locks.take(partition)
        if (generation === undefined) return
        const one: { stopping: boolean } = { stopping: false }
        const running = use(partition, generation).pipe(
          Effect.onExit((exit) =>
            Exit.isFailure(exit) && !one.stopping ? Deferred.failCause(failed, exit.cause) : Effect.void
          )
        )
        // detached, because the finalizer above interrupts it before it leaves the group
        const fiber = yield* Effect.forkDetach(Effect.interruptible(running))
        held.set(partition, Object.assign(one, { fiber }))
      }, Effect.uninterruptible)

      const step = Effect.gen(function* () {
        const view = yield* locks.look
        if (view === undefined) return yield* stop([...held.keys()])
        const target = shareOf(locks.member, view.members, locks.partitions)
        const mine = [...held.keys()].toSorted((a, b) => a - b)
        if (mine.length > target) return yield* stop(mine.slice(target))
        for (let partition = 0; partition < locks.partitions && held.size < target; partition++) {
          if (!view.taken.has(partition)) yield* start(partition)
        }
      })
      return yield* Effect.raceFirst(Effect.forever(Effect.andThen(step, locks.changed)), Deferred.await(failed))
    })
  )
