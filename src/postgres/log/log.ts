// The log on PostgreSQL: the port, put together of its parts. Its tables come from a migration; it makes none.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Semaphore from "effect/Semaphore"
import type * as Scope from "effect/Scope"
import type postgres from "postgres"
import { LogCleaner } from "../../log/cleaner.ts"
import { sharePartitions } from "../../log/group.ts"
import { checkRecords, defaultMaxBytes } from "../../log/rules.ts"
import {
  type Assignment,
  Log,
  type LogError,
  type NewRecord,
  type ReadOptions,
  type UnknownTopic
} from "../../log/log.ts"
import * as LogAppend from "./append.ts"
import { type Groups, locksOf } from "./group.ts"
import { query } from "../client/errors.ts"
import { attempt } from "./errors.ts"
import * as LogClean from "./clean.ts"
import * as LogRead from "./read.ts"
import * as LogTopics from "./topics.ts"
import { channel, Wake } from "./listeners.ts"
import * as Session from "../client/session.ts"

/** How the log on PostgreSQL works. */
export interface Options {
  /** Waiting readers look for themselves this often, should a notification be lost. Default 1000. */
  readonly pollMs?: number
  /** Members of a group look this often who else is there. Default 1000. */
  readonly rebalanceMs?: number
  /** How often this process cleans. Undefined: never; call `clean`, or leave it to another process. */
  readonly cleanMs?: number
}

const maxBytes = (options: ReadOptions | undefined) => options?.maxBytes ?? defaultMaxBytes

/** Tells other processes what was appended, in as few notifications as there is time for. */
const makeTeller = Effect.fnUntraced(function* (sql: postgres.Sql, wake: Wake) {
  const latch = Latch.makeUnsafe(false)
  const tell = Effect.gen(function* () {
    yield* latch.await
    latch.closeUnsafe()
    for (let payload = wake.tell(); payload !== undefined; payload = wake.tell()) {
      const told = payload
      yield* Effect.ignore(query("notify", () => sql`select pg_notify(${channel}, ${told})`))
    }
  })
  yield* Effect.forkScoped(Effect.forever(tell))
  return latch
})

/** Looks for waiting readers, all with one query. */
const poll = Effect.fnUntraced(function* (sql: postgres.Sql, wake: Wake) {
  const topics = [...new Set([...wake.watchers].filter(({ latch }) => !latch.isOpen()).map(({ topicId }) => topicId))]
  if (topics.length === 0) return
  const rows = yield* query(
    "poll",
    () =>
      sql`select topic_id, partition, next_position from millrace.log_head where topic_id = any(${`{${topics.join(",")}}`}::int[])`
  )
  for (const row of rows) wake.grown(Number(row["topic_id"]), Number(row["partition"]), Number(row["next_position"]))
})

/** The parts that all calls share, for as long as the scope is open. */
const makeParts = Effect.fnUntraced(function* (sql: postgres.Sql, pollMs: number) {
  const wake = new Wake()
  const held = new Set<string>()
  const nudges: Groups["nudges"] = new Map()
  const nudgeAll = () => {
    for (const latches of nudges.values()) for (const latch of latches) latch.openUnsafe()
  }
  const session = yield* Session.make(sql, channel, {
    notified: (payload) => {
      const group = wake.told(payload)
      if (group !== undefined) for (const latch of nudges.get(group) ?? []) latch.openUnsafe()
    },
    ready: () => {
      wake.all()
      nudgeAll()
    },
    lost: nudgeAll
  })
  const latch = yield* makeTeller(sql, wake)
  const appender = LogAppend.make(yield* Session.single(sql, "millrace log append"), (topicId, partition, end) => {
    wake.appended(topicId, partition, end)
    latch.openUnsafe()
  })
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(pollMs), Effect.ignore(poll(sql, wake)))))
  return { wake, appender, groups: { session, held, nudges } satisfies Groups }
})

const groupOf = (sql: postgres.Sql, topicId: number, topic: string, group: string) =>
  attempt("assign", topic, async () => {
    const [row] = await sql`
        with made as (
          insert into millrace.log_group (topic_id, name) values (${topicId}, ${group}) on conflict do nothing returning group_id
        )
        select group_id from made union all select group_id from millrace.log_group where topic_id = ${topicId} and name = ${group}`
    // made by another at this moment, so that neither part saw it
    const [again] =
      row === undefined
        ? await sql`select group_id from millrace.log_group where topic_id = ${topicId} and name = ${group}`
        : [row]
    return Number(again!["group_id"])
  })

/** What `make` makes. */
export interface Made {
  readonly log: Log["Service"]
  readonly cleaner: LogCleaner["Service"]
  /** Wakes this process's readers of a partition that others than `append` have let grow to `end`. */
  readonly grown: (topicId: number, partition: number, end: number) => void
}
/** The log on a database that has its tables, and its cleaner. Fails only when used: a database that is down is an error of the call. */
export const make = Effect.fnUntraced(function* (
  sql: postgres.Sql,
  options: Options = {}
): Effect.fn.Return<Made, never, Scope.Scope> {
  const { appender, groups, wake } = yield* makeParts(sql, options.pollMs ?? 1000)
  const topics = LogTopics.make(sql)
  const tails = new LogRead.Tails(sql)

  const append = Effect.fnUntraced(function* (name: string, records: ReadonlyArray<NewRecord>) {
    const topic = yield* topics.find("append", name)
    const fine = checkRecords(name, topic.partitions, records)
    if (!Array.isArray(fine)) return yield* fine as LogError | UnknownTopic
    return yield* appender.append(topic, fine).pipe(Effect.tapError(() => Effect.sync(() => topics.forget(name))))
  })
  const sourceOf = (name: string, partition: number, read?: ReadOptions) =>
    topics
      .find("read", name, partition)
      .pipe(
        Effect.map(({ topicId }): LogRead.Source => ({ topicId, topic: name, partition, maxBytes: maxBytes(read) }))
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
      Effect.flatMap(sourceOf(name, partition, read), (source) => LogRead.open(sql, wake, tails, source, position)),
    assign: Effect.fnUntraced(function* (name, group, use, read) {
      const { partitions, topicId } = yield* topics.find("assign", name)
      const id = yield* groupOf(sql, topicId, name, group)
      const locks = locksOf(groups, name, id, partitions, options.rebalanceMs ?? 1000)
      return yield* sharePartitions(locks, (partition, generation) => {
        const source: LogRead.Source = { topicId, topic: name, partition, maxBytes: maxBytes(read) }
        const assignment: Assignment = {
          topic: name,
          partition,
          generation,
          open: (from) => LogRead.open(sql, wake, tails, source, from)
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
  return { log, cleaner, grown: (topicId, partition, end) => wake.grown(topicId, partition, end) }
})

/** The log and its cleaner on PostgreSQL. `sql` is a pool that stays open as long; two connections more are made with its options. */
export const layer = (sql: postgres.Sql, options?: Options): Layer.Layer<Log | LogCleaner> =>
  Layer.effectContext(
    Effect.map(make(sql, options), ({ cleaner, log }) => Context.make(Log, log).pipe(Context.add(LogCleaner, cleaner)))
  )
