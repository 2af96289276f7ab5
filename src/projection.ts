// `Projection` as users have it: the model's, and `live`, which runs one over events in memory.
import type { Writable } from "./model/handler.ts"
import * as Model from "./model/projection.ts"
import { live } from "./runner/in-memory.ts"

/** A projection is a value: what it reads, what it writes, and a handler. Runners decide when it runs: async, inline or live. */
export type Projection<
  Name extends string,
  Ev,
  W extends Writable,
  E = never,
  R = never,
  Kind = "topic" | "aggregate"
> = Model.Projection<Name, Ev, W, E, R, Kind>
export declare namespace Projection {
  /** A projection with handlers of these errors and services. */
  type Of<E, R> = Model.Projection.Of<E, R>
  /** Any projection. */
  type Any = Model.Projection.Any
  /** The events that a projection handles. */
  type Event<P> = Model.Projection.Event<P>
  /** What its handlers fail with. */
  type Error<P> = Model.Projection.Error<P>
  /** The services that its handlers need. */
  type Services<P> = Model.Projection.Services<P>
}
export const Projection = {
  ...Model.Projection,
  /** Processes events at once and returns the rows; nothing is stored or published. Throws the first error of a handler. */
  live
}
