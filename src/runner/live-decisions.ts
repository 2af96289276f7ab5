// Of a build that follows the live one: the discards that the log has no record of, because they are from before discards were records.
import * as Effect from "effect/Effect"
import type { LogRecord } from "../log/log.ts"
import type { LiveDecision, ProjectionPartition, Store } from "./store.ts"

/**
 * What was decided about the live build's dead letters of one batch. A follower whose event fails as the live build's did takes its dead letter as
 * discarded at once. With `order: "key"`, later events of the key that the live build parked behind it are parked here, too.
 */
export class LiveDecisions {
  private byPosition: ReadonlyMap<number, LiveDecision> = new Map()
  /** Keys whose dead letters of this batch were discarded. */
  private readonly keys = new Set<string>()
  private readonly isOrdered: boolean
  private readonly at: ProjectionPartition
  private readonly store: Store["Service"]

  constructor(isOrdered: boolean, at: ProjectionPartition, store: Store["Service"]) {
    this.isOrdered = isOrdered
    this.at = at
    this.store = store
  }

  /** Forgets the batch before. */
  reset(): void {
    this.byPosition = new Map()
    this.keys.clear()
  }
  readonly load = Effect.fnUntraced(function* (this: LiveDecisions, records: ReadonlyArray<LogRecord>) {
    if (records.length === 0) return
    const found = yield* this.store.liveDecisions(this.at, records[0]!.position, records.at(-1)!.position)
    this.byPosition = new Map(found.map((decision) => [decision.position, decision]))
  })
  /** Whether the event is parked because the live build parked it behind one that was discarded here as there. */
  isBehindDiscarded({ key, position }: LogRecord): boolean {
    const decision = this.byPosition.get(position)
    if (!this.isOrdered || key === null || decision?.behind !== true) return false
    return decision.followsDiscarded || this.keys.has(key)
  }
  /** Whether the live build's dead letter of a record that failed was discarded: then this one is, too. */
  discard({ key, position }: LogRecord): boolean {
    if (this.byPosition.get(position)?.discarded !== true) return false
    if (key !== null) this.keys.add(key)
    return true
  }
}
