// Runs a group member's partitions: one fiber for each, started and stopped as the group assigns them, until one of them fails.
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"

interface RunningPartition<E> {
  readonly fiber: Fiber.Fiber<void, E>
  /** Once it is being stopped, its end is not a failure. */
  isStopping: boolean
}

/** The partitions that a member runs. */
export interface GroupPartitions<E, R> {
  /** Partitions that run or are being stopped, in the order of their start. */
  readonly running: () => ReadonlyArray<number>
  readonly has: (partition: number) => boolean
  readonly isStopping: (partition: number) => boolean
  /** Starts a partition, which must not run. Cannot be interrupted, and does not wait for its end. */
  readonly start: (partition: number, generation: number) => Effect.Effect<void, never, R>
  /** Interrupts partitions and waits until they have ended. Cannot be interrupted. Partitions that do not run are ignored. */
  readonly stop: (partitions: ReadonlyArray<number>) => Effect.Effect<void>
  /** `stop` for all that run when it starts. */
  readonly stopAll: Effect.Effect<void>
  /** Waits for the first partition that fails without being stopped, and fails as it did. */
  readonly failed: Effect.Effect<never, E>
}

/** Nothing runs yet. `use` is what runs for a partition; `onStopped` is called after a stopped one has ended. The caller stops all in the end. */
export const groupPartitions = Effect.fnUntraced(function* <E, R>(
  use: (partition: number, generation: number) => Effect.Effect<void, E, R>,
  onStopped: (partition: number) => Effect.Effect<void> = () => Effect.void
): Effect.fn.Return<GroupPartitions<E, R>> {
  const failed = yield* Deferred.make<never, E>()
  const running = new Map<number, RunningPartition<E>>()

  const stop = Effect.fnUntraced(function* (partitions: ReadonlyArray<number>) {
    const stopping = partitions.flatMap((partition) => {
      const one = running.get(partition)
      return one === undefined ? [] : [[partition, one] as const]
    })
    for (const [, one] of stopping) one.isStopping = true
    yield* Fiber.interruptAll(stopping.map(([, { fiber }]) => fiber))
    for (const [partition, one] of stopping) {
      if (running.get(partition) !== one) continue
      yield* onStopped(partition)
      running.delete(partition)
    }
  }, Effect.uninterruptible)

  const start = Effect.fnUntraced(function* (partition: number, generation: number) {
    const state = { isStopping: false }
    const work = use(partition, generation).pipe(
      Effect.onExit((exit) =>
        Exit.isFailure(exit) && !state.isStopping ? Deferred.failCause(failed, exit.cause) : Effect.void
      )
    )
    // detached, because it ends when the caller stops it, not when the fiber that started it ends
    const fiber = yield* Effect.forkDetach(Effect.interruptible(work))
    running.set(partition, Object.assign(state, { fiber }))
  }, Effect.uninterruptible)

  return {
    running: () => [...running.keys()],
    has: (partition) => running.has(partition),
    isStopping: (partition) => running.get(partition)?.isStopping === true,
    start,
    stop,
    stopAll: Effect.suspend(() => stop([...running.keys()])),
    failed: Deferred.await(failed)
  }
})
