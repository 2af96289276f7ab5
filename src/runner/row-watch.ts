// Watches what a projection's handler asks for one row, and what it saw when it did. Pure: it stands between the engine and the handler.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { type Relation, relationOf } from "../model/columns.ts"
import { keyText } from "../model/fields.ts"
import type { Meta } from "../model/handler.ts"
import type { Projection } from "../model/projection.ts"
import type { Table } from "../model/read-model.ts"
import type { Modification, Row } from "../model/recorder.ts"
import { spansOf, type Window } from "../model/window.ts"
import { keyOnly, preparedRow } from "./stored-values.ts"

/** A call of `out` that concerns the row. */
export interface RowCall {
  readonly kind: "upsert" | "update" | "delete" | "modify" | "add"
  /** The row, its columns, its key or the contribution, as the handler gave it. Of `modify` the key. */
  readonly values: Row
}
/** An event that the handler was called for. */
export interface WatchedEvent {
  readonly meta: Meta
  /** The event as the handler got it. */
  readonly event: unknown
  /** The values of lookups that the handler got, by the names of `enrich`. */
  readonly lookups: Row
  readonly calls: Array<RowCall>
}
/** The calls of `out`, whatever the projection writes to. */
type Calls = Record<
  RowCall["kind"] | "publish" | "send" | "timer" | "cancel",
  (...args: ReadonlyArray<unknown>) => void
>
const kinds = ["upsert", "update", "delete", "modify", "add"] as const

/** One row of a table or a window. */
export class WatchedRow {
  readonly target: Table.Any | Window.Any
  readonly relation: Relation
  /** The text of its key. */
  readonly text: string
  /** The values of its key as columns hold them. */
  readonly key: Row

  /** `key`: the values of all columns of the primary key. Throws if a column cannot hold its value. */
  constructor(target: Table.Any | Window.Any, key: Row) {
    this.target = target
    this.relation = relationOf(target)
    this.key = preparedRow(keyOnly(this.relation), key)
    this.text = keyText(this.relation.key, this.key)
  }

  /** Whether a row, its columns or a key is this row's. */
  has(row: Row): boolean {
    try {
      return keyText(this.relation.key, preparedRow(keyOnly(this.relation), row)) === this.text
    } catch {
      return false // what the store refuses is no row
    }
  }
  /** Whether a contribution to the window at this time belongs to this row. */
  takes(contribution: Row, eventTime: number): boolean {
    const { target } = this
    if (target.kind === "table") return false
    if (target.shape.type === "global") return this.has(contribution)
    const { window_size, window_start } = this.key
    const span = spansOf(target.shape, eventTime).find(
      ({ label, start }) => label === window_size && start === window_start
    )
    return span !== undefined && this.has({ ...contribution, window_size, window_start })
  }
  /** Whether a text is the value of one of its key's columns. */
  contains(text: string | null): boolean {
    return text !== null && this.relation.key.some((column) => this.key[column] === text)
  }
}

/** A projection whose handler is watched. */
export class RowWatch<E, R> {
  /** To be run in place of the projection. */
  readonly projection: Projection.Of<E, R>
  private readonly row: WatchedRow
  private events: Array<WatchedEvent> = []

  constructor(projection: Projection.Of<E, R>, row: WatchedRow) {
    this.row = row
    this.projection = {
      ...projection,
      handle: (event, out, context) => this.handle(projection, event, out as unknown as Calls, context)
    }
  }
  /** The events that the handler was called for since the last call. */
  take(): ReadonlyArray<WatchedEvent> {
    const { events } = this
    this.events = []
    return events
  }

  private handle(projection: Projection.Of<E, R>, event: unknown, out: Calls, context: object) {
    const { meta, replaying: _, ...lookups } = context as { readonly meta: Meta } & Row
    const watched: WatchedEvent = { meta, event, lookups, calls: [] }
    this.events.push(watched)
    const done = projection.handle(event, this.watching(out, watched) as never, context)
    if (!Effect.isEffect(done)) return done
    const before = watched.calls.length
    // each attempt asks from the start again
    return Effect.suspend(() => {
      watched.calls.length = before
      return Effect.provideService(done, Clock.Clock, Clock.Clock.defaultValue())
    })
  }
  private watching(out: Calls, { calls, meta }: WatchedEvent): object {
    const { row } = this
    const watching = Object.fromEntries(
      kinds.map((kind) => [
        kind,
        (target: Table.Any | Window.Any, given: Row, change?: Modification["change"]) => {
          // a call that is refused throws, and concerns nothing
          out[kind](target, given, change)
          if (target.name !== row.target.name) return
          if (kind === "add" ? row.takes(given, meta.eventTime) : row.has(given)) calls.push({ kind, values: given })
        }
      ])
    )
    return {
      ...watching,
      publish: (topic: unknown, value: unknown) => out.publish(topic, value),
      send: (...call: ReadonlyArray<unknown>) => out.send(...call),
      timer: (...call: ReadonlyArray<unknown>) => out.timer(...call),
      cancel: (name: unknown) => out.cancel(name)
    }
  }
}
