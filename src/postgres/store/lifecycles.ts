// When live builds run: behind the log (async), or in the statements that append the events of their aggregate (inline). What the code wants is
// stored when it starts; each move from one to the other is one call of `millrace.move_lifecycle`.
import * as Effect from "effect/Effect"
import type { Projection, Run } from "../../model/projection.ts"
import { query, type Session, type Sql, type SqlError } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"

/** Stores which lifecycles the code wants for the versions that it declares. The process that was started last decides. */
export const noteLifecycles = (sql: Sql, runs: ReadonlyArray<Run<unknown, never>>): Effect.Effect<void, SqlError> => {
  const declared = runs.map(({ projection }) => projection as Projection.Any)
  return query(
    "note the lifecycles of projections",
    // a released build stays so until a process that takes commands has its code
    () => sql`update millrace.projection p set lifecycle = c.lifecycle, released = false
      from unnest(${arrayOf(declared.map(({ name }) => name))}::text[], ${arrayOf(declared.map(({ version }) => version))}::int4[],
        ${arrayOf(runs.map(({ lifecycle }) => lifecycle))}::text[]) as c(name, version, lifecycle)
      where (c.name, c.version) = (p.name, p.declared)
        and case when p.released then c.lifecycle = 'async' else p.lifecycle <> c.lifecycle end`
  ).pipe(Effect.asVoid)
}

/** A live build that the code wants to be inline. */
export interface InlineWish {
  readonly name: string
  /** The number of the build. */
  readonly build: number
  /** The version of the code that can write its rows. */
  readonly declared: number
  /** It is async, because no process that takes commands has the code. */
  readonly released: boolean
}
/** The live builds that the code wants to be inline. */
export const readInlineWishes = (sql: Sql): Effect.Effect<ReadonlyArray<InlineWish>, SqlError> =>
  query(
    "read the inline projections that are wanted",
    () => sql<Array<InlineWish>>`
      select p.name, p.version as build, p.declared, p.released from millrace.projection p
      join millrace.live l on (l.projection, l.version) = (p.name, p.version)
      where p.retired_at is null and (p.lifecycle = 'inline' or p.released) order by 1`
  )
/** Stores whether a build is released. Returns false if another process did so before. */
export const storeReleased = (sql: Sql, { build, name, released }: InlineWish): Effect.Effect<boolean, SqlError> =>
  query("release an inline build", async () => {
    const rows =
      await sql`update millrace.projection set released = ${released}, lifecycle = case when ${released} then 'async' else 'inline' end
      where (name, version) = (${name}, ${build}::int4) and released <> ${released} and (lifecycle = 'inline' or released) returning 1`
    return rows.length > 0
  })

/** A live build that is not run as the code wants. */
export interface LifecycleMove {
  readonly name: string
  /** The number of the build. */
  readonly build: number
  readonly to: "async" | "inline"
}
/** The live builds whose lifecycle the code wants to be another one. */
export const readMoves = (sql: Sql): Effect.Effect<ReadonlyArray<LifecycleMove>, SqlError> =>
  query(
    "read the lifecycles of builds",
    () => sql<Array<LifecycleMove>>`
      select p.name, p.version as build, p.lifecycle as to from millrace.projection p
      join millrace.live l on (l.projection, l.version) = (p.name, p.version)
      where p.retired_at is null and exists (select from millrace.progress g
        where (g.projection, g.version) = (p.name, p.version) and g.inline <> (p.lifecycle = 'inline')) order by 1`
  )

/** Why a move was not made: nothing was changed. */
export type NotMoved = "done before" | "not live" | "frozen" | "halted" | "dead letters" | "behind"
/**
 * Moves a live build to the lifecycle that the code wants. If that is inline, appends wait until its runner has processed what was appended, `ms`
 * milliseconds at most.
 */
export const moveLifecycle = (
  sql: Sql,
  { build, name }: Pick<LifecycleMove, "name" | "build">,
  ms: number
): Effect.Effect<"done" | NotMoved, SqlError> =>
  query("move a projection to another lifecycle", async () => {
    const [row] = await sql<Array<{ readonly result: "done" | NotMoved }>>`
      select millrace.move_lifecycle(${name}, ${build}::int4, ${ms}::float8) as result`
    return row!.result
  })

/** A build whose rows the appends to an aggregate write. */
export interface InlineBuild {
  readonly aggregate: string
  readonly name: string
  /** The version of the code that can write its rows. */
  readonly declared: number
}
/** The inline builds of all aggregates. */
export const readInlineBuilds = (sql: Sql): Effect.Effect<ReadonlyArray<InlineBuild>, SqlError> =>
  query(
    "read the inline projections",
    () => sql<Array<InlineBuild>>`
      select distinct g.topic as aggregate, p.name, p.declared from millrace.progress g
      join millrace.projection p on (p.name, p.version) = (g.projection, g.version) where g.inline order by 1, 2`
  )

/** Ends that appends write the rows of a build that is retired. */
export const endInline = (tx: Session, name: string, build: number): Effect.Effect<void, SqlError> =>
  query("end an inline build", async () => {
    const inline = await tx`select distinct topic from millrace.progress
      where projection = ${name} and version = ${build} and inline`
    if (inline.length === 0) return
    // before any position, as appends do
    await tx`select millrace.lock_counters(${name}, array[${build}::int4])`
    await tx`update millrace.progress set inline = false where projection = ${name} and version = ${build}`
    await tx`select millrace.note_inline(${arrayOf(inline.map((row) => row["topic"] as string))}::text[])`
  })
