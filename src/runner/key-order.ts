// With `order: "key"`: which keys have a parked event, so that later events of these keys are parked behind it.
import * as Effect from "effect/Effect"
import type { LogRecord } from "../log/log.ts"
import type { ProjectionPartition, Store } from "./store.ts"

/** The keys of one batch that have a parked event. Does nothing unless the projection keeps the order of keys. */
export class KeyOrder {
  private readonly parkedAt = new Map<string, number>()
  private readonly isOrdered: boolean
  private readonly at: ProjectionPartition
  private readonly store: Store["Service"]

  constructor(isOrdered: boolean, at: ProjectionPartition, store: Store["Service"]) {
    this.isOrdered = isOrdered
    this.at = at
    this.store = store
  }

  /** Forgets the parked keys of the batch before. */
  reset(): void {
    this.parkedAt.clear()
  }
  /** Loads which keys of the records have a dead letter that is open. */
  readonly load = Effect.fnUntraced(function* (this: KeyOrder, records: ReadonlyArray<LogRecord>) {
    if (!this.isOrdered || records.length === 0) return
    const keys = new Set(records.flatMap(({ key }) => (key === null ? [] : [key])))
    for (const key of yield* this.store.parkedKeys(this.at, [...keys])) this.parkedAt.set(key, -1)
  })
  /** Whether an earlier event of the record's key is parked. */
  isBehindParked({ key, position }: LogRecord): boolean {
    const at = key === null ? undefined : this.parkedAt.get(key)
    return at !== undefined && at < position
  }
  /** Notes that the record is parked. */
  park({ key, position }: LogRecord): void {
    if (!this.isOrdered || key === null) return
    const at = this.parkedAt.get(key)
    if (at === undefined || position < at) this.parkedAt.set(key, position)
  }
}
