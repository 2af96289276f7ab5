// Finds the positions at which a position token starts the records of a topic, and waits for a token that the log does not have yet.
import * as Effect from "effect/Effect"
import { appendTimeOf, type Log, type PartitionBounds, type Position, type ReadError } from "../log/log.ts"
import { type TokenPosition, tokenPauses } from "../log/position-token.ts"
import { countingPositions, otherStarts, TokenRefused, tokenStart } from "../log/token-start.ts"
import { firstRecords, positionAt } from "./in-append-order.ts"

/** How long readers wait for a token that the log does not have yet, unless they say otherwise. Milliseconds. */
export const tokenWaitMs = 10_000

/** What is to be read from a token on. */
export interface TokenReader {
  readonly token: string
  readonly topic: string
  /** The topics that the topic is derived from, through projections. */
  readonly derivedFrom: ReadonlySet<string>
  /** Default: `tokenWaitMs`. */
  readonly waitMs?: number
  /** Whether the reader has left, so that waiting is over. */
  readonly isGone?: () => boolean
  /** Whether positions that retention deleted are moved to the first ones that there are; otherwise they are refused. */
  readonly moveGone?: boolean
}
type ReadableLog = Pick<Log["Service"], "bounds" | "read">

/**
 * When the log stored what is before a position: the time of the last record that it has before it. Undefined if it has none, or no time of it.
 */
const writtenAt = Effect.fnUntraced(function* (
  log: ReadableLog,
  { partition, position, topic }: TokenPosition,
  start: Position
): Effect.fn.Return<number | undefined, ReadError> {
  // compaction, and the control records of Kafka, leave positions without a record
  for (let back = 1; ; back *= 2) {
    const from = Math.max(start, position - back)
    if (from >= position) return undefined
    const records = yield* firstRecords(log, { topic, partition, from, to: position })
    const record = records.findLast((one) => one.position < position)
    if (record !== undefined) return appendTimeOf(record)
    if (from === start) return undefined
  }
})

/**
 * The position of each partition at which a token starts a topic (see `tokenStart`). Waits at most `waitMs` for positions that the log does not
 * have yet. The time of a write is that by which the log stored it, and where the log no longer knows it, a topic starts at its first records, and
 * a topic that is derived from another one is refused with `position_gone`.
 */
export const startAtToken = Effect.fnUntraced(function* (
  log: ReadableLog,
  { derivedFrom, isGone = () => false, moveGone = false, token, topic, waitMs = tokenWaitMs }: TokenReader
): Effect.fn.Return<ReadonlyArray<Position>, ReadError | TokenRefused> {
  const counting = countingPositions(token, topic, derivedFrom)
  if (counting instanceof TokenRefused) return yield* counting
  const topics = new Set([topic, ...counting.map((one) => one.topic)])
  const deadline = performance.now() + waitMs
  for (const pauses = tokenPauses(); ;) {
    const bounds = new Map<string, ReadonlyArray<PartitionBounds>>()
    for (const name of topics) bounds.set(name, yield* log.bounds(name))
    const startOf = (one: TokenPosition) => bounds.get(one.topic)?.[one.partition]?.start ?? 0
    const moved = moveGone
      ? counting.map((one) => (one.topic === topic ? { ...one, position: Math.max(one.position, startOf(one)) } : one))
      : counting
    const start = tokenStart(moved, topic, bounds)
    if (!(start instanceof TokenRefused)) {
      const own = bounds.get(topic)!
      if (start.positions.every((position) => position !== undefined)) return start.positions
      const times = yield* Effect.forEach(start.writes, (one) => writtenAt(log, one, startOf(one)), { concurrency: 4 })
      const known = times.filter((time) => time !== undefined)
      const isKnown = known.length === times.length
      if (!isKnown && start.writes.some((one) => one.topic !== topic))
        return yield* new TokenRefused({
          reason: "position_gone",
          text: `the log no longer has the write that the token is for, so it is not known what followed in ${topic}`,
          advice: otherStarts
        })
      const time = isKnown ? Math.min(...known) : undefined
      return yield* Effect.forEach(
        own,
        ({ end, partition, start: first }, i) => {
          const named = start.positions[i] ?? (time === undefined ? first : undefined)
          return named === undefined
            ? positionAt(log, { topic, partition, from: first, to: end }, time!)
            : Effect.succeed(named)
        },
        { concurrency: 4 }
      )
    }
    if (start.reason !== "not_yet") return yield* start
    if (performance.now() >= deadline || isGone())
      return yield* new TokenRefused({ ...start, text: `after ${waitMs} ms ${start.text}` })
    yield* Effect.sleep(pauses.next().value)
  }
})
