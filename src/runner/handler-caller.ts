// Calls a projection's handler for one event: looks up its reference data, and runs the Effect that the handler may return.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type { Projection } from "../model/projection.ts"
import type { Recorder } from "../model/recorder.ts"
import type { FailedEvent } from "./batch-dead-letters.ts"
import type { Origin } from "./fold.ts"
import type { LookupError, LookupTable } from "./lookup-tables.ts"

/** How a handler failed, and after how many attempts. */
export type HandlerFailure = Pick<FailedEvent, "error" | "cause" | "attempts">

/** Calls the handler of one projection. What the handler asks of `out` is appended to the recorder's log. */
export class HandlerCaller<E, R> {
  private readonly projection: Projection.Of<E, R>
  private readonly recorder: Recorder
  private readonly lookups: ReadonlyArray<{
    readonly name: string
    readonly table: LookupTable
    readonly by: Projection.Any["enrich"][string]["by"]
  }>
  private readonly tables: ReadonlySet<LookupTable>

  /** `lookupTables`: the tables of the projection's lookup topics, by topic. */
  constructor(projection: Projection.Of<E, R>, recorder: Recorder, lookupTables: ReadonlyMap<string, LookupTable>) {
    this.projection = projection
    this.recorder = recorder
    this.lookups = Object.entries(projection.enrich).map(([name, { by, topic }]) => ({
      name,
      by,
      table: lookupTables.get(topic.name)!
    }))
    this.tables = new Set(this.lookups.map(({ table }) => table))
  }

  /** Reads each lookup topic up to its present end, so that the next events see every value that was appended before them. */
  readonly catchUp: Effect.Effect<void, LookupError> = Effect.suspend(() =>
    Effect.forEach(this.tables, (table) => table.catchUp, { discard: true })
  )

  /** Calls the handler: undefined if it is done, the Effect that it returned, or how it failed. */
  call(event: unknown, meta: Origin): Effect.Effect<void, E, R> | HandlerFailure | undefined {
    const context: Record<string, unknown> = { meta }
    try {
      for (const { by, name, table } of this.lookups) {
        const key = by === undefined ? meta.key : by(event)
        context[name] = key === undefined ? undefined : table.get(key)
      }
      const done = this.projection.handle(event, this.recorder as never, context)
      return Effect.isEffect(done) ? done : undefined
    } catch (error) {
      // a plain handler fails the same way each time
      return { error, attempts: 1 }
    }
  }

  /**
   * Runs a handler's Effect, again after failures as the policy says. What a failed attempt recorded is undone: to the state before the
   * Effect between attempts, to the length `from` after the last.
   */
  run(effect: Effect.Effect<void, E, R>, from: number): Effect.Effect<HandlerFailure | undefined, never, R> {
    const { log } = this.recorder
    const recorded = log.length
    let attempts = 0
    const attempt = Effect.suspend(() => {
      attempts++
      log.length = recorded
      return effect
    })
    const { retry } = this.projection.failure
    const tried = Effect.sandbox(attempt)
    // a schedule's own functions may throw, too
    const retried = (schedule: NonNullable<typeof retry>) =>
      Effect.catchDefect(Effect.retry(tried, schedule), (defect) => Effect.fail<Cause.Cause<E>>(Cause.die(defect)))
    return (retry === undefined ? tried : retried(retry)).pipe(
      Effect.as(undefined),
      Effect.catch((cause: Cause.Cause<E>) => {
        // if the partition was taken away, nothing from here on runs: an interruption that is seen here is the handler's own
        log.length = from
        return Effect.succeed<HandlerFailure>({ error: Cause.squash(cause), cause, attempts })
      })
    )
  }
}
