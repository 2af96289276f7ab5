// Shares a topic's partitions among the members of a group: a loop over locks that an adapter of the log provides.
import * as Effect from "effect/Effect"
import { groupPartitions } from "./group-partitions.ts"

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
      const held = yield* groupPartitions(use, locks.free)
      yield* Effect.addFinalizer(() => Effect.andThen(held.stopAll, locks.leave))

      const start = Effect.fnUntraced(function* (partition: number) {
        const generation = yield* locks.take(partition)
        if (generation !== undefined) yield* held.start(partition, generation)
      }, Effect.uninterruptible)

      const step = Effect.gen(function* () {
        // a look that joins the group must end before this member leaves, or the group would have a member that never leaves
        const view = yield* Effect.uninterruptible(locks.look)
        if (view === undefined) return yield* held.stopAll
        const target = shareOf(locks.member, view.members, locks.partitions)
        const mine = held.running().toSorted((a, b) => a - b)
        if (mine.length > target) return yield* held.stop(mine.slice(target))
        for (let partition = 0; partition < locks.partitions && held.running().length < target; partition++) {
          if (!view.taken.has(partition)) yield* start(partition)
        }
      })
      return yield* Effect.raceFirst(Effect.forever(Effect.andThen(step, locks.changed)), held.failed)
    })
  )
