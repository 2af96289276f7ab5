// Records the calls that a handler makes on `out`, in order, in one flat array. The fold interprets them. Pure.
import type { Table } from "./read-model.ts"
import type { Topic } from "./topic.ts"
import type { Window } from "./window.ts"

/** A row of any table. */
export type Row = Record<string, any> // `any`: rows of every table pass through here
/** The argument of a call: a row, a key, a contribution or a message. */
export type Payload = any // `any`: what the target's own types have checked where the handler was written
/** A recorder's log: kind, target and payload of each call, one after another. */
export type Entries = ReadonlyArray<any> // `any`: entries of three kinds side by side
/** The payload of a `modify`. */
export interface Modification {
  readonly key: Row
  readonly change: (row: Row | undefined) => Row | undefined
}

/**
 * The implementation of `out`. Each call appends three entries to `log`: kind, target, payload. A flat array makes recording cheap, and a
 * failed event is undone by resetting its length.
 */
export class Recorder {
  readonly log: Array<any> = [] // `any`: entries of three kinds side by side
  upsert(table: Table.Any, row: object): void {
    this.log.push("upsert", table, row)
  }
  update(table: Table.Any, columns: object): void {
    this.log.push("update", table, columns)
  }
  delete(table: Table.Any, key: object): void {
    this.log.push("delete", table, key)
  }
  modify(table: Table.Any, key: object, change: unknown): void {
    this.log.push("modify", table, { key, change })
  }
  add(window: Window.Any, contribution: object): void {
    this.log.push("add", window, contribution)
  }
  publish(topic: Topic.Any, value: unknown): void {
    this.log.push("publish", topic, value)
  }
}
