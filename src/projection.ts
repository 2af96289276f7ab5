// `Projection` as users have it: the model's, with the ways in which one runs, and reads that fold one over events in memory.
import { refuse } from "./model/declaration.ts"
import type { Writable } from "./model/handler.ts"
import * as Model from "./model/projection.ts"
import { rekey } from "./model/rekey.ts"
import { definitionProblem, inlineProblem } from "./model/unsupported.ts"
import { live as foldNow } from "./runner/in-memory.ts"
import { readLive } from "./aggregate/live.ts"

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

const inline = <Ev, W extends Writable>(
  projection: Model.Projection<string, Ev, W, never, never, "aggregate">
): Model.Run<never, never> => {
  const problem = inlineProblem(projection)
  if (problem !== undefined) refuse(`projection ${projection.name}`, `it cannot run inline: ${problem}`)
  return { lifecycle: "inline", projection }
}

interface Live {
  /** Declares that nothing of the projection is stored: its rows are folded when they are read, by `Projection.read`. For projections of one aggregate. */
  <Ev, W extends Writable, E, R>(projection: Model.Projection<string, Ev, W, E, R, "aggregate">): Model.Run<E, R>
  /** Processes events at once and returns the rows; nothing is stored or published. Throws the first error of a handler. */
  <Ev, W extends Writable>(
    projection: Model.Projection<string, Ev, W>,
    events: ReadonlyArray<NoInfer<Ev>>
  ): Model.Rows<W>
}
const live = ((projection: Model.Projection<string, unknown, Writable>, events?: ReadonlyArray<unknown>) => {
  if (events !== undefined) return foldNow(projection, events)
  const problem = definitionProblem(projection)
  if (problem !== undefined) refuse(`projection ${projection.name}`, problem)
  const [sent] = projection.sends
  if (sent !== undefined)
    refuse(
      `projection ${projection.name}`,
      `it sends commands to ${sent.name}, which nothing does when it is read; run it with \`Projection.async\``
    )
  return { lifecycle: "live", projection } satisfies Model.Run<never, never>
}) as Live

/** Declares projections (`make`), says when they run (`async`, `inline`, `live`), and reads live ones (`read`). */
export const Projection = {
  ...Model.Projection,
  /**
   * Runs the projection in the statement that appends the events: a reader sees its rows as soon as a command is answered. If a handler fails, the
   * command fails and nothing is appended. For projections of one aggregate, whose handlers are synchronous. Throws `InvalidDeclaration` if the
   * projection needs what an append does not have: several sources, lookups, `dedupe`, published topics, or windows that close.
   */
  inline,
  /**
   * With a projection alone: declares that nothing of it is stored, and that `Projection.read` folds its rows when they are read. With events as
   * well: processes them at once and returns the rows; nothing is stored or published.
   */
  live,
  /**
   * Declares a topic that has the events of several aggregates and topics under keys of your choice, and the projection that publishes them there,
   * each exactly once. A projection that reads the topic has all events of a key in one partition, so it can use `out.modify`, folds and windows that are
   * published. The events keep their times, tenants and traces. Throws `InvalidDeclaration` if a field does not exist, or if an event type has
   * personal fields, which would be readable in the topic.
   *
   * ```ts
   * const byOrder = Projection.rekey({
   *   name: "by_order", version: 1, source: [Order, Payment],
   *   key: { "order.placed": "order_id", "payment.received": ({ invoice }) => invoice.order_id }
   * })
   * ```
   */
  rekey,
  /** Folds the events of one stream, or those with some tags, into the projection's rows, and stores nothing. */
  read: readLive
}
