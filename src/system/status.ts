// Reads how far a system has come: projections against the ends of the log, relays against the outbox, and what is halted and why.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { type PartitionBounds, type Log, OutOfRange, type ReadError } from "../log/log.ts"
import type { Sql, SqlError } from "../postgres/client/client.ts"
import {
  countDeadLetters,
  type PartitionRow,
  readPartitions,
  readRelays,
  type RelayRow
} from "../postgres/store/status.ts"

/** How far a partition of a projection has come. `halted`: why it is halted, as its runner recorded it or as the log shows; null if it is not. */
export interface PartitionStatus extends Omit<PartitionRow, "quiet"> {
  readonly end: number
  readonly lag: number
}
/** How far a system has come, as `millrace status --json` prints it. */
export interface Status {
  readonly healthy: boolean
  readonly projections: ReadonlyArray<PartitionStatus>
  readonly relays: ReadonlyArray<RelayRow>
  readonly dead_letters: number
  /** Messages that relays parked because their target refuses them. */
  readonly parked_messages: number
}

/** A partition that lags and commits nothing for this long is not healthy: no process works on it. Milliseconds. */
const stalledMs = 60_000
/** How many requests to the log run at once. */
const concurrency = 16

/** The bounds of a topic, or the reason why it has none. */
const boundsOf = (log: Log["Service"], topic: string) =>
  Effect.catchTag(log.bounds(topic), "UnknownTopic", (error) => Effect.succeed(error.message))

/** Whether a record has waited for longer than `stalledMs`. */
const isStalled = Effect.fnUntraced(function* (
  log: Log["Service"],
  { lag, partition, position, topic }: PartitionStatus
) {
  if (lag === 0) return false
  const { records } = yield* log.read(topic, partition, position, { maxBytes: 1 })
  const waiting = records[0]
  return waiting !== undefined && waiting.appendedAt < (yield* Clock.currentTimeMillis) - stalledMs
})

const partitionStatusOf = (
  { quiet: _, ...row }: PartitionRow,
  bounds: ReadonlyArray<PartitionBounds> | string
): PartitionStatus => {
  const { halted, partition, position, topic } = row
  const haltedBecause = (reason: string): PartitionStatus => ({
    ...row,
    end: position,
    lag: 0,
    halted: halted ?? reason
  })
  if (typeof bounds === "string") return haltedBecause(bounds)
  const found = bounds.find((other) => other.partition === partition)
  if (found === undefined) return haltedBecause(`the log no longer has partition ${partition} of ${topic}`)
  const { end, start } = found
  const reason =
    position < start || position > end ? new OutOfRange({ topic, partition, position, start, end }).message : null
  return { ...row, end, lag: Math.max(0, end - position), halted: halted ?? reason }
}

/**
 * Reads the status. `targets` are the names of the relays' targets. Positions are read before the ends of the log and before the relays, so a lag
 * of 0 means that nothing was behind. Fails if the database or the log does not answer.
 */
export const readStatus = Effect.fnUntraced(function* (
  sql: Sql,
  log: Log["Service"],
  targets: ReadonlyArray<string>
): Effect.fn.Return<Status, SqlError | ReadError> {
  const rows = yield* readPartitions(sql, stalledMs)
  const topics = [...new Set(rows.map(({ topic }) => topic))]
  const bounds = new Map(
    yield* Effect.forEach(topics, (topic) => Effect.map(boundsOf(log, topic), (found) => [topic, found] as const), {
      concurrency
    })
  )
  const relays = yield* readRelays(sql, targets)
  const { events, messages } = yield* countDeadLetters(sql)
  const projections = rows.map((row) => partitionStatusOf(row, bounds.get(row.topic)!))
  const suspects = projections.filter(({ halted }, i) => rows[i]!.quiet && halted === null)
  const stalled = yield* Effect.forEach(suspects, (one) => isStalled(log, one), { concurrency })
  const healthy =
    projections.every(({ halted }) => halted === null) &&
    relays.every(({ halted }) => halted === null) &&
    !stalled.includes(true)
  return { healthy, projections, relays: [...relays], dead_letters: events, parked_messages: messages }
})
