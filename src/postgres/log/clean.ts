// Cleans the log on PostgreSQL: applies retention, and compacts topics, one process at a time for each topic.
import * as Effect from "effect/Effect"
import type postgres from "postgres"
import type { Cleaned, CleanOptions } from "../../log/cleaner.ts"
import { cleanerKey } from "./group.ts"
import { compact } from "./compact.ts"
import { query } from "../client/errors.ts"
import { logError } from "./errors.ts"
import type { ListeningSession } from "../client/session.ts"

interface Topic {
  readonly topic_id: number
  readonly name: string
  readonly partitions: number
  readonly compacted: boolean
  readonly retention_ms: string | number | null
}
/** How many rows one statement deletes at most. */
const rowsAtOnce = 1_000
const day = 86_400_000

// Deletes whole rows from the front, up to the first that is not expired, and moves the partition's start behind them.
const expireQuery = `
with old as (
  select base_position, next_position, records,
    max(appended_at) over (order by base_position) < clock_timestamp() - $3::float8 * interval '1 millisecond' as expired
  from millrace.log_batch where topic_id = $1 and partition = $2 order by base_position limit ${rowsAtOnce}
), deleted as (
  delete from millrace.log_batch b using old o
  where b.topic_id = $1 and b.partition = $2 and b.base_position = o.base_position and o.expired
  returning b.next_position, b.records
)
update millrace.log_head h set start_position = greatest(h.start_position, d.next_position)
from (select max(next_position) as next_position, sum(records)::int as records, count(*)::int as rows from deleted) d
where h.topic_id = $1 and h.partition = $2 and d.rows > 0
returning d.records, d.rows`

const expire = async (sql: postgres.Sql, { partitions, retention_ms, topic_id }: Topic, signal: AbortSignal) => {
  let expired = 0
  for (let partition = 0; partition < partitions; partition++) {
    for (let rows = rowsAtOnce; rows === rowsAtOnce && !signal.aborted;) {
      const [row] = await sql.unsafe(expireQuery, [topic_id, partition, Number(retention_ms)], { prepare: true })
      rows = row === undefined ? 0 : Number(row["rows"])
      expired += row === undefined ? 0 : Number(row["records"])
    }
  }
  return expired
}

/** Runs to its end even when it is interrupted; the signal then aborts, to ask for an early end. */
const finishing = <A>(run: (signal: AbortSignal) => Promise<A>) =>
  Effect.suspend(() => {
    const controller = new AbortController()
    const running = run(controller.signal)
    const ended = Effect.promise(() => running.catch(() => undefined))
    return query("clean", () => running).pipe(
      Effect.onInterrupt(() => {
        controller.abort()
        return ended
      })
    )
  })

/** Runs `use` unless another process cleans the topic; returns undefined if one does. */
const alone = Effect.fnUntraced(function* <A>(
  session: ListeningSession,
  topicId: number,
  use: (signal: AbortSignal) => Promise<A>
) {
  const pid = yield* session.opened
  const lock = query(
    "lock the cleaner",
    () => session.sql`select pg_try_advisory_lock(${cleanerKey}::int, ${topicId}::int) as got, pg_backend_pid() as pid`
  )
  const unlock = query(
    "unlock the cleaner",
    () => session.sql`select pg_advisory_unlock(${cleanerKey}::int, ${topicId}::int)`
  )
  return yield* Effect.acquireUseRelease(
    Effect.map(lock, ([row]) => row?.["got"] === true && row["pid"] === pid),
    (got) => (got ? finishing(use) : Effect.succeed(undefined)),
    (got) => (got && session.pid() === pid ? Effect.ignore(unlock) : Effect.void)
  )
})

const cleanTopic = async (
  sql: postgres.Sql,
  topic: Topic,
  options: CleanOptions,
  signal: AbortSignal
): Promise<Cleaned> => {
  const expired = topic.retention_ms === null ? 0 : await expire(sql, topic, signal)
  let compacted = 0
  for (let partition = 0; topic.compacted && partition < topic.partitions; partition++) {
    const how = { dirtyShare: options.dirtyShare ?? 0.5, deletionsMs: options.deletionsMs ?? day, signal }
    compacted += await compact(sql, topic.topic_id, partition, how)
  }
  return { compacted, expired }
}

/** Cleans all topics once, one after another. Must not run twice at once in a process, because the lock belongs to the process. */
export const clean = (sql: postgres.Sql, session: ListeningSession, options: CleanOptions = {}) =>
  Effect.gen(function* () {
    const topics = yield* query(
      "read topics",
      () => sql<Array<Topic>>`
      select topic_id, name, partitions, compacted, retention_ms from millrace.log_topic
      where compacted or retention_ms is not null order by topic_id`
    ).pipe(Effect.mapError(logError("clean", "")))
    const total = { compacted: 0, expired: 0 }
    for (const topic of topics) {
      if (options.topics !== undefined && !options.topics.includes(topic.name)) continue
      const cleaned = yield* alone(session, topic.topic_id, (signal) => cleanTopic(sql, topic, options, signal)).pipe(
        Effect.mapError(logError("clean", topic.name))
      )
      total.compacted += cleaned?.compacted ?? 0
      total.expired += cleaned?.expired ?? 0
    }
    return total satisfies Cleaned
  })
