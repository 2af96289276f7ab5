// The worker of timers: claims commands that are due and executes each by its aggregate. A command that fails is tried again, and stops no other.
import { SubjectErased } from "../erasure/errors.ts"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import type { Aggregate as Model } from "../model/aggregate.ts"
import { Aggregate } from "./aggregate.ts"
import { isRejection } from "./command.ts"
import { StreamClosed, TimerGone } from "./errors.ts"
import type { EventStore } from "./event-store.ts"
import { InvalidCommand } from "./failures.ts"
import { loggedReason, UnreadableCommand } from "./logged-reason.ts"
import { type DueCommand, leaseMs, Timers, type TimersError } from "./timers.ts"

/** What became of a command. A rejection is an answer, as events are; what failed is tried again. */
export type TimerOutcome = "executed" | "rejected" | "gone" | "failed"
/** How a worker works. Times are in milliseconds. */
export interface TimerWorkerOptions {
  /** The aggregates of the application. A command for another one fails, and is tried again. */
  readonly aggregates: ReadonlyArray<Model.Any>
  /** Called with what became of each command, and why it was rejected or failed. */
  readonly settled?: (command: DueCommand, outcome: TimerOutcome, reason: string | undefined) => Effect.Effect<void>
  /** How long it waits at most before it looks for commands. Default 5,000. */
  readonly pollMs?: number
  /** How many commands, or lines of them, it works on at once. Default 32. */
  readonly atOnce?: number
}

const longestExecutionMs = leaseMs
const [firstDelayMs, longestDelayMs] = [1_000, 300_000]
/** How long to wait after a command failed for the n-th time, from 0: from 1 s, doubling to 5 minutes, less up to a tenth by chance. */
const delayMs = (failures: number) =>
  Math.min(longestDelayMs, firstDelayMs * 2 ** Math.min(failures, 20)) * (1 - Math.random() / 10)

const judge = (
  exit: Exit.Exit<unknown, unknown>,
  aggregate: Model.Any | undefined
): { readonly outcome: TimerOutcome; readonly reason?: string } => {
  if (Exit.isSuccess(exit)) return { outcome: "executed" }
  const error = Option.getOrElse(Cause.findErrorOption(exit.cause), () => Cause.squash(exit.cause))
  if (error instanceof TimerGone) return { outcome: "gone" }
  const reason = loggedReason(error, aggregate)
  // a stream that takes no more events never will; all other errors say nothing about the command, so it is tried again
  const isFinal = isRejection(error) || error instanceof StreamClosed || error instanceof SubjectErased
  return { outcome: isFinal ? "rejected" : "failed", reason }
}

const decoded = (aggregate: Model.Any, json: string) => {
  try {
    return aggregate.decodeCommand(JSON.parse(json))
  } catch (error) {
    throw new UnreadableCommand(error)
  }
}
/** Executes a claimed command. Fails with what the command fails with. */
const executed = (aggregates: ReadonlyMap<string, Model.Any>, due: DueCommand) =>
  Effect.suspend((): Effect.Effect<unknown, unknown, EventStore> => {
    const { aggregate: name, causationId, correlationId, id, projection, stream, tenant, traceparent } = due
    const aggregate = aggregates.get(name)
    if (aggregate === undefined) {
      const reason = `the application has no aggregate ${name}; add it to \`aggregates\` of Application.make`
      return Effect.fail(new InvalidCommand({ aggregate: name, command: due.timer ?? "sent", reason }))
    }
    const context = { actor: projection, causationId, correlationId, tenant, traceparent }
    const command = decoded(aggregate, due.command)
    return Aggregate.execute(aggregate, stream, command as never, { commandId: id, timer: id, context })
  }).pipe(
    Effect.timeoutOrElse({
      duration: longestExecutionMs,
      orElse: () => Effect.die(new Error(`it was not executed within ${longestExecutionMs / 1_000} s`))
    })
  )

/**
 * Executes commands that are due until it is interrupted. Fails if the timers cannot be read, or if what became of a command cannot be stored; what
 * it had claimed is then claimed again when the lease ends.
 */
export const runTimers = Effect.fnUntraced(function* ({
  aggregates: given,
  atOnce = 32,
  pollMs = 5_000,
  settled = () => Effect.void
}: TimerWorkerOptions): Effect.fn.Return<never, TimersError, Timers | EventStore> {
  const timers = yield* Timers
  const aggregates = new Map(given.map((aggregate) => [aggregate.name, aggregate]))

  /** Works on the claimed commands of one line, one after another. */
  const work = Effect.fnUntraced(function* (line: ReadonlyArray<DueCommand>) {
    const began = yield* Clock.currentTimeMillis
    for (const [i, due] of line.entries()) {
      const rest = line.slice(i).map(({ id }) => id)
      if ((yield* Clock.currentTimeMillis) - began > leaseMs / 3) return yield* timers.postpone(rest, 0)
      const exit = yield* Effect.exit(executed(aggregates, due))
      if (Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)) return yield* Effect.interrupt
      const { outcome, reason } = judge(exit, aggregates.get(due.aggregate))
      yield* settled(due, outcome, reason)
      if (outcome === "failed") return yield* timers.postpone(rest, delayMs(due.failures), reason)
      // the append of a command with events has removed it
      if (outcome !== "gone") yield* timers.remove(due.id)
    }
  })

  return yield* Effect.scoped(
    Effect.gen(function* () {
      const wake = Latch.makeUnsafe(false)
      const signal = yield* timers.signals
      const signalled = Effect.forever(
        Effect.andThen(
          signal,
          Effect.sync(() => wake.openUnsafe())
        )
      )
      let active = 0
      let broken: Cause.Cause<TimersError> | undefined
      const run = (line: ReadonlyArray<DueCommand>) =>
        work(line).pipe(
          Effect.onExit((exit) =>
            Effect.sync(() => {
              active--
              if (Exit.isFailure(exit)) broken = exit.cause
              wake.openUnsafe()
            })
          ),
          Effect.exit,
          Effect.forkScoped
        )
      const loop = Effect.gen(function* () {
        while (true) {
          wake.closeUnsafe()
          if (broken !== undefined) return yield* Effect.failCause(broken)
          const most = atOnce - active
          const claimed = most === 0 ? [] : yield* timers.claim(most)
          for (const line of Map.groupBy(claimed, ({ id, line: of }) => of ?? id).values()) {
            active++
            yield* run(line)
          }
          // what is claimed may be followed by more
          if (claimed.length > 0 && active < atOnce) continue
          const nextMs = active >= atOnce ? pollMs : ((yield* timers.nextMs) ?? pollMs)
          yield* Effect.raceFirst(wake.await, Effect.sleep(Math.min(pollMs, Math.max(1, nextMs))))
        }
      })
      return yield* Effect.raceFirst(loop, signalled)
    })
  )
})
