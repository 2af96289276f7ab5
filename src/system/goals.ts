// Where a follower has to get to: the positions of the live build, and the end of the log in topics that the live build does not read.
import * as Effect from "effect/Effect"
import type { Log, LogError, UnknownTopic } from "../log/log.ts"

interface Position {
  readonly topic: string
  readonly partition: number
  readonly live: number | null
  readonly follower: number | null
  readonly own: number | null
}

/**
 * Fills in as the live build's position, in topics that only the follower reads, where their partitions end when this is called, or where the follower
 * must stop before that. Leaves out topics that only the live build reads. Call it once, and the result for all positions that are read afterwards.
 */
export const goalsOf = Effect.fnUntraced(function* (
  log: Pick<Log["Service"], "ends">,
  first: ReadonlyArray<Position>
): Effect.fn.Return<<P extends Position>(positions: ReadonlyArray<P>) => ReadonlyArray<P>, LogError | UnknownTopic> {
  const ends = new Map<string, ReadonlyArray<number>>()
  for (const topic of new Set(first.flatMap(({ own, topic }) => (own === null ? [] : [topic]))))
    ends.set(topic, yield* log.ends(topic))
  return (positions) => {
    const followed = new Set(positions.flatMap(({ follower, topic }) => (follower === null ? [] : [topic])))
    return positions
      .filter(({ topic }) => followed.has(topic))
      .map((one) =>
        one.own === null
          ? one
          : Object.assign({}, one, { live: Math.min(one.own, ends.get(one.topic)?.[one.partition] ?? 0) })
      )
  }
})
