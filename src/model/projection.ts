// A projection is a value: what it reads, what it writes, a handler, and what becomes of events that fail. Runners decide when it runs.
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { deadLetterTopics } from "./dead-letter-topic.ts"
import type { FailurePolicy } from "./failure-policy.ts"
import { Driver } from "../runner/in-memory.ts"
import { list, millis, select, type Named, type One, type OneOrMore, type Select } from "./fields.ts"
import type { Handler, HandlerError, Handlers, HandlerServices, Lookup, Out, Unknown, Writable } from "./handler.ts"
import { checkedName } from "./read-model.ts"
import type { Source, Topic } from "./topic.ts"

type EventOf<S> = One<S> extends Source<infer Ev, any> ? Ev : never
type KindOf<S> = One<S> extends Source<any, infer K> ? K : never

/** A projection is a value: what it reads, what it writes, and a handler. Runners decide when it runs: async, inline or live. */
export interface Projection<
  out Name extends string,
  in out Ev,
  out W extends Writable,
  out E = never,
  out R = never,
  out Kind = "topic" | "aggregate"
> {
  readonly name: Name
  readonly version: number
  readonly sources: ReadonlyArray<Source<Ev, any> & { readonly kind: Kind }>
  readonly writes: ReadonlyArray<W>
  readonly dedupe: { readonly by: ((event: Ev) => string) | undefined; readonly withinMs: number } | undefined
  readonly enrich: Readonly<
    Record<string, { readonly topic: Topic.Any; readonly by: ((event: Ev) => string | undefined) | undefined }>
  >
  readonly failure: FailurePolicy
  /** Events dated further than this beyond their arrival in the log are parked and do not move stream time. Milliseconds. */
  readonly maxAheadMs: number
  readonly handle: (event: Ev, out: Out<never>, context: object) => void | Effect.Effect<void, E, R>
}
export declare namespace Projection {
  /** Of any name, events and writes. */
  type Of<E, R> = Projection<string, any, any, E, R, any>
  type Any = Projection<string, any, any, any, any, any>
  type Event<P> = P extends Projection<string, infer Ev, any, any, any, any> ? Ev : never
  type Error<P> = P extends Projection<string, any, any, infer E, any, any> ? E : never
  type Services<P> = P extends Projection<string, any, any, any, infer R, any> ? R : never
}
const project = (options: {
  readonly name: string
  readonly version: number
  readonly source: unknown
  readonly writes: ReadonlyArray<Writable>
  readonly dedupe?: { readonly by?: unknown; readonly within: Duration.Input }
  readonly enrich?: object
  readonly failure?: FailurePolicy
  readonly maxAhead?: Duration.Input
  readonly handle: unknown
}) => {
  const { dedupe, handle, name, version, writes } = options
  checkedName("projection", name)
  if (!(Number.isInteger(version) && version >= 1)) {
    throw new Error(`projection ${name}: version is ${version}, it must be a whole number from 1`)
  }
  for (const [i, target] of writes.entries()) {
    if (writes.findIndex((other) => other.name === target.name) < i) {
      throw new Error(`projection ${name} writes ${target.name} twice; give one of the two another name`)
    }
  }
  const sources = list(options.source as OneOrMore<Topic.Any>)
  if (dedupe !== undefined && dedupe.by === undefined) {
    const nameless = sources.find(({ idOf }) => idOf === undefined)
    if (nameless !== undefined) {
      throw new Error(
        `projection ${name} dedupes ${nameless.name}, which has no id; give the topic an \`id\`, or \`dedupe\` a \`by\``
      )
    }
  }
  const failure = options.failure ?? {}
  if (failure.order !== undefined && (failure.then ?? "park") !== "park") {
    throw new Error(`projection ${name}: only parked events wait for their key's; leave out \`order\`, or \`then\``)
  }
  deadLetterTopics({ name, failure, sources }) // throws where no topic can have the name
  return {
    name,
    version,
    writes,
    sources,
    dedupe: dedupe && { by: dedupe.by && select(dedupe.by as string), withinMs: millis(dedupe.within) },
    enrich: Object.fromEntries(
      Object.entries(options.enrich ?? {}).map(([lookup, value]) => [
        lookup,
        "compacted" in value ? { topic: value, by: undefined } : { topic: value.topic, by: select(value.by) }
      ])
    ),
    failure,
    maxAheadMs: millis(options.maxAhead ?? "1 hour"),
    handle:
      typeof handle === "function"
        ? handle
        : (event: Named, out: never, context: object) => {
            const handlers = handle as Handlers<Named, never, {}>
            return Object.hasOwn(handlers, event.type) ? handlers[event.type]!(event, out, context as never) : undefined
          }
  } as never
}
export const Projection = {
  /** Everything is inferred from the values given; `E` and `R` are those of the Effects that handlers return. */
  make: <
    const Name extends string,
    const S extends OneOrMore<Source<any, any>>, // `any`: an event is whatever the source says
    const W extends ReadonlyArray<Writable>,
    const H extends Handler<EventOf<S>, W[number], En> | Handlers<EventOf<S>, W[number], En>,
    En extends Record<string, unknown> = {}
  >(options: {
    readonly name: Name
    /** A new version is built beside the live one and promoted. */
    readonly version: number
    /** Topics or aggregates; several are read each at its own pace, in order within a partition. */
    readonly source: S
    /**
     * An event with an id that an earlier record of its partition and tenant had, dated `within` this time of it, is not handled
     * again. `by` defaults to the topic's `id`.
     */
    readonly dedupe?: { readonly within: Duration.Input; readonly by?: Select<EventOf<S>, string> }
    /** Compacted topics, read in full before the first event. */
    readonly enrich?: { readonly [K in keyof En]: Lookup<EventOf<S>, En[K]> }
    /** Tables, windows and topics that the handler writes to. */
    readonly writes: W
    /** What becomes of an event whose handler fails. Default: no retry, parked as a dead letter. */
    readonly failure?: FailurePolicy
    /** Events dated further than this beyond their arrival are parked. Default 1 hour. */
    readonly maxAhead?: Duration.Input
    /** Plain and synchronous, or an Effect. Either one function, or one per event type. */
    readonly handle: H & Unknown<H, EventOf<S>>
  }): Projection<Name, EventOf<S>, W[number], HandlerError<H>, HandlerServices<H>, KindOf<S>> => project(options),
  /** Runs behind the log, with the epoch fence. */
  async: <E, R>(projection: Projection<string, any, any, E, R>): Run<E, R> => ({ lifecycle: "async", projection }),
  /** Runs in the transaction that appends. Only aggregates have one. */
  inline: <E, R>(projection: Projection<string, any, any, E, R, "aggregate">): Run<E, R> => ({
    lifecycle: "inline",
    projection
  }),
  /** Folds events now and returns the rows; nothing is stored or published. */
  live: <Ev, W extends Writable>(
    projection: Projection<string, Ev, W>,
    events: ReadonlyArray<NoInfer<Ev>>
  ): Rows<W> => {
    const driver = new Driver(projection)
    Effect.runSync(driver.batch(events))
    return driver.rows() as Rows<W>
  }
}
/** A projection and when it runs. */
export interface Run<out E, out R> {
  readonly lifecycle: "async" | "inline"
  readonly projection: Projection<string, any, any, E, R, any>
}
/** The rows of a projection's tables and windows, by name. */
export type Rows<W> = {
  readonly [
    T in Extract<W, { readonly Row: object }> as T extends { readonly name: infer N extends string } ? N : never
  ]: ReadonlyArray<T["Row"]>
}
