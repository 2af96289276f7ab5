// Reads how long the newest record of each projection and the newest message of each relay waited: the parts of the end-to-end delay.
import * as Effect from "effect/Effect"
import { appendTimeOf, type Log, type ReadError } from "../log/log.ts"
import { isTimeMark } from "../log/time-mark.ts"
import type { Sql, SqlError } from "../postgres/client/client.ts"
import { type LastMove, readLastMoves, readRelayDelays, type RelayDelay } from "../postgres/store/delays.ts"

/** How long the newest record waited that a live build has processed of a topic. Names of fields are those that `status --json` prints. */
export interface ProjectionDelay extends Pick<LastMove, "projection" | "topic" | "partition" | "ago_ms"> {
  /** From the time of the event until the log had it, in milliseconds; null if it is not known. */
  readonly source_ms: number | null
  /** From the append to the log until the commit of its rows, in milliseconds. */
  readonly projection_ms: number
}
/** How long the newest records and messages waited. */
export interface Delays {
  /** One for each live build that is not inline and each of its topics. Without those whose newest record the log no longer has. */
  readonly projections: ReadonlyArray<ProjectionDelay>
  /** One for each relay target that has published. */
  readonly relays: ReadonlyArray<RelayDelay>
}

const concurrency = 16

const delayOf = Effect.fnUntraced(function* (
  log: Log["Service"],
  { ago_ms, moved_at, partition, position, projection, topic }: LastMove
) {
  const recordAt = (at: number) =>
    log.read(topic, partition, at, { maxBytes: 1 }).pipe(
      Effect.map(({ records }) => records[0]),
      Effect.catchTag(["OutOfRange", "UnknownTopic"], () => Effect.undefined)
    )
  // on Kafka a transaction ends with a marker, which has a position, too
  const record = (yield* recordAt(position - 1)) ?? (yield* recordAt(Math.max(0, position - 2)))
  const appendedAt = record && appendTimeOf(record)
  // that record may have been compacted away: then the log returns a later one
  if (record === undefined || record.position >= position || appendedAt === undefined) return []
  const source = isTimeMark(record) ? null : Math.max(0, Math.round(appendedAt - record.eventTime))
  const found: ProjectionDelay = {
    projection,
    topic,
    partition,
    source_ms: source,
    projection_ms: Math.max(0, Math.round(moved_at - appendedAt)),
    ago_ms
  }
  return [found]
})

/** Reads the delays: one record of the log for each live build and topic. */
export const readDelays = Effect.fnUntraced(function* (
  sql: Sql,
  log: Log["Service"]
): Effect.fn.Return<Delays, SqlError | ReadError> {
  const moves = yield* readLastMoves(sql)
  const projections = yield* Effect.forEach(moves, (one) => delayOf(log, one), { concurrency })
  return { projections: projections.flat(), relays: yield* readRelayDelays(sql) }
})
