// How fast builds may go, which a person sets for all processes together: those that follow the live one (`millrace rebuild`), and live ones that are
// paused (`millrace pause`).
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { Batch } from "../log/log.ts"
import type { Claim, ProjectionPartition, StoreError } from "./store.ts"

/** Lets builds that follow process their records in turn, and holds live ones while they are paused. */
export interface Pacing {
  /** Waits as long as the projection of a live build is paused. */
  readonly whilePaused: (projection: string) => Effect.Effect<void>
  /**
   * Waits until the partition may process records, of `records` that are there, and returns how many: at least 1. It waits as long as the build is
   * paused.
   */
  readonly admit: (at: ProjectionPartition, records: number) => Effect.Effect<number, StoreError>
}
/** The pacing of this process. Default: nothing waits. */
export const FollowerPacing = Context.Reference<Pacing>("millrace/FollowerPacing", {
  defaultValue: () => ({ whilePaused: () => Effect.void, admit: (_, records) => Effect.succeed(records) })
})

/** Processes a part of a batch: a follower's in as many pieces as its pacing asks for, that of a live build at once, unless that is paused. */
export const paced =
  <E, R>(claim: Claim, process: (part: Pick<Batch, "records" | "next">) => Effect.Effect<unknown, E, R>) =>
  (part: Pick<Batch, "records" | "next">): Effect.Effect<unknown, E | StoreError, R> =>
    Effect.flatMap(FollowerPacing, (pacing) =>
      claim.mode === "follower"
        ? inPieces(pacing, claim, part, process)
        : Effect.andThen(pacing.whilePaused(claim.projection), process(part))
    )

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
