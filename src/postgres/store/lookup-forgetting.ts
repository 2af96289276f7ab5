// Deletes versions of lookup values that no event of the log can see any more, and what the journal has of events that are gone.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { brokerTimeOf, type Log, type ReadError } from "../../log/log.ts"
import type { Sql } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"
import { query, type SqlError } from "../client/errors.ts"

/** How many versions one statement looks at, and how many such statements one call sends for each topic. */
const versionsAtOnce = 5_000
const mostPieces = 20

/** What is read of the log. */
export type ForgettingLog = Pick<Log["Service"], "bounds" | "read">
/** From where on the log has a partition, and when it stored its first record; undefined if that is not known. */
interface LogStart {
  readonly topic: string
  readonly partition: number
  readonly position: number
  readonly appendedAt: number | undefined
}
/** Versions below these positions of a generation that were stored by `appendedBy` are seen by every event, if nothing is newer. */
interface Bound {
  readonly generation: number
  readonly positions: ReadonlyArray<number | null>
  readonly appendedBy: number
}

/** The sources of the projections that read a lookup topic. */
const readSources = (sql: Sql, lookup: string) =>
  query("read which events see a lookup topic", () =>
    sql.unsafe<Array<{ readonly topic: string }>>(
      "select distinct topic from millrace.lookup_journal where lookup = $1 order by 1",
      [lookup]
    )
  )
const startsOf = Effect.fnUntraced(function* (
  log: ForgettingLog,
  topic: string,
  nowMs: number
): Effect.fn.Return<ReadonlyArray<LogStart>, ReadError> {
  const starts: Array<LogStart> = []
  for (const { end, partition, start } of yield* log.bounds(topic)) {
    const { records } = start < end ? yield* log.read(topic, partition, start, { maxBytes: 1 }) : { records: [] }
    const [first] = records
    starts.push({ topic, partition, position: start, appendedAt: first === undefined ? nowMs : brokerTimeOf(first) })
  }
  return starts
})

/** Deletes the entries that are about events before the start of the log, and those of journals that no build has any more. */
const forgetEntries = (sql: Sql, lookup: string, starts: ReadonlyArray<LogStart>) =>
  query("forget entries of the journal of lookups", () =>
    sql.unsafe(
      `delete from millrace.lookup_journal j where j.lookup = $1 and (
        j.from_position < (
          select max(o.from_position) from millrace.lookup_journal o
          join unnest($2::text[], $3::int4[], $4::int8[]) as s(topic, partition, position) using (topic, partition)
          where (o.projection, o.journal, o.topic, o.partition, o.lookup) = (j.projection, j.journal, j.topic, j.partition, j.lookup)
            and o.from_position <= s.position)
        or not exists (select from millrace.projection p where (p.name, p.lookup_journal) = (j.projection, j.journal) and not p.dropped))`,
      [
        lookup,
        arrayOf(starts.map(({ topic }) => topic)),
        arrayOf(starts.map(({ partition }) => partition)),
        arrayOf(starts.map(({ position }) => position))
      ]
    )
  )

/** How far the first events of each journal saw a topic: the least of all. Undefined if nothing may be forgotten. */
const readBound = Effect.fnUntraced(function* (sql: Sql, lookup: string, appendedBy: number) {
  const rows = yield* query("read how far lookup values were seen", () =>
    sql.unsafe<Array<{ generation: number; only_partition: number | null; positions: string; now: number }>>(
      `select distinct on (projection, journal, topic, partition) generation, only_partition, positions::text as positions,
        (select max(generation) from millrace.lookup_read r where r.topic = $1) as now
      from millrace.lookup_journal where lookup = $1 order by projection, journal, topic, partition, from_position`,
      [lookup]
    )
  )
  const [first] = rows
  // what an earlier topic had is kept as long as an event saw it
  if (first === undefined || rows.some(({ generation, now }) => generation !== now)) return undefined
  const positions: Array<number | null> = []
  for (const { only_partition: only, positions: text } of rows) {
    const of = text.slice(1, -1).split(",").map(Number)
    for (const [i, position] of of.entries()) {
      const partition = only ?? i
      positions[partition] = Math.min(positions[partition] ?? Infinity, position)
    }
  }
  // no event looks into the others
  return {
    generation: first.now,
    positions: Array.from(positions, (position) => position ?? null),
    appendedBy
  } satisfies Bound
})

// A version is superseded if the next one of its key is in reach of every event. A deletion goes once nothing older is left.
const pieceQuery = `
with piece as materialized (
  select key_hash, position, partition, key, value, appended_at from millrace.lookup_version
  where topic = $1::text and generation = $2::int4 and (key_hash, position) > ($5::int8, $6::int8)
  order by key_hash, position limit ${versionsAtOnce}
), reached as (
  select *, position < ($3::int8[])[partition + 1] and (appended_at is null or appended_at <= $4::int8) as reached from piece
), judged as (
  select *, lead(reached) over (partition by key_hash, key, partition order by position) as superseded,
    row_number() over (partition by key_hash, key, partition order by position) = 1 as oldest from reached
), deleted as (
  delete from millrace.lookup_version v using judged j
  where v.topic = $1 and v.generation = $2 and (v.key_hash, v.position, v.partition) = (j.key_hash, j.position, j.partition)
    and (j.superseded or (j.value is null and j.reached and j.oldest and not exists (
      select from millrace.lookup_version o where o.topic = $1 and o.generation = $2 and o.key_hash = j.key_hash
        and o.key = j.key and o.partition = j.partition and o.position < j.position)))
  returning 1
)
select (select count(*)::int4 from piece) as read, (select count(*)::int4 from deleted) as deleted,
  (select count(distinct key_hash)::int4 from piece) as keys, last.key_hash::text as key_hash, last.position
from (select key_hash, position from piece order by key_hash desc, position desc limit 1) last`
interface Piece {
  readonly read: number
  readonly deleted: number
  readonly keys: number
  readonly key_hash: string
  readonly position: number
}

/** Forgets what no event needs, a bounded piece with each call; the next call goes on from there. */
export class LookupForgetting {
  private readonly sql: Sql
  private readonly log: ForgettingLog
  private readonly kept: ReadonlySet<string>
  /** Where the next piece of a topic begins. */
  private readonly cursors = new Map<string, readonly [hash: string, position: number]>()
  /** What was in reach when a topic was last read from its start to its end, as text. */
  private readonly done = new Map<string, string>()

  /** `kept`: lookup topics of which nothing may be deleted, because events see them as of their own times. */
  constructor(sql: Sql, log: ForgettingLog, kept: ReadonlySet<string>) {
    this.sql = sql
    this.log = log
    this.kept = kept
  }

  /** Deletes a piece of each topic. Returns how many versions were deleted. */
  readonly run: Effect.Effect<number, SqlError | ReadError> = Effect.gen({ self: this }, function* () {
    const nowMs = yield* Clock.currentTimeMillis
    const topics = yield* query("read the lookup topics", () =>
      this.sql.unsafe<Array<{ readonly topic: string }>>("select distinct topic from millrace.lookup_read order by 1")
    )
    let deleted = 0
    for (const { topic } of topics) deleted += yield* this.forgetOf(topic, nowMs)
    return deleted
  })
  private readonly forgetOf = Effect.fnUntraced(function* (this: LookupForgetting, lookup: string, nowMs: number) {
    const starts: Array<LogStart> = []
    for (const { topic } of yield* readSources(this.sql, lookup))
      starts.push(...(yield* startsOf(this.log, topic, nowMs)))
    yield* forgetEntries(this.sql, lookup, starts)
    if (this.kept.has(lookup)) return 0
    const appendedBy = Math.floor(starts.reduce((least, { appendedAt = nowMs }) => Math.min(least, appendedAt), nowMs))
    const bound = yield* readBound(this.sql, lookup, appendedBy)
    return bound === undefined ? 0 : yield* this.forgetPieces(lookup, bound)
  })
  private readonly forgetPieces = Effect.fnUntraced(function* (this: LookupForgetting, lookup: string, bound: Bound) {
    const { appendedBy, generation, positions } = bound
    const text = JSON.stringify(bound)
    if (this.done.get(lookup) === text) return 0
    let deleted = 0
    for (let pieces = 0; pieces < mostPieces; pieces++) {
      const [hash, position] = this.cursors.get(lookup) ?? ["-9223372036854775808", -1]
      const [piece] = yield* query("forget lookup values", () =>
        this.sql.unsafe<Array<Piece>>(
          pieceQuery,
          [lookup, generation, arrayOf(positions), appendedBy, hash, position],
          {
            prepare: true
          }
        )
      )
      deleted += piece?.deleted ?? 0
      if (piece === undefined || piece.read < versionsAtOnce) {
        this.cursors.delete(lookup)
        this.done.set(lookup, text)
        break
      }
      // the versions of the last key may go on in the next piece
      this.cursors.set(lookup, [piece.key_hash, piece.keys > 1 ? -1 : piece.position])
    }
    return deleted
  })
}
