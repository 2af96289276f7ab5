// Projections as users declare them: sources, a handler, what it writes to, and what happens to events that fail. Pure.
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import { shown } from "../text/text.ts"
import type { Aggregate } from "./aggregate.ts"
import { assertOptions, assertSelected, canBeText, refuse } from "./declaration.ts"
import { deadLetterTopics } from "./dead-letter-topic.ts"
import { assertFailurePolicy, type FailurePolicy } from "./failure-policy.ts"
import { remember, list, select, type Named, type One, type OneOrMore, type Select } from "./fields.ts"
import type {
  Handler,
  HandlerError,
  Handlers,
  HandlerServices,
  Lookup,
  LookupTime,
  Out,
  HandlerTarget,
  Unknown,
  Writable
} from "./handler.ts"
import { checkedCount, checkedDuration, invalidOption } from "./options.ts"
import { checkedRelationName } from "./read-model.ts"
import { hasFold } from "./window.ts"
import type { Source, Topic } from "./topic.ts"
import { assertHandler } from "./user-code.ts"

/** The events of a source, or of several. */
export type EventOf<S> = One<S> extends Source<infer Ev, any> ? Ev : never
/** Whether the sources are topics or aggregates. */
export type KindOf<S> = One<S> extends Source<any, infer K> ? K : never

/** A projection: what it reads, its handler, and what it writes. A value; runners decide when it runs (async, inline or live). */
export interface Projection<
  out Name extends string,
  in out Ev,
  out W extends Writable,
  out E = never,
  out R = never,
  out Kind = "topic" | "aggregate"
> {
  /** The name of the projection. */
  readonly name: Name
  /** The version that the code declares, from 1. */
  readonly version: number
  /** The topics and aggregates that it reads. */
  readonly sources: ReadonlyArray<Source<Ev, any> & { readonly kind: Kind }>
  /** The tables, windows and topics that its handlers write to. */
  readonly writes: ReadonlyArray<W>
  /** The aggregates that its handler sends commands to, at once or by timers. They are listed in `writes` where it is declared. */
  readonly sends: ReadonlyArray<Aggregate.Any>
  /** How duplicates are recognised; undefined: they are not. */
  readonly dedupe: { readonly by: ((event: Ev) => string) | undefined; readonly withinMs: number } | undefined
  /** The lookups by name. */
  readonly enrich: Readonly<
    Record<
      string,
      {
        readonly topic: Topic.Any
        readonly by: ((event: Ev) => string | undefined) | undefined
        readonly asOf: LookupTime
      }
    >
  >
  /** What happens to an event whose handler fails. */
  readonly failure: FailurePolicy
  /** Events dated more than this after their append to the log are parked and do not advance stream time. Milliseconds. */
  readonly maxAheadMs: number
  /** Handles one event. */
  readonly handle: (event: Ev, out: Out<never>, context: object) => void | Effect.Effect<void, E, R>
}
export declare namespace Projection {
  /** A projection with any name, events and read models, whose handlers have these errors and services. */
  type Of<E, R> = Projection<string, any, any, E, R, any>
  /** Any projection. */
  type Any = Projection<string, any, any, any, any, any>
  /** The union of the events that a projection handles. */
  type Event<P> = P extends Projection<string, infer Ev, any, any, any, any> ? Ev : never
  /** The errors of a projection's handlers. */
  type Error<P> = P extends Projection<string, any, any, infer E, any, any> ? E : never
  /** The services that a projection's handlers need. */
  type Services<P> = P extends Projection<string, any, any, any, infer R, any> ? R : never
}
const projectionOptions = ["name", "version", "source", "writes", "handle", "dedupe", "enrich", "failure", "maxAhead"]
/** Throws `InvalidDeclaration` if a target of `writes` is none. */
const assertWrites = (name: string, writes: ReadonlyArray<HandlerTarget>) => {
  const what = `projection ${name}: \`writes\``
  if (!Array.isArray(writes))
    refuse(what, `it is ${shown(writes)}; list the tables, windows, topics and aggregates that the handler writes to`)
  for (const [i, target] of (writes as ReadonlyArray<Partial<HandlerTarget> | undefined>).entries())
    if (!["table", "window", "topic", "aggregate"].includes(target?.kind as string))
      refuse(
        what,
        `its element ${i} is ${shown(target?.name ?? target)}, which is no table, window, topic or aggregate`
      )
}
/** Throws `InvalidDeclaration` for sources, lookups and windows with which no event could be processed. */
const assertProjection = (
  name: string,
  sources: ReadonlyArray<Topic.Any>,
  { dedupe, enrich = {}, failure, handle, writes }: Parameters<typeof project>[0]
) => {
  const what = `projection ${name}`
  if (sources.length === 0) refuse(what, "it has no source; name at least one topic")
  for (const source of sources as ReadonlyArray<Partial<Topic.Any> | undefined>)
    if (!["topic", "aggregate"].includes(source?.kind as string))
      refuse(
        what,
        `the source ${shown(source?.name ?? source)} is no topic and no aggregate; use what \`Topic.events\` declares`
      )
  const shapes = sources.flatMap((source) => source.shapes ?? [])
  if (dedupe !== undefined) {
    assertOptions(`${what}: \`dedupe\``, dedupe, ["by", "within"], ["within"])
    assertSelected(`${what}: \`dedupe.by\``, dedupe.by, shapes, "text")
  }
  if (failure !== undefined)
    assertOptions(`${what}: \`failure\``, failure, ["retry", "then", "order", "haltAfter", "deadLetterTopic"])
  for (const [lookup, value] of Object.entries(enrich) as ReadonlyArray<
    [string, Partial<Topic.Any> & { by?: unknown; asOf?: unknown; topic?: Topic.Any }]
  >) {
    if (lookup === "meta" || lookup === "replaying")
      refuse(`${what}: \`enrich.${lookup}\``, `handlers find something else under that name; choose another one`)
    const topic = value?.topic ?? value
    if (topic?.kind !== "topic" || topic.compacted !== true)
      refuse(`${what}: \`enrich.${lookup}\``, "it is no compacted topic; declare the topic with `Topic.compacted`")
    if (value.topic === undefined) continue
    assertOptions(`${what}: \`enrich.${lookup}\``, value, ["topic", "by", "asOf"], ["topic"])
    if (value.by !== undefined) assertSelected(`${what}: \`enrich.${lookup}.by\``, value.by, shapes, "text")
    if (value.asOf !== undefined && value.asOf !== "appendTime" && value.asOf !== "eventTime")
      refuse(
        `${what}: \`enrich.${lookup}.asOf\``,
        `it is ${shown(value.asOf)}; it must be "appendTime" (the newest value when the event was appended) or "eventTime" (the value that was valid at the event's time)`
      )
  }
  const types = sources.flatMap((source) => source.types ?? [])
  const unknown =
    typeof handle === "object" && handle !== null
      ? Object.keys(handle).find((type) => !types.includes(type))
      : undefined
  if (unknown !== undefined && sources.every((source) => source.types !== undefined))
    refuse(
      what,
      `there is a handler for \`${unknown}\`, which is no event type of its sources; they have ${types.join(", ")}`
    )
  // only an event's key can be compared with a row's, and it is a text
  for (const target of writes)
    if (
      target.kind === "window" &&
      sources.every(({ kind }) => kind === "topic") &&
      (target.topic !== undefined || hasFold(target))
    )
      if (!target.key.some((column) => canBeText(target.keyFields[column]!)))
        refuse(
          what,
          `${target.name} ${target.topic === undefined ? "has a fold" : "is published"}, so a column of its key must hold the event's key, which is a text; ` +
            `${target.key.length === 0 ? "its key has no column" : `${target.key.join(", ")} can hold none`}. Add a text column to its key`
        )
}
const lookupsOf = (name: string, enrich: object | undefined): Projection.Any["enrich"] =>
  Object.fromEntries(
    Object.entries(enrich ?? {}).map(([lookup, value]) => [
      lookup,
      "compacted" in value
        ? { topic: value, by: undefined, asOf: "appendTime" }
        : {
            topic: value.topic,
            by: value.by && select(`projection ${name}: \`by\` of the lookup ${lookup}`, value.by),
            asOf: value.asOf ?? "appendTime"
          }
    ])
  )
const project = (options: {
  readonly name: string
  readonly version: number
  readonly source: unknown
  readonly writes: ReadonlyArray<HandlerTarget>
  readonly dedupe?: { readonly by?: unknown; readonly within: Duration.Input }
  readonly enrich?: object
  readonly failure?: FailurePolicy
  readonly maxAhead?: Duration.Input
  readonly handle: unknown
}) => {
  const { dedupe, handle, name, version, writes } = options
  checkedRelationName("projection", name)
  assertOptions(`projection ${name}`, options, projectionOptions, ["version", "source", "writes"])
  checkedCount(`projection ${name}: version`, version, { least: 1 })
  // a schema's name has 63 bytes, 55 of them for the projection's
  if (version > 999_999) throw invalidOption(`projection ${name}: version`, version, "it must be at most 999999")
  assertHandlers(name, handle)
  assertWrites(name, writes)
  for (const [i, target] of writes.entries()) {
    if (writes.findIndex((other) => other.name === target.name) < i) {
      throw new Error(
        `projection ${name} lists ${target.name} twice in \`writes\`; remove one, or rename one of the two`
      )
    }
  }
  const sources = list(options.source as OneOrMore<Topic.Any>)
  assertProjection(name, sources, options)
  if (dedupe !== undefined && dedupe.by === undefined) {
    // the log has each event of an aggregate once, by the id of its command
    const nameless = sources.find(({ idOf, kind }) => idOf === undefined && (kind as string) !== "aggregate")
    if (nameless !== undefined) {
      throw new Error(
        `projection ${name} deduplicates topic ${nameless.name}, which declares no \`id\`; declare the topic's \`id\`, or \`dedupe.by\``
      )
    }
  }
  const failure = options.failure ?? {}
  assertFailurePolicy(name, failure)
  deadLetterTopics({ name, failure, sources }) // throws if a topic's name is invalid
  return {
    name,
    version,
    writes: writes.filter(({ kind }) => kind !== "aggregate"),
    sends: writes.filter(({ kind }) => kind === "aggregate"),
    sources,
    dedupe: dedupe && {
      by: dedupe.by && select(`projection ${name}: \`dedupe.by\``, dedupe.by as string),
      withinMs: checkedDuration(`projection ${name}: dedupe.within`, dedupe.within)
    },
    enrich: lookupsOf(name, options.enrich),
    failure,
    maxAheadMs: checkedDuration(`projection ${name}: maxAhead`, options.maxAhead ?? "1 hour"),
    handle:
      typeof handle === "function"
        ? handle
        : remember((event: Named, out: never, context: object) => {
            const handlers = handle as Handlers<Named, never, {}>
            return Object.hasOwn(handlers, event.type)
              ? handlers[event.type]?.(event, out, context as never)
              : undefined
          }, handle)
  } as never
}
/** Throws an `Error` if there is no handler, or one whose result nothing would wait for. */
const assertHandlers = (projection: string, handle: unknown): void => {
  if (typeof handle !== "object" || handle === null)
    return assertHandler(`projection ${projection}: the handler`, handle)
  for (const [type, handler] of Object.entries(handle)) {
    if (handler !== undefined) assertHandler(`projection ${projection}: the handler of ${type}`, handler)
  }
}
/** Declares projections, and when they run. */
export const Projection = {
  /**
   * Declares a projection. All types are inferred from the values; `E` and `R` are the errors and services of the Effects that handlers
   * return. Throws `InvalidName` or an `Error` if the declaration is not consistent.
   *
   * ```ts
   * const departures = Projection.make({
   *   name: "departures", version: 1, source: Flights, writes: [Departures],
   *   handle: { "flight.departed": (event, out) => out.upsert(Departures, { flight: event.flight, at: event.at }) }
   * })
   * ```
   */
  make: <
    const Name extends string,
    const S extends OneOrMore<Source<any, any>>, // `any`: an event is whatever the source says
    const W extends ReadonlyArray<HandlerTarget>,
    const H extends Handler<EventOf<S>, W[number], En> | Handlers<EventOf<S>, W[number], En>,
    En extends Record<string, unknown> = {}
  >(options: {
    /** The name: at most 55 lower-case letters, digits and _, beginning with a letter. It names the schema of the tables and the consumer group. */
    readonly name: Name
    /** Starts at 1. A new version is built beside the running one and then promoted. */
    readonly version: number
    /** A topic or an aggregate, or several; each is read at its own pace, in order within a partition. */
    readonly source: S
    /**
     * Ignores duplicates: events with the id of an earlier record of the same partition and tenant, whose event times differ by no more than
     * `within`. `by` selects the id; by default it is the topic's `id`.
     */
    readonly dedupe?: { readonly within: Duration.Input; readonly by?: Select<EventOf<S>, string> }
    /**
     * Lookups in compacted topics, which are read in full before the first event: a topic alone looks up the event's key, `{ topic, by }` another
     * field or what a function returns. The handler gets each value by its name here, or undefined where its key has none. An event sees the
     * values that the log had stored before it.
     */
    readonly enrich?: { readonly [K in keyof En]: Lookup<EventOf<S>, En[K]> }
    /** The tables, windows and topics that the handler writes to, and the aggregates that it sends commands to. */
    readonly writes: W
    /** What happens to an event whose handler fails. Default: it is parked as a dead letter, without a retry. */
    readonly failure?: FailurePolicy
    /** Events dated more than this after their append to the log are parked. Default 1 hour. */
    readonly maxAhead?: Duration.Input
    /** One function, or one for each event type. It is synchronous, or returns an Effect. */
    readonly handle: H & Unknown<H, EventOf<S>>
  }): Projection<Name, EventOf<S>, Extract<W[number], Writable>, HandlerError<H>, HandlerServices<H>, KindOf<S>> =>
    project(options),
  /**
   * Runs the projection behind the log, each partition in one process at a time.
   *
   * ```ts
   * const application = Application.make({ name: "flights", projections: [Projection.async(departures)] })
   * ```
   */
  async: <E, R>(projection: Projection<string, any, any, E, R, any>): Run<E, R> => ({ lifecycle: "async", projection })
}
/**
 * A projection, and when it runs: `async` behind the log, `inline` in the statement that appends, `live` not at all: its rows are folded from
 * the event store when they are read.
 */
export interface Run<out E, out R> {
  /** When the projection runs. */
  readonly lifecycle: "async" | "inline" | "live"
  /** The projection that runs. */
  readonly projection: Projection<string, any, any, E, R, any>
}
/** The rows of a projection's tables and windows, by name. */
export type Rows<W> = {
  readonly [
    T in Extract<W, { readonly Row: object }> as T extends { readonly name: infer N extends string } ? N : never
  ]: ReadonlyArray<T["Row"]>
}
