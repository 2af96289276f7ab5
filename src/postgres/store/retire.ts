// Retires versions of projections that the configuration no longer has: what would be lost, and the change itself.
import * as Effect from "effect/Effect"
import { query, type Session, type Sql, type SqlError } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"
import { endInline } from "./lifecycles.ts"

/** A version of a projection, as the database has it. */
export interface StoredVersion {
  readonly name: string
  /** The number of the build. */
  readonly version: number
  /** The version that the code declares. */
  readonly declared: number
  /** Whether it, or none, is shown by the views. */
  readonly live: boolean
  readonly retired: boolean
  readonly dropped: boolean
  /** Whether it is an investigation build, which ends at a time and is never promoted. */
  readonly investigation: boolean
  /** Messages that its partitions have published since they exist. */
  readonly published: number
  /** Dead letters that are neither retried nor discarded. */
  readonly open: number
}
/** Messages of a projection that a relay target does not have. */
export interface Unpublished {
  readonly target: string
  readonly messages: number
}

/** All versions of a projection, retired ones included. */
export const readVersions = (sql: Sql | Session, name: string): Effect.Effect<ReadonlyArray<StoredVersion>, SqlError> =>
  query("read the versions of a projection", () =>
    sql.unsafe<Array<StoredVersion>>(
      `select p.name, p.version, p.declared, p.retired_at is not null as retired, p.dropped,
        exists (select from millrace.rebuild_until u where (u.projection, u.version) = (p.name, p.version)) as investigation,
        exists (select from millrace.live l where (l.projection, l.version) = (p.name, p.version)) as live,
        coalesce((select sum(g.outbox_seq) from millrace.progress g where (g.projection, g.version) = (p.name, p.version)), 0)::int8 as published,
        (select count(*) from millrace.dead_letters d where (d.projection, d.version) = (p.name, p.version)
          and d.status in ('parked', 'retrying')) as open
      from millrace.projection p where p.name = $1 order by p.version`,
      [name]
    )
  )

/** What targets lack of a projection's streams: of `targets`, and of all others that have positions. Targets that lack nothing are left out. */
export const readUnpublishedOf = (
  sql: Sql | Session,
  name: string,
  targets: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<Unpublished>, SqlError> =>
  query("read what is not published yet", () =>
    sql.unsafe<Array<Unpublished>>(
      `with stream as (
        select topic, partition, max(outbox_seq) as seq from millrace.progress where projection = $1 group by 1, 2
      )
      select t.target, sum(greatest(s.seq - coalesce(r.seq, 0), 0))::int8 as messages
      from (select unnest($2::text[]) as target union select target from millrace.relay_position) t
      cross join stream s
      left join millrace.relay_position r on (r.target, r.projection, r.source, r.partition) = (t.target, $1, s.topic, s.partition)
      group by 1 having sum(greatest(s.seq - coalesce(r.seq, 0), 0)) > 0 order by 1`,
      [name, arrayOf(targets)]
    )
  )

/** Ends a version: no process can commit for it from now on, and no append writes its rows. Its tables stay. */
export const freeze = Effect.fnUntraced(function* (tx: Session, name: string, version: number) {
  yield* endInline(tx, name, version)
  yield* query(
    "retire a version",
    () =>
      tx`with ended as (
        update millrace.progress set mode = 'frozen', frozen_until = null, frozen_by = null, incarnation = null, halted = null
        where projection = ${name} and version = ${version}
      ), unseen as (
        delete from millrace.live where projection = ${name} and version = ${version}
      )
      update millrace.projection set retired_at = now(), removed_at = coalesce(removed_at, now())
      where name = ${name} and version = ${version}`
  )
})

/** Discards the open dead letters of a build that no process runs any more. */
export const discardOpen = (tx: Session, name: string, version: number) =>
  query(
    "discard the dead letters of a retired build",
    () => tx`update millrace.dead_letters set status = 'discarded', decided_by = 'millrace retire', decided_at = now()
      where projection = ${name} and version = ${version} and status in ('parked', 'retrying')`
  )

/**
 * Notes which projections the configuration has, by the versions that it declares. Returns the builds of those that it does not have and that are
 * not retired, as `name v1`.
 */
export const noteConfigured = (
  sql: Sql,
  configured: ReadonlyArray<{ readonly name: string; readonly version: number }>
): Effect.Effect<ReadonlyArray<string>, SqlError> =>
  query("note which projections are configured", async () => {
    const rows = await sql<Array<{ readonly name: string; readonly version: number }>>`
      with configured as (
        select * from unnest(${arrayOf(configured.map(({ name }) => name))}::text[], ${arrayOf(configured.map(({ version }) => version))}::int4[])
          as c(name, version)
      ), changed as (
        update millrace.projection p
        set removed_at = case when exists (select from configured c where (c.name, c.version) = (p.name, p.declared)) then null else now() end
        where retired_at is null
          and (removed_at is null) <> exists (select from configured c where (c.name, c.version) = (p.name, p.declared))
      )
      select name, version from millrace.projection p
      where retired_at is null and not exists (select from configured c where (c.name, c.version) = (p.name, p.declared)) order by 1, 2`
    return rows.map(({ name, version }) => `${name} v${version}`)
  })
