// Records the calls that a handler makes on `out`, in order, in one flat array. The fold interprets them. Pure.
import type { Aggregate } from "./aggregate.ts"
import type { Timer } from "./handler.ts"
import type { Table } from "./read-model.ts"
import type { Topic } from "./topic.ts"
import type { Window } from "./window.ts"

/** A row of any table. */
export type Row = Record<string, any> // `any`: rows of every table pass through here
/** The argument of a call: a row, a key, a contribution or a message. */
export type Payload = any // `any`: what the target's own types have checked where the handler was written
/** A log of recorders: kind, target and payload of each call, one after another. The target of `cancel` is the timer's name in an object. */
export type Entries = Array<any> // `any`: entries of three kinds side by side
/** The payload of a `modify`. */
export interface Modification {
  readonly key: Row
  readonly change: (row: Row | undefined) => Row | undefined
}

/** The payload of a `send` or a `timer`, whose target is the aggregate. */
export interface CommandCall {
  readonly id: unknown
  readonly command: unknown
  /** The timer's name, and its time in epoch milliseconds or a duration. Undefined: the command is sent at once. */
  readonly timer?: { readonly name: unknown; readonly at: unknown; readonly after: unknown }
}

/** A handler's `out` was used after the handler had ended. Nothing was recorded. */
export class HandlerEnded extends Error {
  override readonly name = "HandlerEnded"
}

/**
 * The implementation of `out`, for one event. Each call appends three entries to the log: kind, target, payload. A flat array makes recording
 * cheap, and a failed event is undone by resetting its length. After `close` every call throws `HandlerEnded`, because the log is then that of
 * another event.
 */
export class Recorder {
  private log: Entries | undefined
  private readonly describe: () => string

  /** `describe` names the event in errors. */
  constructor(log: Entries, describe: () => string) {
    this.log = log
    this.describe = describe
  }
  upsert(table: Table.Any, row: object): void {
    this.record("upsert", table, row)
  }
  update(table: Table.Any, columns: object): void {
    this.record("update", table, columns)
  }
  delete(table: Table.Any, key: object): void {
    this.record("delete", table, key)
  }
  modify(table: Table.Any, key: object, change: unknown): void {
    this.record("modify", table, { key, change })
  }
  add(window: Window.Any, contribution: object): void {
    this.record("add", window, contribution)
  }
  publish(topic: Topic.Any, value: unknown): void {
    this.record("publish", topic, value)
  }
  send(aggregate: Aggregate.Any, id: string, command: object): void {
    this.record("send", aggregate, { id, command } satisfies CommandCall)
  }
  timer(name: string, timer: Timer<Aggregate.Any>): void {
    // what a handler without types gives is refused when its event is prepared
    const [aggregate, id, command] = Array.isArray(timer?.send) ? timer.send : []
    this.record("timer", aggregate, {
      id,
      command,
      timer: { name, at: timer?.at, after: timer?.after }
    } satisfies CommandCall)
  }
  cancel(name: string): void {
    this.record("cancel", { name }, undefined)
  }
  /** The handler has ended. */
  close(): void {
    this.log = undefined
  }

  private record(kind: string, target: unknown, payload: unknown): void {
    if (this.log === undefined)
      throw new HandlerEnded(
        `out.${kind} was called after the handler of ${this.describe()} had ended, so nothing was written; return an Effect that waits ` +
          "for the work: Effect.promise(() => …). The function of modify and those of folds run later and cannot use `out`"
      )
    this.log.push(kind, target, payload)
  }
}
