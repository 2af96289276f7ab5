// Deletes a build of a projection: its tables and everything else that belongs to it alone. Never by `cascade`, which takes what users created.
import * as Effect from "effect/Effect"
import { query, type Session } from "../client/client.ts"
import { quote } from "../client/columns.ts"
import { schemaOf } from "./ddl.ts"
import { readViewFacts } from "./views.ts"

/** The tables in a build's schema that Millrace created: those of its definition, and unlogged ones, which a rebuild uses. A user's table is neither. */
const tablesOf = (tx: Session, name: string, number: number) =>
  Effect.map(
    query(
      "read the build's tables",
      () =>
        tx<Array<{ readonly table: string; readonly scratch: boolean; readonly definition: string | null }>>`
        select c.relname::text as table, c.relpersistence = 'u' as scratch,
          (select p.definition from millrace.projection p where p.name = ${name} and p.version = ${number}) as definition
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = ${schemaOf(name, number)} and c.relkind = 'r' order by 1`
    ),
    (rows) =>
      rows.filter(({ definition, scratch, table }) => scratch || definition?.includes(JSON.stringify(table)) === true)
  )

/** A build's tables, each with its view if that was created for it. Another view also shows another build: PostgreSQL then refuses to drop the table. */
const relationsOf = Effect.fnUntraced(function* (tx: Session, name: string, number: number) {
  const schema = schemaOf(name, number)
  const { views } = yield* readViewFacts(tx, name)
  const isOwn = (table: string) =>
    views.some((one) => one.name === table && one.builds.every((build) => build === number))
  return (yield* tablesOf(tx, name, number)).map(({ table }) => ({
    name: table,
    table: `${schema}.${quote(table)}`,
    view: isOwn(table) ? `public.${quote(table)}` : undefined
  }))
})

/**
 * Locks what `deleteBuild` drops. Call it before anything else of the build is locked: a commit of another process has the tables before it waits for
 * a row of the build, so both would wait for each other.
 */
export const lockBuild = Effect.fnUntraced(function* (tx: Session, name: string, number: number) {
  for (const { table, view } of yield* relationsOf(tx, name, number))
    yield* query(`lock the table ${table}`, () =>
      // as readers do, the view first
      tx.unsafe(`lock table ${view === undefined ? "" : `${view}, `}${table} in access exclusive mode`)
    )
})

/** Drops a build's tables, and the views over them that were created for it. */
const dropTables = Effect.fnUntraced(function* (tx: Session, projection: string, number: number) {
  const schema = schemaOf(projection, number)
  for (const { name, table, view } of yield* relationsOf(tx, projection, number)) {
    if (view !== undefined) yield* query(`drop the view ${name}`, () => tx.unsafe(`drop view ${view}`))
    yield* query(`drop the table ${name}`, () => tx.unsafe(`drop table ${table}`))
  }
  yield* query("drop the build's schema", () => tx.unsafe(`drop schema if exists ${schema}`))
})

/** Millrace's own tables whose rows belong to one build. */
const tables = ["seen", "late_events", "dead_letters", "rebuild_until", "build_scope"] as const

/**
 * Deletes a build: its tables with the views over them, its seen ids, late events, dead letters, where it stops, and its groups in the log. No process can commit for it
 * any more. The rows of `millrace.projection` and `millrace.progress` stay: numbers of builds are not used twice, and a later build continues the
 * sequence numbers of what this one published. Shared tables stay, too. A second call changes nothing. Fails with what PostgreSQL says if something
 * else, as a view of a user, depends on a table.
 */
export const deleteBuild = Effect.fnUntraced(function* (tx: Session, name: string, number: number) {
  yield* lockBuild(tx, name, number)
  // before anything is deleted, because a process that still runs the build may write until then
  yield* query(
    "end the build",
    () => tx`update millrace.progress set mode = 'frozen', frozen_until = null, frozen_by = null, incarnation = null, halted = null, waiting = null, waiting_since = null
      where projection = ${name} and version = ${number}`
  )
  yield* dropTables(tx, name, number)
  for (const table of tables)
    yield* query(`delete from ${table}`, () =>
      tx.unsafe(`delete from millrace.${table} where projection = $1 and version = $2`, [name, number])
    )
  yield* query(
    "delete the build's groups",
    () => tx`delete from millrace.log_group where name = ${`${name}_v${number}`}`
  )
  yield* query(
    "note that the build was deleted",
    () => tx`update millrace.projection set dropped = true, retired_at = coalesce(retired_at, now()), removed_at = coalesce(removed_at, now())
      where name = ${name} and version = ${number}`
  )
})
