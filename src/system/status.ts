// How far everything has come: positions against the log's ends, relays against the outbox, and what stands still and why. It changes nothing.
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

/** How far a projection's partition has come, against the log. Why it is halted: as its runner recorded it, or as the log shows. */
export interface PartitionStatus extends Omit<PartitionRow, "quiet"> {
  readonly end: number
  readonly lag: number
}
/** How far everything has come, as `status` prints it. */
export interface Status {
  readonly healthy: boolean
  readonly projections: ReadonlyArray<PartitionStatus>
  readonly relays: ReadonlyArray<RelayRow>
  readonly dead_letters: number
  /** Messages that relays parked, for the target refuses them. */
  readonly parked_messages: number
}

/** Lagging this long without a commit is not healthy: nothing works on it. Milliseconds. */
const stalledMs = 60_000
/** Questions to the log that are under way at once. */
const concurrency = 16

/** The topic's bounds, or why it has none. */
const boundsOf = (log: Log["Service"], topic: string) =>
  Effect.catchTag(log.bounds(topic), "UnknownTopic", (error) => Effect.succeed(error.message))

/** Whether a record waits for longer than `stalledMs`, and nothing was committed meanwhile. */
const isStalled = Effect.fnUntraced(function* (
  log: Log["Service"],
  { lag, partition, position, topic }: PartitionStatus
) {
  if (lag === 0) return false
  const { records } = yield* log.read(topic, partition, position, { maxBytes: 1 })
  const waits = records[0]
  return waits !== undefined && waits.appendedAt < (yield* Clock.currentTimeMillis) - stalledMs
})

const partitionStatusOf = (
  { quiet: _, ...row }: PartitionRow,
  bounds: ReadonlyArray<PartitionBounds> | string
): PartitionStatus => {
  const { halted, partition, position, topic } = row
  const still = (reason: string): PartitionStatus => ({ ...row, end: position, lag: 0, halted: halted ?? reason })
  if (typeof bounds === "string") return still(bounds)
  const found = bounds.find((other) => other.partition === partition)
  if (found === undefined) return still(`${topic}/${partition}: the log has no such partition any more`)
  const { end, start } = found
  const reason =
    position < start || position > end ? new OutOfRange({ topic, partition, position, start, end }).message : null
  return { ...row, end, lag: Math.max(0, end - position), halted: halted ?? reason }
}

/**
 * Reads the status. `targets` are the names of the relays' targets. Positions are read before the log's ends and before the relays, so
 * what shows no lag has none. Fails where the database or the log does not answer.
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
