// Policies as users declare them: they react to events with commands and timers. A policy is a projection, of which everything holds. Pure.
import type * as Duration from "effect/Duration"
import type { FailurePolicy } from "./failure-policy.ts"
import type { OneOrMore, Select } from "./fields.ts"
import type {
  Handler,
  HandlerError,
  Handlers,
  HandlerServices,
  Lookup,
  HandlerTarget,
  Unknown,
  Writable
} from "./handler.ts"
import { type EventOf, type KindOf, Projection } from "./projection.ts"
import type { Source } from "./topic.ts"

/** Declares policies. */
export const Policy = {
  /**
   * Declares a policy: a projection that reacts to events with commands (`out.send`) and timers (`out.timer`, `out.cancel`), which are stored
   * in the commit of its state and sent once each. `writes` lists the aggregates that it sends commands to, and the tables of its state. Everything
   * that works on projections works on it: versions, status, rebuilds (a build that follows sends nothing), dead letters. `Application.make` takes it
   * in `policies`.
   *
   * ```ts
   * const escalation = Policy.make({
   *   name: "escalation", version: 1, source: AlertCase, writes: [AlertCase],
   *   handle: {
   *     "case.opened": ({ at, case_id }, out) =>
   *       out.timer("escalate", { at: at + 900_000, send: [AlertCase, case_id, { type: "escalate", case_id, at: at + 900_000 }] }),
   *     "case.acknowledged": (_, out) => out.cancel("escalate")
   *   }
   * })
   * ```
   */
  make: <
    const Name extends string,
    const S extends OneOrMore<Source<any, any>>, // `any`: an event is whatever the source says
    const H extends Handler<EventOf<S>, W[number], En> | Handlers<EventOf<S>, W[number], En>,
    const W extends ReadonlyArray<HandlerTarget> = readonly [],
    En extends Record<string, unknown> = {}
  >(options: {
    /** The name of the policy, which status, dead letters and commands show. */
    readonly name: Name
    /** Starts at 1. A new version follows the running one, which alone sends commands, until it is promoted. */
    readonly version: number
    /** A topic or an aggregate, or several. */
    readonly source: S
    /** Ignores duplicates, see `Projection.make`. */
    readonly dedupe?: { readonly within: Duration.Input; readonly by?: Select<EventOf<S>, string> }
    /** Lookups in compacted topics, see `Projection.make`. */
    readonly enrich?: { readonly [K in keyof En]: Lookup<EventOf<S>, En[K]> }
    /** The aggregates that the policy sends commands to, the tables of its state, and what else it writes. Default: none. */
    readonly writes?: W
    /** What happens to an event whose handler fails. Default: it is parked as a dead letter. */
    readonly failure?: FailurePolicy
    /** Events dated more than this after their append to the log are parked. Default 1 hour. */
    readonly maxAhead?: Duration.Input
    /** One function, or one for each event type. */
    readonly handle: H & Unknown<H, EventOf<S>>
  }): Projection<Name, EventOf<S>, Extract<W[number], Writable>, HandlerError<H>, HandlerServices<H>, KindOf<S>> =>
    Projection.make({ writes: [], ...options } as never) as never
}
/** A policy: a projection that sends commands and sets timers. */
export type Policy<
  Name extends string,
  Ev,
  W extends Writable = never,
  E = never,
  R = never,
  Kind = "topic" | "aggregate"
> = Projection<Name, Ev, W, E, R, Kind>
