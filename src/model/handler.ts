// Handlers: what they receive (an event, `out`, the context with lookups) and what they may return. Types only.
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { Aggregate } from "./aggregate.ts"
import type { Member, Named, Select, Simplify } from "./fields.ts"
import type { Table } from "./read-model.ts"
import type { Compacted, Topic } from "./topic.ts"
import type { Window } from "./window.ts"

/** What a projection stores or publishes. */
export type Writable = Table.Any | Window.Any | Topic.Any
/** What `writes` may list: everything that a handler may give to `out`, the aggregates that it sends commands to included. */
export type HandlerTarget = Writable | Aggregate.Any
/** No constraint if the projection writes to `T`; otherwise a type whose text says what to do. */
type Listed<T, W> = T extends W ? unknown : "list it in the projection's `writes`"

/** Records a handler's changes, in the order of the calls and without I/O. They are committed with the batch, all or none. */
export interface Out<in W> {
  /**
   * Inserts a row, or replaces the row with its key. All columns are given; an optional one that is left out becomes null. `update` changes some of them.
   *
   * ```ts
   * const handle = (event: Topic.Value<typeof Flights>, out: Out<typeof Departures>) =>
   *   out.upsert(Departures, { flight: event.flight, at: event.at })
   * ```
   */
  upsert<T extends Table.Any>(table: T & Listed<T, W>, row: Table.Row<T>): void
  /**
   * Changes the given columns of the row with this key, if there is one; the other columns stay as they are. It never inserts a row.
   *
   * ```ts
   * const handle = (event: Topic.Value<typeof Flights>, out: Out<typeof Departures>) =>
   *   out.update(Departures, { flight: event.flight, at: event.at })
   * ```
   */
  update<T extends Table.Any>(table: T & Listed<T, W>, columns: Table.Patch<T>): void
  /** Deletes the row with this key, if there is one. */
  delete<T extends Table.Any>(table: T & Listed<T, W>, key: Table.Key<T>): void
  /**
   * Replaces a row by what `change` returns; `undefined` deletes it. `change` receives the row, or `undefined` if there is none. All rows of
   * a batch are read together. Only rows that one partition owns can be modified: a column of the table's key must hold the event's key.
   *
   * ```ts
   * const handle = (event: Topic.Value<typeof Flights>, out: Out<typeof Departures>) =>
   *   out.modify(Departures, { flight: event.flight }, (row) => ({
   *     flight: event.flight,
   *     at: Math.max(row?.at ?? 0, event.at)
   *   }))
   * ```
   */
  modify<T extends Table.Any>(
    table: T & Listed<T, W>,
    key: Table.Key<T>,
    change: (row: Table.Row<T> | undefined) => Table.Row<T> | undefined
  ): void
  /**
   * Contributes to the windows that contain the event's time: the columns of the key, and a contribution to every aggregate. A boolean
   * counts as 1 or 0 for `Agg.count`.
   *
   * ```ts
   * const handle = (event: Topic.Value<typeof Flights>, out: Out<typeof Activity>) =>
   *   out.add(Activity, { flight: event.flight, departures: event.type === "flight.departed" })
   * ```
   */
  add<T extends Window.Any>(window: T & Listed<T, W>, contribution: Window.Add<T>): void
  /** Publishes a message to a derived topic, exactly once, after the commit. It continues the event's trace. */
  publish<T extends Topic.Any>(topic: T & Listed<T, W>, value: Topic.Value<T>): void
  /**
   * Sends a command to an aggregate, once, after the commit. Commands of one partition to one stream of an aggregate are executed in their
   * order. A rejection is an answer: the command is not tried again.
   */
  send<A extends Aggregate.Any>(aggregate: A & Listed<A, W>, id: string, command: SentCommand<A>): void
  /**
   * Sets a timer: the command is sent at a time, or after a duration, once, unless the timer is cancelled or set again before. A timer belongs to the event's key: events of one key set and cancel the same timers.
   */
  timer<A extends Aggregate.Any>(name: string, timer: Timer<A, Listed<A, W>>): void
  /** Cancels the timer of this name that an event of the same key has set, if it waits. */
  cancel(name: string): void
}
/** A command for a stream of an aggregate. The field that has the stream's id may be left out. */
export type SentCommand<A> = Aggregate.Input<
  Aggregate.Command<A>,
  A extends Aggregate<string, any, any, any, unknown, infer Id> ? Id : never
>
/**
 * A command to send at a time: `at`, in epoch milliseconds (a time that is past is due at once), or so long `after` the commit, both by the
 * database's clock.
 */
export type Timer<A, Listed = unknown> = {
  /** The aggregate, the id of its stream, and the command. */
  readonly send: readonly [aggregate: A & Listed, id: string, command: SentCommand<A>]
} & (
  | {
      /** When the command is sent, in epoch milliseconds. */
      readonly at: number
      readonly after?: undefined
    }
  | {
      /** How long after the commit the command is sent. */
      readonly after: Duration.Input
      readonly at?: undefined
    }
)
/** An event's position in the log, its times (epoch milliseconds), tenant and trace id, and whether its personal fields are erased. */
export interface Meta {
  /** The topic or aggregate that the event is from. */
  readonly topic: string
  /** The partition that has the event. */
  readonly partition: number
  /** The event's position in the partition. */
  readonly position: number
  /** The event's key, by which the log is partitioned. */
  readonly key: string
  /** When the event happened: the topic's `eventTime`, or the record's timestamp. */
  readonly eventTime: number
  /**
   * The partition's stream time, this event included: the highest event time so far, where an event counts with the time at which the
   * log stored it if it is dated ahead of that.
   */
  readonly streamTime: number
  /** The tenant in the record's envelope. */
  readonly tenant: string | undefined
  /** The id of the trace that the event belongs to: 32 hex digits. */
  readonly traceId: string | undefined
  /**
   * Whether the event's personal fields were erased, so that they have their redacted values. A handler that writes what `subject.erased` leaves
   * behind gives the same rows in a replay, whichever of the two events comes first.
   */
  readonly erased: boolean
}
/**
 * Which value of a key an event sees. `appendTime`: the newest that the log stored before the event. `eventTime`: the one that was valid at the
 * event's time, which is the newest by event time that is not after the event's; of those that were stored when the event was processed.
 */
export type LookupTime = "appendTime" | "eventTime"
/**
 * A lookup in a compacted topic: by the event's key (the topic alone), or `by` another value of the event. Handlers receive the value, or
 * undefined if the topic has none.
 *
 * ```ts
 * const planes: Lookup<Topic.Value<typeof Flights>, Topic.Value<typeof Planes>> = { topic: Planes, by: (event) => event.flight }
 * ```
 */
export type Lookup<Ev, V> =
  | Compacted<string, V>
  | {
      readonly topic: Compacted<string, V>
      /** Default: the event's key. */
      readonly by?: Select<Ev, string> | ((event: Ev) => string | undefined)
      /** Default `appendTime`. */
      readonly asOf?: LookupTime
    }
/** What a handler receives besides its lookups. */
interface Context {
  /** Where the event is in the log, its times, tenant and trace. */
  readonly meta: Meta
  /**
   * Whether the event is processed for a build that follows the live one, as during `millrace rebuild`: nothing is published. Use it to
   * leave out side effects of a handler's own. It must not change what the handler asks of `out`, or a rebuild would give other rows; the
   * test kit runs a handler that reads it both ways, and fails if the rows differ.
   */
  readonly replaying: boolean
}
type Enriched<En> = Simplify<{ readonly [K in keyof En]: En[K] | undefined } & Context>
// `void | undefined`, for a bare `void` would let a nested Effect through; `any`: E and R are read off the handler's own type
type Done = void | Effect.Effect<void | undefined, any, any>
/** A handler of every event. */
export type Handler<Ev, W, En> = (event: Ev, out: Out<W>, context: Enriched<En>) => Done
/** Handlers by event type; events of other types are ignored. */
export type Handlers<Ev, W, En> = {
  readonly [T in Extract<Ev, Named>["type"]]?: (event: Member<Ev, T>, out: Out<W>, context: Enriched<En>) => Done
}
/** No constraint if every handler is named after an event type of the source; otherwise a type that names the wrong one. */
export type Unknown<H, Ev> = H extends (...args: never) => unknown
  ? unknown
  : { readonly [K in Exclude<keyof H, Extract<Ev, Named>["type"]>]: "not an event type of the projection's source" }
type Returned<H> = H extends (...args: never) => infer A
  ? A
  : { [K in keyof H]: H[K] extends (...args: never) => infer A ? A : never }[keyof H]
/** The errors of the Effects that a handler returns. */
export type HandlerError<H> =
  Returned<H> extends infer A ? (A extends Effect.Effect<any, infer E, any> ? E : never) : never
/** The services that the Effects of a handler need. */
export type HandlerServices<H> =
  Returned<H> extends infer A ? (A extends Effect.Effect<any, any, infer R> ? R : never) : never
