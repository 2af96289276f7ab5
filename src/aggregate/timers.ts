// The port of timers: commands for aggregates that wait for their time or their turn, and who executes each. PostgreSQL is its adapter.
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

/** A command that a worker has claimed. */
export interface DueCommand {
  /** A UUID: the id of the timer, and of the command. */
  readonly id: string
  /** The projection or policy whose handler asked for it. */
  readonly projection: string
  /** The name of the timer; undefined: the command was sent at once. */
  readonly timer: string | undefined
  /** Commands with the same line are executed one after another, in the order in which they are claimed. Undefined: it is in none. */
  readonly line: string | undefined
  readonly aggregate: string
  readonly stream: string
  /** JSON text. */
  readonly command: string
  /** How often it failed. */
  readonly failures: number
  readonly tenant: string | undefined
  readonly traceparent: string | undefined
  readonly correlationId: string
  readonly causationId: string
}
/** The timers could not be read or changed. The same call may succeed later. */
export class TimersError extends Schema.TaggedError<TimersError>()("TimersError", {
  operation: Schema.Literals(["claim", "remove", "postpone", "next", "listen"]),
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `timers: ${this.operation} failed: ${this.reason}`
  }
}

/** How long a claim lasts, in milliseconds: then another worker may claim the command. */
export const leaseMs = 10_000

/** Commands that wait. Any number of workers share them. */
export class Timers extends Context.Service<
  Timers,
  {
    /**
     * Claims commands that are due, for `leaseMs`: at most `most` that are first in their lines, and some that follow them there. A claim
     * keeps workers from doing the same; that a command is executed once does not rest on it.
     */
    readonly claim: (most: number) => Effect.Effect<ReadonlyArray<DueCommand>, TimersError>
    /** Removes a command that was answered without events. Does nothing if it is gone. */
    readonly remove: (id: string) => Effect.Effect<void, TimersError>
    /** Gives claimed commands back: they may be claimed again after `ms`. `failure`: the first of them failed, and why. */
    readonly postpone: (ids: ReadonlyArray<string>, ms: number, failure?: string) => Effect.Effect<void, TimersError>
    /** In how many milliseconds the next command may be claimed; undefined if none waits. */
    readonly nextMs: Effect.Effect<number | undefined, TimersError>
    /** Listens until the scope closes: the effect waits until a command was stored that is due soon. */
    readonly signals: Effect.Effect<Effect.Effect<void>, TimersError, Scope.Scope>
  }
>()("millrace/Timers") {}
