// Processes what a follower has read as far as the live build is, and waits for the rest until the live build has processed it.
import * as Effect from "effect/Effect"
import type { Batch } from "../log/log.ts"
import type { Claim, Fenced, Mismatch, Store, StoreError } from "./store.ts"

/** What is read and processed of a partition: records, and the position at which the next part begins. */
export type PartOfBatch = Pick<Batch, "records" | "next">

/** The waits between looks at where the live build is: a tenth of how long it has been waited for, within these limits, in milliseconds. */
const waits = { leastMs: 20, mostMs: 500 }

/** Keeps a follower behind the live build, under one claim of one partition. */
export class Follower {
  private readonly store: Pick<Store["Service"], "bound">
  private readonly claim: Claim
  /** Where the live build was when it was last asked. */
  private bound = 0
  private position: number

  constructor(store: Pick<Store["Service"], "bound">, claim: Claim) {
    this.store = store
    this.claim = claim
    this.position = claim.position
  }

  /**
   * Processes a batch, in as many parts as the live build's progress makes of it. A part may have no records, because there are positions without
   * any: the follower must get to where the live build is. Fails with `Fenced` if the partition is no longer that of a follower.
   */
  readonly process = Effect.fnUntraced(function* <E, R>(
    this: Follower,
    { next, records }: PartOfBatch,
    process: (part: PartOfBatch) => Effect.Effect<void, E, R>
  ): Effect.fn.Return<void, E | StoreError | Fenced | Mismatch, R> {
    let rest = records
    let waitedMs = 0
    while (this.position < next) {
      // a batch that does not reach beyond the last answer needs no other one
      if (this.bound < next) this.bound = yield* this.store.bound(this.claim)
      const end = Math.min(this.bound, next)
      if (end <= this.position) {
        const ms = Math.min(waits.mostMs, Math.max(waits.leastMs, waitedMs / 10))
        yield* Effect.sleep(ms)
        waitedMs += ms
        continue
      }
      const count = end === next ? rest.length : rest.filter(({ position }) => position < end).length
      yield* process({ records: rest.slice(0, count), next: end })
      rest = rest.slice(count)
      this.position = end
      waitedMs = 0
    }
  })

  /** Fails with `Fenced` if the partition is no longer that of a follower. */
  get check(): Effect.Effect<void, StoreError | Fenced | Mismatch> {
    return Effect.asVoid(this.store.bound(this.claim))
  }
}
