// Versions of lookup values and the journal of what batches saw of them, on PostgreSQL.
import * as Effect from "effect/Effect"
import type {
  FoundVersion,
  JournalEntry,
  LookupRequest,
  LookupStore,
  StoredVersions
} from "../../runner/lookup-store.ts"
import type { Session, Sql } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"
import { query, type SqlError } from "../client/errors.ts"
import type { PartitionCommit, StatementParts } from "./commit-parts.ts"
import { run } from "./run.ts"

interface ReadRow {
  readonly partition: number
  readonly generation: number
  readonly next_position: number
  readonly scattered: boolean
  readonly deleted_at: number | null
}
interface FoundRow extends FoundVersion {
  readonly request: number
}
interface JournalRow {
  readonly from_position: number
  readonly generation: number
  readonly only_partition: number | null
  readonly newest: boolean
  readonly positions: string
}

const open = (sql: Sql, topic: string, partitions: number, identity: string | undefined, isShrunk: boolean) =>
  sql<Array<ReadRow>>`insert into millrace.lookup_read as r (topic, partition, generation, identity, next_position)
    select ${topic}, p, coalesce((select max(generation) from millrace.lookup_read where topic = ${topic}), 1), ${identity ?? null}::text, 0
    from generate_series(0, ${partitions - 1}::int4) p order by p
    on conflict (topic, partition) do update set
      generation = r.generation + case when ${isShrunk} or r.identity <> excluded.identity then 1 else 0 end,
      next_position = case when ${isShrunk} or r.identity <> excluded.identity then 0 else r.next_position end,
      scattered = case when ${isShrunk} or r.identity <> excluded.identity then false else r.scattered end,
      identity = coalesce(excluded.identity, r.identity)
    returning partition, generation, next_position, scattered,
      (select max(v.appended_at) from millrace.lookup_version v where v.topic = r.topic and v.value is null) as deleted_at`

/** What `open` would return, without a change of what is stored. */
const look = (sql: Sql, topic: string, partitions: number, identity: string | undefined, isShrunk: boolean) =>
  sql<Array<ReadRow>>`select p as partition, of.generation + case when of.is_other then 1 else 0 end as generation,
      case when of.is_other then 0 else coalesce(r.next_position, 0) end as next_position,
      not of.is_other and coalesce(r.scattered, false) as scattered,
      (select max(v.appended_at) from millrace.lookup_version v where v.topic = ${topic} and v.value is null) as deleted_at
    from generate_series(0, ${partitions - 1}::int4) p
    cross join (
      select coalesce(max(generation), 1) as generation, ${isShrunk} or coalesce(bool_or(identity <> ${identity ?? null}::text), false) as is_other
      from millrace.lookup_read where topic = ${topic}
    ) of
    left join millrace.lookup_read r on r.topic = ${topic} and r.partition = p
    order by p`

const storedOf = (rows: ReadonlyArray<ReadRow>, partitions: number): StoredVersions => {
  const next = Array.from({ length: partitions }, () => 0)
  for (const { next_position: position, partition } of rows) next[partition] = position
  return {
    generation: Math.max(...rows.map(({ generation }) => generation)),
    next,
    isScattered: rows.some(({ scattered }) => scattered),
    deletedAt: rows[0]?.deleted_at ?? undefined
  }
}

// the row of lookup_read is locked first, so versions are complete up to `next_position` for each reader that sees it
const keepQuery = `
with moved as (
  update millrace.lookup_read set next_position = greatest(next_position, $5::int8), generation = $3::int4, scattered = scattered or $6::bool
  where topic = $1::text and partition = $2::int4 and generation <= $3::int4 and next_position >= $4::int8 returning 1
), kept as (
  insert into millrace.lookup_version (topic, generation, key_hash, position, partition, key, value, appended_at, valid_from)
  select $1, $3, hashtextextended(v.key, 0), v.position, $2, v.key, v.value, v.appended, v.valid
  from unnest($7::int8[], $8::text[], $9::text[], $10::int8[], $11::float8[]) as v(position, key, value, appended, valid)
  where exists (select from moved) on conflict do nothing
)
select count(*)::int4 as moved from moved`

// Each request is one search of an index. In a topic whose keys lie in several partitions, the newest of each partition is found first.
const findQuery = (isScattered: boolean, byTime: boolean) => {
  const counts = `v.topic = $1::text and v.generation = p.generation and v.key_hash = hashtextextended(r.key, 0) and v.key = r.key
      and v.position < coalesce(p.positions[v.partition + 1], 0) and (r.appended is null or v.appended_at is null or v.appended_at <= r.appended)
      ${byTime ? "and v.valid_from <= r.valid" : ""}`
  const newest = byTime ? "v.valid_from desc, v.position desc" : "v.position desc"
  const found = `select v.partition, v.position, v.value, v.valid_from, v.appended_at from millrace.lookup_version v where ${counts}`
  const among = isScattered
    ? `select * from (select distinct on (v.partition) * from (${found}) v order by v.partition, ${newest}) v
        order by ${byTime ? "v.valid_from desc, " : ""}v.appended_at desc nulls last, v.partition desc limit 1`
    : `${found} order by ${newest} limit 1`
  return `select r.request::int4, f.partition, f.position, f.value
    from unnest($2::int4[], $3::text[], $4::int4[], $5::int8[], $6::float8[]) as r(request, key, pin, appended, valid)
    join (select u.pin, u.generation, u.positions::int8[] as positions from unnest($7::int4[], $8::int4[], $9::text[]) as u(pin, generation, positions)) p
      on p.pin = r.pin
    cross join lateral (${among}) f`
}
/** Sends requests of one kind. Returns the rows that were found. */
const find = (sql: Sql, topic: string, requests: ReadonlyArray<LookupRequest>, isScattered: boolean) => {
  const pins = [...new Set(requests.map(({ pin }) => pin))]
  const numbers = new Map(pins.map((pin, i) => [pin, i]))
  const byTime = requests[0]!.validAt !== undefined
  return sql.unsafe<Array<FoundRow>>(
    findQuery(isScattered, byTime),
    [
      topic,
      arrayOf(requests.map((_, i) => i)),
      arrayOf(requests.map(({ key }) => key)),
      arrayOf(requests.map(({ pin }) => numbers.get(pin)!)),
      arrayOf(requests.map(({ appendedBy }) => appendedBy)),
      arrayOf(requests.map(({ validAt }) => validAt)),
      arrayOf(pins.map((_, i) => i)),
      arrayOf(pins.map(({ generation }) => generation)),
      arrayOf(pins.map(({ positions }) => `{${positions.join(",")}}`))
    ],
    { prepare: true }
  )
}

/** The versions of lookup values over a pool of connections. `ms`: how long an answer is waited for. */
export const make = (sql: Sql, ms?: number): LookupStore => {
  const runWithin = <A>(operation: string, statement: () => PromiseLike<A>) => run(operation, statement, ms)
  return {
    open: (topic, partitions, identity, isShrunk) =>
      Effect.map(
        runWithin("read how far lookup values are stored", () => open(sql, topic, partitions, identity, isShrunk)),
        (rows) => storedOf(rows, partitions)
      ),
    keep: (topic, { from, generation, isScattered, next, partition, versions }) =>
      Effect.map(
        runWithin("store lookup values", () =>
          sql.unsafe<Array<{ readonly moved: number }>>(
            keepQuery,
            [
              topic,
              partition,
              generation,
              from,
              next,
              isScattered,
              arrayOf(versions.map(({ position }) => position)),
              arrayOf(versions.map(({ key }) => key)),
              arrayOf(versions.map(({ value }) => value)),
              arrayOf(versions.map(({ appendedAt }) => appendedAt && Math.round(appendedAt))),
              arrayOf(versions.map(({ validFrom }) => validFrom))
            ],
            { prepare: true }
          )
        ),
        ([row]) => row?.moved === 1
      ),
    find: Effect.fnUntraced(function* (topic, requests, isScattered) {
      const found: Array<FoundVersion | undefined> = requests.map(() => undefined)
      const kinds = Map.groupBy(requests.keys(), (i) => requests[i]!.validAt === undefined)
      for (const of of kinds.values()) {
        const rows = yield* runWithin("read lookup values", () =>
          find(
            sql,
            topic,
            of.map((i) => requests[i]!),
            isScattered
          )
        )
        for (const { request, ...version } of rows) found[of[request]!] = version
      }
      return found
    }),
    journal: ({ journal, partition, projection, topic }, lookup, from, to) =>
      Effect.map(
        runWithin("read the journal of lookups", () =>
          sql.unsafe<Array<JournalRow>>(journalQuery, [projection, journal, topic, partition, lookup, from, to], {
            prepare: true
          })
        ),
        (rows) => rows.map((row) => entryOf(row, lookup))
      )
  }
}
/**
 * The versions for a replay that only looks: it changes nothing that is stored, and reads the journal of a partition once, in full. `journal`: the number of the
 * journal of the build that is replayed.
 */
export const readOnly = (sql: Sql, journal: number): LookupStore => {
  const store = make(sql)
  const journals = new Map<string, ReadonlyArray<JournalEntry>>()
  return {
    ...store,
    open: (topic, partitions, identity, isShrunk) =>
      Effect.map(
        run("read how far lookup values are stored", () => look(sql, topic, partitions, identity, isShrunk)),
        (rows) => storedOf(rows, partitions)
      ),
    keep: () => Effect.succeed(true),
    journal: Effect.fnUntraced(function* (at, lookup, from, to) {
      const key = JSON.stringify([at.topic, at.partition, lookup])
      const all =
        journals.get(key) ?? (yield* store.journal({ ...at, journal }, lookup, 0, Number.MAX_SAFE_INTEGER)) ?? []
      journals.set(key, all)
      return all.slice(Math.max(0, countUpTo(all, from) - 1), countUpTo(all, to))
    })
  }
}
/** How many entries begin at or before a position. */
const countUpTo = (entries: ReadonlyArray<JournalEntry>, position: number): number => {
  let [low, high] = [0, entries.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if (entries[middle]!.from <= position) low = middle + 1
    else high = middle
  }
  return low
}
/** The number of the journal of lookups that a build reads and writes. */
export const readJournalNumber = (sql: Sql | Session, name: string, build: number): Effect.Effect<number, SqlError> =>
  query("read the journal of a build", async () => {
    const [row] = await sql.unsafe<Array<{ readonly journal: number }>>(
      "select lookup_journal as journal from millrace.projection where name = $1 and version = $2::int4",
      [name, build]
    )
    return row?.journal ?? 1
  })
const journalQuery = `
with of as (
  select * from millrace.lookup_journal
  where projection = $1::text and journal = $2::int4 and topic = $3::text and partition = $4::int4 and lookup = $5::text
)
select from_position, generation, only_partition, newest, positions::text as positions from (
  (select * from of where from_position <= $6::int8 order by from_position desc limit 1)
  union all select * from of where from_position > $6::int8 and from_position <= $7::int8
) j order by from_position`
const entryOf = (row: JournalRow, lookup: string): JournalEntry => ({
  lookup,
  from: row.from_position,
  generation: row.generation,
  only: row.only_partition ?? undefined,
  newest: row.newest,
  positions: row.positions.slice(1, -1).split(",").map(Number),
  isFirst: false
})

/** The driver writes the text of a boolean's parameter itself, and takes any text for false. */
const flag = (value: boolean) => (value ? "t" : "f")
const journalColumns = [
  ["part", "int4"],
  ["own", "int4"],
  ["lookup", "text"],
  ["from_position", "int8"],
  ["generation", "int4"],
  ["only_partition", "int4"],
  ["newest", "text"],
  ["first", "text"],
  ["positions", "text"]
] as const
/**
 * The journal's entries. What the live build sees goes to the journals of all builds that are not retired, so that each of them can follow
 * it; a build that sees the values of today while it follows writes to its own. Entries of later positions are of another history: the live
 * build begins again where it had been before.
 */
export const journalPart = (parts: StatementParts, commits: ReadonlyArray<PartitionCommit>) => {
  const rows = commits.flatMap(({ changes: { lookups = [] }, claim }, part) =>
    lookups.map(({ from, generation, isFirst, lookup, newest, only, positions }) => [
      part,
      newest ? claim.journal : null,
      lookup,
      from,
      generation,
      only ?? null,
      flag(newest),
      flag(isFirst),
      `{${positions.join(",")}}`
    ])
  )
  if (rows.length === 0) return
  const input = parts.input(`select * from ${parts.rows(journalColumns, rows, "u")}`)
  if (commits.some(({ changes }) => changes.lookups?.some(({ isFirst }) => isFirst)))
    parts.write(
      (
        after
      ) => `delete from millrace.lookup_journal o using fence f join ${input} j on j.part = f.part and j.first::bool${after}
      where case when j.own is null then f.mode <> 'follower' else o.journal = j.own end
        and (o.projection, o.topic, o.partition, o.lookup) = (f.projection, f.topic, f.partition, j.lookup) and o.from_position > j.from_position
      returning 1`
    )
  parts.write(
    (
      after
    ) => `insert into millrace.lookup_journal (projection, journal, topic, partition, lookup, from_position, generation, only_partition,
      newest, positions)
    select f.projection, b.journal, f.topic, f.partition, j.lookup, j.from_position, j.generation, j.only_partition, j.newest::bool, j.positions::int8[]
    from fence f join ${input} j on j.part = f.part
      join (select distinct name, lookup_journal as journal from millrace.projection where retired_at is null) b on b.name = f.projection${after}
    where case when j.own is null then f.mode <> 'follower' else b.journal = j.own end
    on conflict (projection, journal, topic, partition, lookup, from_position) do update set generation = excluded.generation,
      only_partition = excluded.only_partition, newest = excluded.newest, positions = excluded.positions returning 1`
  )
}

/** Events of a partition of which the journal says nothing: a replay enriches them with today's values. */
export interface UnjournalledEvents {
  readonly topic: string
  readonly partition: number
  /** The lookup topic. */
  readonly lookup: string
  /** The events at positions from `from` to before `to`. */
  readonly from: number
  readonly to: number
}
/** The same as a sentence for people. */
export const unjournalledText = ({ from, lookup, partition, to, topic }: UnjournalledEvents): string =>
  `${topic}/${partition}: the events at the positions ${from} to ${to - 1} see today's values of ${lookup}: they were processed before Millrace noted what events see of it`
/**
 * Which events a replay of a projection enriches with today's values, because they were processed before the journal was kept, or because the
 * live build does not use the lookup. `lookups`: the names of the lookup topics. `starts`: the first position that the log still has, or that
 * matters. `build`: whose journal is read, up to its position; by default the live build.
 */
export const readUnjournalled = (
  sql: Sql | Session,
  projection: string,
  lookups: ReadonlyArray<string>,
  starts: ReadonlyArray<{ readonly topic: string; readonly partition: number; readonly start: number }>,
  build?: number
): Effect.Effect<ReadonlyArray<UnjournalledEvents>, SqlError> =>
  query("read what the journal of lookups lacks", () =>
    sql.unsafe<Array<UnjournalledEvents>>(
      `with live as (
        select g.topic, g.partition, g.next_position, p.lookup_journal as journal from millrace.progress g
        join millrace.projection p on (p.name, p.version) = (g.projection, g.version)
        where g.projection = $1 and case when $6::int4 is null then g.mode <> 'follower' and p.retired_at is null else g.version = $6 end
      )
      select * from (
        select g.topic, g.partition, l.lookup, s.start as from, least(g.next_position, coalesce((
          select min(j.from_position) from millrace.lookup_journal j
          where (j.projection, j.journal, j.topic, j.partition, j.lookup) = ($1, g.journal, g.topic, g.partition, l.lookup)), g.next_position)) as to
        from live g join unnest($2::text[], $3::int4[], $4::int8[]) as s(topic, partition, start) using (topic, partition)
        cross join unnest($5::text[]) as l(lookup)
      ) u where u.to > u.from order by 1, 2, 3`,
      [
        projection,
        arrayOf(starts.map(({ topic }) => topic)),
        arrayOf(starts.map(({ partition }) => partition)),
        arrayOf(starts.map(({ start }) => start)),
        arrayOf(lookups),
        build ?? null
      ]
    )
  )
