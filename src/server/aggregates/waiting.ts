// Waits until the topic of an aggregate has the positions of a token. The store is the first to have what a command's token names, so that a
// token of this store passes at once.
import type { PartitionBounds } from "../../log/log.ts"
import { tokenPauses } from "../../log/position-token.ts"
import { counted } from "../../text/counted.ts"
import { Problem } from "../http/problem.ts"
import { notYet, waitForPositions } from "../http/token.ts"

/** How a request waits. */
export interface Wait {
  /** The bounds of the partitions of a topic. Rejects with a `Problem`. */
  readonly bounds: (topic: string) => Promise<ReadonlyArray<PartitionBounds>>
  readonly waitMs: number
  readonly isGone: () => boolean
}

/**
 * Waits at most `waitMs` until the aggregate's topic has what the token names of it. Positions of other topics do not count: the state
 * depends on the aggregate's own events alone. Rejects with a `Problem` 400 if it is no token or names a partition that the topic does not
 * have, and 504 if that takes too long.
 */
export const waitForEvents = async (
  aggregate: string,
  token: string,
  { bounds, isGone, waitMs }: Wait
): Promise<void> => {
  const wanted = waitForPositions(token).filter(({ topic }) => topic === aggregate)
  if (wanted.length === 0) return
  const deadline = performance.now() + waitMs
  for (const pauses = tokenPauses(); ;) {
    const found = await bounds(aggregate)
    const ends = new Map(found.map(({ end, partition }) => [partition, end]))
    const unknown = wanted.find(({ partition }) => !ends.has(partition))
    if (unknown !== undefined)
      throw new Problem(
        400,
        "invalid_parameter",
        `waitFor names partition ${unknown.partition} of ${aggregate}, which has ${counted(found.length, "partition")}`,
        "use a token of this system"
      )
    const behind = wanted.find(({ partition, position }) => ends.get(partition)! < position)
    if (behind === undefined) return
    const { partition, position } = behind
    if (performance.now() >= deadline || isGone())
      throw notYet(
        `after ${waitMs} ms ${aggregate}/${partition} has events up to position ${ends.get(partition)!}, and the token asks for ${position}`,
        "send the request again after Retry-After seconds, and check that the token is of this system"
      )
    await new Promise((done) => setTimeout(done, pauses.next().value))
  }
}
