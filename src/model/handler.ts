// What a handler is given and what it may return: the event, its enrichment, and `out`, which records changes and does nothing else.
import type * as Effect from "effect/Effect"
import type { Member, Named, Select, Simplify } from "./fields.ts"
import type { Table } from "./read-model.ts"
import type { Compacted, Topic } from "./topic.ts"
import type { Window } from "./window.ts"

/** What a projection writes to. */
export type Writable = Table.Any | Window.Any | Topic.Any
/** Nothing where the projection writes to `T`; otherwise a type that tells the reader what to do. */
type Listed<T, W> = T extends W ? unknown : "list it in the projection's `writes`"

/** Takes a handler's changes and does nothing else: no I/O, no order but the calls' own. They are committed with the batch, or not at all. */
export interface Out<in W> {
  /** Inserts the row, or replaces the one with its key. */
  upsert<T extends Table.Any>(table: T & Listed<T, W>, row: Table.Row<T>): void
  /** Changes the given columns of the row with this key, if there is one. */
  update<T extends Table.Any>(table: T & Listed<T, W>, columns: Table.Patch<T>): void
  /** Deletes the row with this key, if there is one. */
  delete<T extends Table.Any>(table: T & Listed<T, W>, key: Table.Key<T>): void
  /**
   * Replaces the row by what `change` makes of it (`undefined`: none). The rows of a batch are read together. For keys that one
   * partition owns: a column of the table's key must hold the event's key.
   */
  modify<T extends Table.Any>(
    table: T & Listed<T, W>,
    key: Table.Key<T>,
    change: (row: Table.Row<T> | undefined) => Table.Row<T> | undefined
  ): void
  /** Contributes to the windows that the event's time falls in. */
  add<T extends Window.Any>(window: T & Listed<T, W>, contribution: Window.Add<T>): void
  /** Publishes after the commit, exactly once. The event's trace goes with it. */
  publish<T extends Topic.Any>(topic: T & Listed<T, W>, value: Topic.Value<T>): void
}
/** Where an event stands in its log, and when. Times are epoch milliseconds. */
export interface Meta {
  readonly topic: string
  readonly partition: number
  readonly position: number
  readonly key: string
  readonly eventTime: number
  /** The highest event time of the partition so far, this event's included. */
  readonly streamTime: number
  readonly tenant: string | undefined
  readonly traceId: string | undefined
}
/** A lookup by the event's own key (just the topic), or by another value of the event. */
export type Lookup<Ev, V> =
  | Compacted<string, V>
  | {
      readonly topic: Compacted<string, V>
      readonly by: Select<Ev, string> | ((event: Ev) => string | undefined)
    }
type Enriched<En> = Simplify<{ readonly [K in keyof En]: En[K] | undefined } & { readonly meta: Meta }>
// `void | undefined`, for a bare `void` would let a nested Effect through; `any`: E and R are read off the handler's own type
type Done = void | Effect.Effect<void | undefined, any, any>
/** Handles every event. */
export type Handler<Ev, W, En> = (event: Ev, out: Out<W>, context: Enriched<En>) => Done
/** Handles events by type; other types are passed over. */
export type Handlers<Ev, W, En> = {
  readonly [T in Extract<Ev, Named>["type"]]?: (event: Member<Ev, T>, out: Out<W>, context: Enriched<En>) => Done
}
/** Nothing where every handler's name is an event type of the source; otherwise a type that says which is not. */
export type Unknown<H, Ev> = H extends (...args: never) => unknown
  ? unknown
  : { readonly [K in Exclude<keyof H, Extract<Ev, Named>["type"]>]: "not an event type of the projection's source" }
type Returned<H> = H extends (...args: never) => infer A
  ? A
  : { [K in keyof H]: H[K] extends (...args: never) => infer A ? A : never }[keyof H]
/** The errors of the Effects that a handler returns. */
export type HandlerError<H> =
  Returned<H> extends infer A ? (A extends Effect.Effect<any, infer E, any> ? E : never) : never
/** The services that they need. */
export type HandlerServices<H> =
  Returned<H> extends infer A ? (A extends Effect.Effect<any, any, infer R> ? R : never) : never
