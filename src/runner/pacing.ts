// How fast builds that follow the live one may go. A person sets that for all processes together; see `millrace rebuild`.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { Batch } from "../log/log.ts"
import type { Claim, ProjectionPartition, StoreError } from "./store.ts"

/** Lets builds that follow process their records in turn. */
export interface Pacing {
  /**
   * Waits until the partition may process records, of `records` that are there, and returns how many: at least 1. It waits as long as the build is
   * paused.
   */
  readonly admit: (at: ProjectionPartition, records: number) => Effect.Effect<number, StoreError>
}
/** The pacing of this process. Default: nothing waits. */
export const FollowerPacing = Context.Reference<Pacing>("millrace/FollowerPacing", {
  defaultValue: () => ({ admit: (_, records) => Effect.succeed(records) })
})

/** Processes a part of a batch: a follower's in as many pieces as its pacing asks for, any other one at once. */
export const paced =
  <E, R>(claim: Claim, process: (part: Pick<Batch, "records" | "next">) => Effect.Effect<unknown, E, R>) =>
  (part: Pick<Batch, "records" | "next">): Effect.Effect<unknown, E | StoreError, R> =>
    claim.mode === "follower"
      ? Effect.flatMap(FollowerPacing, (pacing) => inPieces(pacing, claim, part, process))
      : process(part)

const inPieces = Effect.fnUntraced(function* <E, R>(
  pacing: Pacing,
  claim: Claim,
  { next, records }: Pick<Batch, "records" | "next">,
  process: (part: Pick<Batch, "records" | "next">) => Effect.Effect<unknown, E, R>
) {
  let left = records
  while (left.length > 0) {
    const admitted = yield* pacing.admit(claim, left.length)
    if (admitted >= left.length) break
    yield* process({ records: left.slice(0, admitted), next: left[admitted]!.position })
    left = left.slice(admitted)
  }
  yield* process({ records: left, next })
})
