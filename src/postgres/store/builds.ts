// Builds of projections in the database: which there are, and the creation of further ones.
import * as Effect from "effect/Effect"
import { buildOf, declarationOf } from "../../model/build.ts"
import type { BuildTopics, KnownBuilds } from "../../model/chains.ts"
import type { Projection } from "../../model/projection.ts"
import { type Claim, Mismatch } from "../../runner/store.ts"
import { query, type Session, type Sql, type SqlError } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"
import { definitionOf, relationsOf, tablesDdl } from "./ddl.ts"
import { storeDefinition } from "./definitions.ts"
import { createSharedView, showBuild } from "./views.ts"
import { counted } from "../../text/counted.ts"

/** An arbitrary number that other programs are unlikely to use. `millrace.promote_flip` has it, too. */
const ddlLock = 7_216_513_001
/** Waits until no other process changes projections, for the rest of a transaction. */
export const lockProjections = (tx: Session) =>
  query("wait for other processes that prepare", () => tx`select pg_advisory_xact_lock(${ddlLock})`)

/** A build of a projection, as the database has it. */
export interface StoredBuild {
  readonly name: string
  readonly number: number
  /** The version that the code declares. */
  readonly declared: number
  /** The text of its definition, see `definitionOf`. */
  readonly definition: string
  /** Whether readers see it, and it publishes. At most one build of a projection is live. */
  readonly live: boolean
  /** Whether appends write its rows, so that no process runs it. */
  readonly inline: boolean
  /** Whether no process may run it any more. */
  readonly retired: boolean
  /** Whether its tables were dropped. */
  readonly dropped: boolean
  /** What its events see of lookups while it follows. */
  readonly lookups: Claim["lookups"]
  /** Of an investigation build: it has what the log stored before this time, in epoch milliseconds, and is never promoted. Otherwise null. */
  readonly untilMs: number | null
  /** Of a build that `--from` created: it has only what the log stored at this time or later, in epoch milliseconds. Otherwise null. */
  readonly fromMs: number | null
  /** Of a copy of the live build: the number of that build. Otherwise null. */
  readonly copyOf: number | null
  /** Of a copy of the live build in which a replay replaces the rows of some keys: what it is made of. Otherwise null. */
  readonly repair: {
    /** SHA-256 of the keys, in hex. */
    readonly keysHash: string
    /** The live build that was copied. */
    readonly base: number
    /** The build that replays; null once its rows are in the copy, which then follows the live build. */
    readonly scratch: number | null
  } | null
  /** Whether it is an investigation build that is where it stops, so that no process need run it. */
  readonly ended: boolean
}

/** All builds of a projection, or of all projections, retired ones included, by name and number. */
export const readBuilds = (sql: Sql | Session, name?: string): Effect.Effect<ReadonlyArray<StoredBuild>, SqlError> =>
  query("read the builds of projections", () =>
    sql.unsafe<Array<StoredBuild>>(
      `select p.name, p.version as number, p.declared, p.definition, p.retired_at is not null as retired, p.dropped, p.lookups,
        l.version is not null as live, exists (select from millrace.progress g
          where (g.projection, g.version) = (p.name, p.version) and g.inline) as inline, u.until_ms as "untilMs", s.from_ms as "fromMs",
        s.base as "copyOf",
        case when s.keys_hash is not null then jsonb_build_object('keysHash', s.keys_hash, 'base', s.base, 'scratch', s.scratch) end as repair,
        coalesce(u.ended, false) as ended
      from millrace.projection p left join millrace.build_scope s on (s.projection, s.version) = (p.name, p.version)
      left join millrace.live l on (l.projection, l.version) = (p.name, p.version)
      left join (select u.projection, u.version, max(u.until_ms) as until_ms, bool_and(g.next_position >= u.position) as ended
        from millrace.rebuild_until u join millrace.progress g using (projection, version, topic, partition) group by 1, 2) u
        on (u.projection, u.version) = (p.name, p.version)
      where $1::text is null or p.name = $1 order by 1, 2`,
      [name ?? null]
    )
  )

/**
 * What the database knows of the builds of each projection that has a live one: what they read, and what they publish to. Without projections whose
 * builds an earlier release created and no process of this one has started.
 */
export const readKnownBuilds = (sql: Sql | Session): Effect.Effect<ReadonlyMap<string, KnownBuilds>, SqlError> =>
  query("read what builds read and publish", async () => {
    const rows = await sql.unsafe<Array<BuildTopics & { readonly live: boolean }>>(
      `select p.name as projection, l.version = p.version as live,
        to_jsonb(array(select substr(k, 8) from jsonb_object_keys(p.parts) k where k like 'source %' order by 1)) as reads,
        to_jsonb(array(select substr(k, 17) from jsonb_object_keys(p.parts) k where k like 'published topic %' order by 1)) as writes
      from millrace.projection p join millrace.live l on l.projection = p.name
      where p.parts is not null order by p.name, p.version`
    )
    const known = [...Map.groupBy(rows, ({ projection }) => projection)].flatMap(([name, all]) => {
      const live = all.find((one) => one.live)
      return live === undefined ? [] : [[name, { first: all[0]!, live, all }] as const]
    })
    return new Map(known)
  })

/** The candidate among the builds of one projection: its newest follower, if that is newer than the live build. No investigation build. */
export const candidateOf = (builds: ReadonlyArray<StoredBuild>): StoredBuild | undefined => {
  const live = builds.find((build) => build.live)
  const newest = builds.findLast((build) => !build.retired && build.untilMs === null)
  return live !== undefined && newest !== undefined && newest.number > live.number ? newest : undefined
}

/** The number of the build that the last promotion of a projection replaced, if it is not retired and not live; undefined if there is none. */
export const readPrevious = (sql: Sql | Session, name: string): Effect.Effect<number | undefined, SqlError> =>
  query("read the last promotion", async () => {
    const [row] = await sql.unsafe<Array<{ readonly old: number }>>(
      `select last.old from (select old, new from millrace.promotion where projection = $1 order by at desc limit 1) last
      join millrace.live l on (l.projection, l.version) = ($1, last.new)
      join millrace.projection p on (p.name, p.version) = ($1, last.old) where p.retired_at is null`,
      [name]
    )
    return row?.old
  })

/**
 * What a build is to its projection: `previous` is the one that the last promotion replaced, `investigation` one that ends at a time, `follower` any
 * other that follows the live one.
 */
export type BuildRole = "live" | "candidate" | "previous" | "investigation" | "follower"
/** A build that is not retired, with its role. Names of fields are those that `status --json` prints. */
export interface BuildStatus {
  readonly name: string
  readonly build: number
  /** The version that the code declares. */
  readonly version: number
  readonly role: BuildRole
  /** Of an investigation build: it has what the log stored before this time, as ISO 8601. */
  readonly until?: string
  /** Of a build that has only what the log stored at this time or later: that time, as ISO 8601. */
  readonly from?: string
}
/** The builds of all projections that are not retired, by name and number. */
export const readBuildRoles = Effect.fnUntraced(function* (
  sql: Sql
): Effect.fn.Return<ReadonlyArray<BuildStatus>, SqlError> {
  const current = Map.groupBy(
    (yield* readBuilds(sql)).filter(({ retired }) => !retired),
    ({ name }) => name
  )
  const roles: Array<BuildStatus> = []
  for (const [name, builds] of current) {
    const candidate = candidateOf(builds)?.number
    const previous = builds.length > 1 ? yield* readPrevious(sql, name) : undefined
    for (const { declared, fromMs, live, number, untilMs } of builds) {
      if (untilMs !== null) {
        const until = new Date(untilMs).toISOString()
        roles.push({ name, build: number, version: declared, role: "investigation", until })
        continue
      }
      const role = live ? "live" : number === candidate ? "candidate" : number === previous ? "previous" : "follower"
      const from = fromMs === null ? {} : { from: new Date(fromMs).toISOString() }
      roles.push({ name, build: number, version: declared, role, ...from })
    }
  }
  return roles
})

/** The number of partitions of a topic, and the position that each starts at. */
export interface SourceTopics {
  readonly partitionsOf: (topic: string) => number
  readonly startOf: (topic: string, partition: number) => number
}

/** How a build is made. */
export interface BuildOptions {
  /** What its events see of lookups while it follows: what the live build saw, or the values of today. Default: what the live build saw. */
  readonly lookups?: Claim["lookups"]
}

/** A schema's name has 63 bytes, 55 of them for the projection's name. */
const mostNumber = 999_999

/**
 * Creates the next build of a projection: its tables, and a position for each partition at the start of the log. It is the live build, with views over its
 * tables, if the projection has no live one; otherwise it is a follower. Waits for other processes that prepare.
 */
export const createBuild = Effect.fnUntraced(function* <P extends Projection.Any>(
  tx: Session,
  projection: P,
  sources: SourceTopics,
  { lookups = "asSeen" }: BuildOptions = {}
): Effect.fn.Return<P, SqlError | Mismatch> {
  const { name } = projection
  yield* lockProjections(tx)
  const known = yield* readBuilds(tx, name)
  const { version: declared } = declarationOf(projection)
  const number = Math.max(declared, ...known.map((build) => build.number + 1))
  if (number > mostNumber) {
    const reason = `it has ${counted(known.length, "build")}, and the next one's number, ${number}, is beyond ${mostNumber}; give the projection a new name`
    return yield* new Mismatch({ what: `projection ${name}`, reason })
  }
  const build = buildOf(projection, number)
  for (const statement of tablesDdl(build)) yield* query(`create the tables of ${name}`, () => tx.unsafe(statement))
  for (const relation of relationsOf(build)) if (relation.shared) yield* createSharedView(tx, relation)
  yield* query(
    "note the projection",
    // it follows what the live build saw of lookups, unless it begins a journal of its own
    () => tx`insert into millrace.projection (name, version, declared, definition, lifecycle, lookups, lookup_journal)
      values (${name}, ${number}, ${declared}, ${definitionOf(build)}, coalesce((select case when q.released then 'inline' else q.lifecycle end from millrace.projection q
          where (q.name, q.declared) = (${name}, ${declared}) order by q.version desc limit 1), 'async'), ${lookups}, case when ${lookups} = 'today' then ${number} else
        coalesce((select p.lookup_journal from millrace.live l join millrace.projection p on (p.name, p.version) = (l.projection, l.version)
          where l.projection = ${name}), 1) end)`
  )
  yield* storeDefinition(tx, build, number)
  if (!known.some(({ live }) => live)) {
    yield* noteLive(tx, name, number)
    yield* showBuild(tx, name, { build: number }).pipe(
      Effect.catchTag("ViewsRefused", ({ message: reason }) => new Mismatch({ what: `projection ${name}`, reason }))
    )
  }
  yield* createPositions(tx, build, [number], sources)
  return build
})

/** Notes which build of a projection is live. */
export const noteLive = (tx: Session, name: string, number: number) =>
  query(
    "note which build is live",
    () => tx`insert into millrace.live as l (projection, version) values (${name}, ${number})
      on conflict (projection) do update set version = excluded.version, moved_at = clock_timestamp()`
  )

/**
 * Creates the positions that partitions of the projection's sources do not have yet: for these builds, and for all other builds that read the
 * same topic, whichever process runs them. A partition of the live build continues the stream that earlier builds left.
 */
export const createPositions = Effect.fnUntraced(function* (
  tx: Session,
  { name, sources }: Projection.Any,
  numbers: ReadonlyArray<number>,
  { partitionsOf, startOf }: SourceTopics
) {
  for (const { name: topic } of sources) {
    const starts = Array.from({ length: partitionsOf(topic) }, (_, partition) => startOf(topic, partition))
    yield* query(
      "create progress rows",
      () =>
        tx`insert into millrace.progress (projection, version, topic, partition, mode, first_position, next_position, outbox_seq)
        select p.name, p.version, ${topic}, s.number - 1, case when l.version is null then 'follower' else 'live' end, s.start, s.start,
          case when l.version is null then 0 else coalesce((select max(g.outbox_seq) from millrace.progress g
            where (g.projection, g.topic, g.partition) = (p.name, ${topic}, s.number - 1)), 0) end
        from millrace.projection p left join millrace.live l on (l.projection, l.version) = (p.name, p.version)
        cross join unnest(${arrayOf(starts)}::bigint[]) with ordinality as s (start, number)
        where p.name = ${name} and p.retired_at is null and (p.version = any(${arrayOf(numbers)}::int4[]) or exists (
          select from millrace.progress g where (g.projection, g.version, g.topic) = (p.name, p.version, ${topic})))
        on conflict do nothing`
    )
  }
})
