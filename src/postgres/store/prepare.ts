// Prepares projections in the database: their schemas, tables and views, a row for each version, and one for each partition's position.
import * as Effect from "effect/Effect"
import { keyProblem } from "../../model/columns.ts"
import type { Writable } from "../../model/handler.ts"
import type { Projection } from "../../model/projection.ts"
import { unsupportedReason } from "../../model/unsupported.ts"
import { Mismatch } from "../../runner/store.ts"
import { type Session, type Sql, transaction } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"
import { query } from "../client/errors.ts"
import { definitionOf, relationsOf, tablesDdl } from "./ddl.ts"
import { createSharedView, showBuild, takenReason } from "./views.ts"

// an arbitrary number that other programs are unlikely to use
const ddlLock = 7_216_513_001
/** Waits until no other process changes projections, for the rest of a transaction. */
export const lockProjections = (tx: Session) =>
  query("wait for other processes that prepare", () => tx`select pg_advisory_xact_lock(${ddlLock})`)

/** Whether a projection writes topics, its dead-letter topics left out. */
export const publishes = (projection: Projection.Any): boolean =>
  (projection.writes as ReadonlyArray<Writable>).some(
    (target) => target.kind === "topic" || (target.kind === "window" && target.topic !== undefined)
  )

/** What to do about a projection whose tables changed: how the new ones come into use today. */
const adviceAfterChange = (projection: Projection.Any, next: number): string => {
  const { name, version } = projection
  return publishes(projection)
    ? `give the projection and its read models new names, and retire this one (millrace retire ${name}): a version ${next} could not continue what version ${version} publishes`
    : `increase version to ${next}, which is built beside version ${version}; when it has caught up, millrace retire ${name} ${version} puts it in its place`
}

/** The number of partitions of a topic, and the position that each starts at. */
export interface SourceTopics {
  readonly partitionsOf: (topic: string) => number
  readonly startOf: (topic: string, partition: number) => number
}

/** Prepares projections, all or none. Fails with `Mismatch` if one cannot run on this database. */
export const prepare = Effect.fnUntraced(function* (
  sql: Sql,
  projections: ReadonlyArray<Projection.Any>,
  sources: SourceTopics
) {
  yield* transaction(
    sql,
    Effect.fnUntraced(function* (tx) {
      yield* lockProjections(tx)
      for (const projection of projections) yield* prepareOne(tx, projection, sources)
    })
  )
})

const prepareOne = Effect.fnUntraced(function* (
  tx: Session,
  projection: Projection.Any,
  { partitionsOf, startOf }: SourceTopics
) {
  const { name, version } = projection
  const refused = unsupportedReason(projection) ?? keyProblem(projection.writes)
  if (refused !== undefined) return yield* new Mismatch({ what: `projection ${name}`, reason: refused })
  const definition = definitionOf(projection)
  const known = yield* query(
    "look for earlier versions",
    () =>
      tx<Array<KnownVersion>>`select version, definition, retired_at is not null as retired, dropped,
      exists (select from millrace.progress g where g.projection = p.name and g.version = p.version and g.mode = 'live') as live
      from millrace.projection p where name = ${name}`
  )
  const same = known.find((other) => other.version === version)
  const next = Math.max(version, ...known.map((other) => other.version)) + 1
  if (same?.dropped === true) {
    const reason = `version ${version} was retired and its tables were dropped; increase version to ${next}`
    return yield* new Mismatch({ what: `projection ${name}`, reason })
  }
  if (same !== undefined && same.definition !== definition) {
    const reason = `its tables changed since version ${version} first ran; ${adviceAfterChange(projection, next)}`
    return yield* new Mismatch({ what: `projection ${name}`, reason })
  }
  const other = known.find((one) => one.live && one.version !== version)
  if (same?.retired === true) yield* resume(tx, projection, other)
  if (same === undefined) {
    yield* assertFree(tx, projection)
    for (const statement of tablesDdl(projection))
      yield* query(`create the tables of ${name}`, () => tx.unsafe(statement))
    for (const relation of relationsOf(projection)) if (relation.shared) yield* createSharedView(tx, relation)
    yield* query(
      "note the projection",
      () => tx`insert into millrace.projection (name, version, definition) values (${name}, ${version}, ${definition})`
    )
  }
  const first = other === undefined
  // a version beside a live one follows the log, and publishes nothing until it is promoted
  const mode = first ? "live" : "follower"
  if (first && same === undefined) yield* showViews(tx, projection)
  for (const { name: topic } of projection.sources) {
    const starts = Array.from({ length: partitionsOf(topic) }, (_, partition) => startOf(topic, partition))
    yield* query(
      "create progress rows",
      () =>
        tx`insert into millrace.progress (projection, version, topic, partition, mode, first_position, next_position, outbox_seq)
        select ${name}, ${version}, ${topic}, p - 1, ${mode}, start, start,
          -- a version after retired ones continues their streams, which are the projection's
          coalesce((select max(g.outbox_seq) from millrace.progress g
            where (g.projection, g.topic, g.partition) = (${name}, ${topic}, p - 1) and ${mode} = 'live'), 0)
        from unnest(${arrayOf(starts)}::bigint[]) with ordinality as s (start, p) on conflict do nothing`
    )
  }
})

interface KnownVersion {
  readonly version: number
  readonly definition: string
  readonly live: boolean
  readonly retired: boolean
  readonly dropped: boolean
}
/** Takes a retired version back, which the configuration has again: it goes on where it stopped. */
const resume = Effect.fnUntraced(function* (
  tx: Session,
  { name, version }: Projection.Any,
  other: KnownVersion | undefined
) {
  if (other !== undefined) {
    const reason = `version ${version} was retired, and version ${other.version} is in its place; increase version beyond ${other.version}`
    return yield* new Mismatch({ what: `projection ${name}`, reason })
  }
  yield* query(
    "take a retired projection back",
    () =>
      tx`with again as (
        update millrace.projection set retired_at = null, removed_at = null where name = ${name} and version = ${version}
      )
      update millrace.progress g set mode = 'live', outbox_seq = (select max(o.outbox_seq) from millrace.progress o
        where (o.projection, o.topic, o.partition) = (g.projection, g.topic, g.partition))
      where projection = ${name} and version = ${version}`
  )
})

/** Fails if the name of a view is taken: by a table of the user, or by another projection's read model. */
const assertFree = Effect.fnUntraced(function* (tx: Session, projection: Projection.Any) {
  for (const relation of relationsOf(projection)) {
    const reason = yield* takenReason(tx, projection.name, relation)
    if (reason !== undefined) return yield* new Mismatch({ what: `projection ${projection.name}`, reason })
  }
})
/** Makes the views show a build that is live from the start. */
const showViews = Effect.fnUntraced(function* (tx: Session, { name, version }: Projection.Any) {
  yield* showBuild(tx, name, { build: version }).pipe(
    Effect.catchTag("ViewsRefused", ({ message: reason }) => new Mismatch({ what: `projection ${name}`, reason }))
  )
})
