// The log on PostgreSQL: assembles the port from its parts. Its tables are created by a migration.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Semaphore from "effect/Semaphore"
import type * as Scope from "effect/Scope"
import type postgres from "postgres"
import { LogCleaner } from "../../log/cleaner.ts"
import { sharePartitions } from "../../log/group.ts"
import { aggregateTopic, checkRecords, maxBytesOf } from "../../log/rules.ts"
import {
  type Assignment,
  Log,
  type LogError,
  type NewRecord,
  type ReadOptions,
  type UnknownTopic
} from "../../log/log.ts"
import * as LogAppend from "./append.ts"
import { locksOf, type ProcessGroups } from "./group.ts"
import { query } from "../client/errors.ts"
import { logQuery } from "./errors.ts"
import * as LogClean from "./clean.ts"
import * as LogRead from "./read.ts"
import * as LogTopics from "./topics.ts"
import { channel, LogListeners } from "./listeners.ts"
import * as Session from "../client/session.ts"

/** Options of the log on PostgreSQL. All times are in milliseconds. */
export interface PostgresLogOptions {
  /** How often waiting readers look for new records, in case a notification is lost. Default 1,000. */
  readonly pollMs?: number
  /** How often members of a group look for other members. Default 1,000. */
  readonly rebalanceMs?: number
  /** How often this process cleans the log. Default: never; call `clean`, or have another process do it. */
  readonly cleanMs?: number
}

/** Notifies other processes of appends. While a notification is under way, further appends are gathered for the next one. */
const makeNotifier = Effect.fnUntraced(function* (sql: postgres.Sql, listeners: LogListeners) {
  const latch = Latch.makeUnsafe(false)
  const notify = Effect.gen(function* () {
    yield* latch.await
    latch.closeUnsafe()
    for (let next = listeners.nextNotification(); next !== undefined; next = listeners.nextNotification()) {
      const payload = next
      yield* Effect.ignore(query("notify", () => sql`select pg_notify(${channel}, ${payload})`))
    }
  })
  yield* Effect.forkScoped(Effect.forever(notify))
  return latch
})

/** Looks for new records for all waiting readers, with one query. */
const poll = Effect.fnUntraced(function* (sql: postgres.Sql, listeners: LogListeners) {
  const topics = [
    ...new Set([...listeners.watchers].filter(({ latch }) => !latch.isOpen()).map(({ topicId }) => topicId))
  ]
  if (topics.length === 0) return
  const rows = yield* query(
    "poll",
    () =>
      sql`select topic_id, partition, next_position from millrace.log_head where topic_id = any(${`{${topics.join(",")}}`}::int[])`
  )
  for (const row of rows)
    listeners.grown(Number(row["topic_id"]), Number(row["partition"]), Number(row["next_position"]))
})

/** The parts that all calls share, for as long as the scope is open. */
const makeParts = Effect.fnUntraced(function* (sql: postgres.Sql, pollMs: number) {
  const listeners = new LogListeners()
  const held = new Set<string>()
  const changes: ProcessGroups["changes"] = new Map()
  const wakeGroups = () => {
    for (const latches of changes.values()) for (const latch of latches) latch.openUnsafe()
  }
  const session = yield* Session.make(sql, channel, {
    notified: (payload) => {
      const group = listeners.receive(payload)
      if (group !== undefined) for (const latch of changes.get(group) ?? []) latch.openUnsafe()
    },
    ready: () => {
      listeners.wakeAll()
      wakeGroups()
    },
    lost: wakeGroups
  })
  const latch = yield* makeNotifier(sql, listeners)
  const appended = (topicId: number, partition: number, end: number) => {
    listeners.appended(topicId, partition, end)
    latch.openUnsafe()
  }
  const appender = LogAppend.make(yield* Session.single(sql, "millrace log append"), appended)
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(pollMs), Effect.ignore(poll(sql, listeners)))))
  return { listeners, appended, appender, groups: { session, held, changes } satisfies ProcessGroups }
})

const groupOf = (sql: postgres.Sql, topicId: number, topic: string, group: string) =>
  logQuery("assign", topic, async () => {
    const [row] = await sql`
        with made as (
          insert into millrace.log_group (topic_id, name) values (${topicId}, ${group}) on conflict do nothing returning group_id
        )
        select group_id from made union all select group_id from millrace.log_group where topic_id = ${topicId} and name = ${group}`
    // another process created the group at the same moment, so neither part of the statement saw it
    const [again] =
      row === undefined
        ? await sql`select group_id from millrace.log_group where topic_id = ${topicId} and name = ${group}`
        : [row]
    return Number(again!["group_id"])
  })

/** The log, and what belongs to it. */
export interface PostgresLog {
  readonly log: Log["Service"]
  readonly cleaner: LogCleaner["Service"]
  /** Wakes this process's readers of a partition that grew to `end` by other means than `append`. */
  readonly grown: (topicId: number, partition: number, end: number) => void
  /** The same for the readers of all processes. */
  readonly appended: (topicId: number, partition: number, end: number) => void
}
/** The log on a database that has its tables, and its cleaner. It opens even if the database is down; then its calls fail. */
export const make = Effect.fnUntraced(function* (
  sql: postgres.Sql,
  options: PostgresLogOptions = {}
): Effect.fn.Return<PostgresLog, never, Scope.Scope> {
  const { appended, appender, groups, listeners } = yield* makeParts(sql, options.pollMs ?? 1000)
  const topics = LogTopics.make(sql)
  const tails = new LogRead.TailReader(sql)

  const append = Effect.fnUntraced(function* (name: string, records: ReadonlyArray<NewRecord>) {
    const topic = yield* topics.find("append", name)
    if (topic.isAggregate) return yield* aggregateTopic(name)
    const fine = checkRecords(name, topic.partitions, records)
    if (!Array.isArray(fine)) return yield* fine as LogError | UnknownTopic
    return yield* appender.append(topic, fine).pipe(Effect.tapError(() => Effect.sync(() => topics.forget(name))))
  })
  const sourceOf = (name: string, partition: number, read?: ReadOptions) =>
    topics.find("read", name, partition).pipe(
      Effect.map(({ isAggregate, topicId }): LogRead.ReadSource => ({
        topicId,
        topic: name,
        partition,
        maxBytes: () => maxBytesOf(read),
        isAggregate
      }))
    )
  const log = Log.of({
    declare: topics.declare,
    append,
    bounds: topics.bounds,
    ends: (topic) => Effect.map(topics.bounds(topic), (bounds) => bounds.map(({ end }) => end)),
    identity: topics.identity,
    read: (name, partition, position, read) =>
      Effect.flatMap(sourceOf(name, partition, read), (source) => LogRead.read(sql, source, position)),
    open: (name, partition, position, read) =>
      Effect.flatMap(sourceOf(name, partition, read), (source) =>
        LogRead.open(sql, listeners, tails, source, position)
      ),
    assign: Effect.fnUntraced(function* (name, group, use, read) {
      const { isAggregate, partitions, topicId } = yield* topics.find("assign", name)
      const id = yield* groupOf(sql, topicId, name, group)
      const locks = locksOf(groups, name, id, partitions, options.rebalanceMs ?? 1000)
      return yield* sharePartitions(locks, (partition, generation) => {
        const source = { topicId, topic: name, partition, isAggregate }
        const assignment: Assignment = {
          topic: name,
          partition,
          generation,
          open: (from, options = read) =>
            LogRead.open(sql, listeners, tails, { ...source, maxBytes: () => maxBytesOf(options) }, from)
        }
        return use(assignment)
      })
    })
  })
  const one = Semaphore.makeUnsafe(1)
  const cleaner = LogCleaner.of({ clean: (clean) => one.withPermit(LogClean.clean(sql, groups.session, clean)) })
  if (options.cleanMs !== undefined) {
    const once = cleaner.clean().pipe(Effect.catchTag("LogError", (error) => Effect.logWarning(error.message)))
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(options.cleanMs), once)))
  }
  const grown = (topicId: number, partition: number, end: number) => listeners.grown(topicId, partition, end)
  return { log, cleaner, grown, appended }
})

/** The log and its cleaner on PostgreSQL. The pool `sql` must stay open as long; two more connections are opened with its options. */
export const layer = (sql: postgres.Sql, options?: PostgresLogOptions): Layer.Layer<Log | LogCleaner> =>
  Layer.effectContext(
    Effect.map(make(sql, options), ({ cleaner, log }) => Context.make(Log, log).pipe(Context.add(LogCleaner, cleaner)))
  )
