// Runs the commands of a process: one queue for each stream, whose commands are decided one after another on the state in memory and
// appended together as a chain.
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Aggregate } from "../model/aggregate.ts"
import { StreamBusy } from "./failures.ts"
import type { EventStore } from "./event-store.ts"
import { runChain, type QueuedCommand } from "./chain.ts"
import type { StreamState } from "./state.ts"
import { counted } from "../text/counted.ts"

type Store = EventStore["Service"]

/** How many commands of one stream may wait; more fail with `StreamBusy`. */
export const mostWaiting = 1_000
/** How many commands are decided and appended together at most. */
const mostInChain = 100
/** How many streams' states a process keeps in memory; those that were not used for longest are dropped. */
export const mostStates = 2_000

/** The commands of one stream that wait, and its state if that is known. */
export interface StreamQueue {
  readonly aggregate: Aggregate.Any
  readonly stream: string
  readonly waiting: Array<QueuedCommand>
  /** The state after the last event that this process loaded or appended. Undefined: it has to be loaded. */
  state: StreamState<unknown> | undefined
  isRunning: boolean
  /** What the chain that runs has in memory was erased meanwhile: its state is not kept. */
  isOutdated: boolean
  /** A snapshot is being stored. */
  isSavingSnapshot: boolean
}

/** The queues of one event store. */
class Executor {
  private readonly store: Store
  private readonly queues = new Map<Aggregate.Any, Map<string, StreamQueue>>()
  /** The queues that only hold a state, the one that was used last at the end. */
  private readonly idle = new Set<StreamQueue>()

  constructor(store: Store) {
    this.store = store
  }

  /** Adds a command to its stream's queue and waits for its answer. */
  execute(aggregate: Aggregate.Any, stream: string, command: QueuedCommand): Effect.Effect<unknown, unknown> {
    return Effect.suspend(() => {
      const queue = this.queueOf(aggregate, stream)
      if (queue.waiting.length >= mostWaiting) {
        const reason = `${counted(queue.waiting.length, "command")} wait${queue.waiting.length === 1 ? "s" : ""} for it in this process`
        return Effect.fail(new StreamBusy({ aggregate: aggregate.name, stream, reason }))
      }
      queue.waiting.push(command)
      const answer = Deferred.await(command.answer).pipe(
        Effect.onInterrupt(() => Effect.sync(() => void (command.isCancelled = true)))
      )
      if (queue.isRunning) return answer
      queue.isRunning = true
      this.idle.delete(queue)
      // of its own: the caller that happens to be first may be interrupted
      return Effect.andThen(Effect.forkDetach(this.run(queue)), answer)
    })
  }

  private queueOf(aggregate: Aggregate.Any, stream: string): StreamQueue {
    const streams = this.queues.get(aggregate) ?? new Map<string, StreamQueue>()
    this.queues.set(aggregate, streams)
    const queue = streams.get(stream) ?? {
      aggregate,
      stream,
      waiting: [],
      state: undefined,
      isRunning: false,
      isOutdated: false,
      isSavingSnapshot: false
    }
    streams.set(stream, queue)
    return queue
  }
  private run(queue: StreamQueue): Effect.Effect<void> {
    const { store } = this
    return Effect.gen(function* () {
      while (queue.waiting.length > 0) {
        const chain = queue.waiting.splice(0, mostInChain).filter(({ isCancelled }) => !isCancelled)
        const exit = yield* Effect.exit(runChain(store, queue, chain))
        if (Exit.isSuccess(exit)) {
          queue.waiting.unshift(...exit.value)
          continue
        }
        queue.state = undefined
        for (const { answer } of chain) yield* Deferred.failCause(answer, exit.cause)
        if (Cause.hasInterrupts(exit.cause)) return yield* Effect.interrupt
      }
    }).pipe(
      Effect.onExit((exit) =>
        Effect.gen(function* () {
          const left = Exit.isSuccess(exit) ? [] : queue.waiting.splice(0)
          queue.isRunning = false
          if (Exit.isFailure(exit)) for (const { answer } of left) yield* Deferred.failCause(answer, exit.cause)
        })
      ),
      Effect.ensuring(Effect.sync(() => this.rest(queue)))
    )
  }
  /** Keeps the state of a queue without commands, and drops the states that were not used for longest. */
  private rest(queue: StreamQueue): void {
    if (queue.isRunning) return
    if (queue.state === undefined) this.drop(queue)
    else this.idle.add(queue)
    for (const oldest of this.idle) {
      if (this.idle.size <= mostStates) return
      this.drop(oldest)
    }
  }
  /** Drops the states in memory: commands load them again. */
  forget(): void {
    for (const queue of this.idle) this.drop(queue)
    for (const streams of this.queues.values())
      for (const queue of streams.values()) {
        queue.state = undefined
        queue.isOutdated = true
      }
  }
  private drop(queue: StreamQueue): void {
    this.idle.delete(queue)
    const streams = this.queues.get(queue.aggregate)
    streams?.delete(queue.stream)
    if (streams?.size === 0) this.queues.delete(queue.aggregate)
  }
}

const executors = new WeakMap<Store, Executor>()
/** The executor of an event store: one in a process, so that all commands of a stream go through one queue. */
export const executorOf = (store: Store): Executor => {
  const executor = executors.get(store) ?? new Executor(store)
  executors.set(store, executor)
  return executor
}
