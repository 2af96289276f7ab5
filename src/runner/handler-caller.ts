// Calls a projection's handler for one event with its lookups, and runs the Effect that the handler may return.
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { invalidOption } from "../model/options.ts"
import type { Projection } from "../model/projection.ts"
import { Recorder, type Entries } from "../model/recorder.ts"
import { handlerResult } from "../model/user-code.ts"
import type { Samplers } from "./behaviour.ts"
import type { FailedEvent } from "./batch-dead-letters.ts"
import { type LookedUp, LookupFailure } from "./batch-lookups.ts"
import { inOwnFiber } from "./own-fiber.ts"
import type { Origin } from "./prepared-changes.ts"
import { attributed, eventText, runAs } from "./running-code.ts"

/** How a handler failed, and after how many attempts. */
export type HandlerFailure = Pick<FailedEvent, "error" | "cause" | "attempts">

/** A handler's Effect is attempted at most so often, whatever the retry policy says: later events of its partition wait for it. */
export const mostAttempts = 1_000

/** An Effect that a handler returned, with the recorder that it writes to. */
export class RunningHandler<E, R> {
  readonly effect: Effect.Effect<void, E, R>
  readonly recorder: Recorder
  readonly describe: () => string

  constructor(effect: Effect.Effect<void, E, R>, recorder: Recorder, describe: () => string) {
    this.effect = effect
    this.recorder = recorder
    this.describe = describe
  }
}

/** Calls the handler of one projection. What the handler asks of `out` is appended to `log`. */
export class HandlerCaller<E, R> {
  private readonly projection: Projection.Of<E, R>
  private readonly log: Entries
  private readonly lookups: ReadonlyArray<string>
  private readonly isReplaying: boolean
  private readonly samplers: Samplers | undefined

  /** `isReplaying`: what handlers read as `replaying`. */
  constructor(projection: Projection.Of<E, R>, log: Entries, isReplaying = false, samplers?: Samplers) {
    this.samplers = samplers
    this.projection = projection
    this.log = log
    this.isReplaying = isReplaying
    this.lookups = Object.keys(projection.enrich)
  }

  /**
   * Calls the handler: undefined if it is done, the Effect that it returned, or how it failed. `lookedUp` has the values of the event's
   * lookups; undefined if the projection has none.
   */
  call(event: unknown, meta: Origin, lookedUp: LookedUp = []): RunningHandler<E, R> | HandlerFailure | undefined {
    if (lookedUp instanceof LookupFailure) return { error: lookedUp.error, attempts: 1 }
    const describe = () => eventText(this.projection, meta)
    const recorder = new Recorder(this.log, describe)
    const from = this.log.length
    const sampler = this.samplers?.get(this.projection)
    const draft = sampler?.begin(event, meta, lookedUp)
    try {
      const effect = runAs(describe, () =>
        handlerResult(this.projection.handle(event, recorder as never, this.contextOf(meta, lookedUp)))
      )
      if (effect !== undefined) return new RunningHandler(effect as Effect.Effect<void, E, R>, recorder, describe)
      recorder.close()
      if (draft !== undefined) sampler?.end(draft, this.log.slice(from))
      return undefined
    } catch (error) {
      recorder.close()
      // a plain handler fails the same way each time
      return { error, attempts: 1 }
    }
  }
  private contextOf(meta: Origin, lookedUp: ReadonlyArray<unknown>): object {
    const context: Record<string, unknown> = { meta, replaying: this.isReplaying }
    for (let i = 0; i < this.lookups.length; i++) context[this.lookups[i]!] = lookedUp[i]
    return context
  }

  /**
   * Runs a handler's Effect, again after failures as the policy says. What a failed attempt recorded is undone: to the state before the
   * Effect between attempts, to the length `from` after the last.
   */
  run(
    { describe, effect, recorder }: RunningHandler<E, R>,
    from: number
  ): Effect.Effect<HandlerFailure | undefined, never, R> {
    const { log } = this
    const recorded = log.length
    let attempts = 0
    const own = inOwnFiber(attributed(describe, effect))
    const attempt = Effect.suspend(() => {
      attempts++
      log.length = recorded
      return own
    })
    const { retry } = this.projection.failure
    let failed: Cause.Cause<unknown> = Cause.empty
    // the schedule's input is the error itself, so that it may depend on its tag
    const tried = Effect.catchCause(attempt, (cause) => {
      failed = cause
      return Effect.fail(Cause.squash(cause))
    })
    // a schedule's own functions may throw, too
    const retried = (schedule: NonNullable<typeof retry>) =>
      Effect.catchDefect(
        Effect.retry(tried, Schedule.upTo(this.ending(schedule), { times: mostAttempts - 1 })),
        (defect) => {
          failed = Cause.die(defect)
          return Effect.fail(defect)
        }
      )
    return (retry === undefined ? tried : retried(retry)).pipe(
      Effect.as(undefined),
      Effect.catch((error) => {
        // if the partition was taken away, nothing from here on runs: an interruption that is seen here is the handler's own
        log.length = from
        return Effect.succeed<HandlerFailure>({ error, cause: failed, attempts })
      }),
      Effect.ensuring(Effect.sync(() => recorder.close()))
    )
  }

  /** The schedule, but a delay without an end fails the event: its partition would wait for ever, without a word. */
  private ending(schedule: NonNullable<Projection.Any["failure"]["retry"]>) {
    const what = `projection ${this.projection.name}: a delay of failure.retry`
    return Schedule.modifyDelay(schedule, ({ duration }) =>
      Duration.isFinite(duration)
        ? Effect.succeed(duration)
        : Effect.die(invalidOption(what, duration, "its partition would wait for ever; make it finite"))
    )
  }
}
