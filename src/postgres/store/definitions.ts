// The definitions that builds were created with: stored by parts, compared with what the code declares at each start, and replaced where a build can go on with the change.
import { createHash } from "node:crypto"
import * as Effect from "effect/Effect"
import {
  definitionChanges,
  functionChanges,
  mergedDefinition,
  type DefinitionChange
} from "../../model/definition-changes.ts"
import { definitionOf as partsOf, functionTextsOf, type Definition } from "../../model/definition.ts"
import type { Projection } from "../../model/projection.ts"
import { Mismatch } from "../../runner/store.ts"
import { query, type Session, type Sql, SqlError } from "../client/client.ts"
import { quote } from "../client/columns.ts"
import { definitionOf, relationsOf } from "./ddl.ts"
import { extendSharedView, readViewFacts, showBuild } from "./views.ts"

type Hashes = Readonly<Record<string, string>>
/** What is stored of a build's definition. */
interface StoredDefinition {
  readonly version: number
  /** The text that earlier releases stored: the tables only. */
  readonly definition: string
  /** Null if an earlier release created the build and this one did not start with it yet. */
  readonly parts: Definition | null
  readonly functions: Hashes | null
  readonly warnings: ReadonlyArray<string> | null
  readonly live: boolean
}
const hashesOf = (projection: Projection.Any): Hashes =>
  Object.fromEntries(
    Object.entries(functionTextsOf(projection)).map(([name, text]) => [
      name,
      createHash("sha256").update(text).digest("base64url").slice(0, 22)
    ])
  )

/** The SQLSTATE of a wait for a lock that took too long. */
export const lockTimeout = "55P03"

/** What to do about a definition that changed so that a build cannot go on with it. */
export const adviceAfterChange = ({ name }: Projection.Any, next: number): string =>
  `undo the change, or increase version to ${next}, then millrace rebuild ${name}, millrace diff ${name} and millrace promote ${name}`

/** Stores the definition of a build that was created just now. */
export const storeDefinition = (tx: Session, projection: Projection.Any, build: number) =>
  query(
    "store the definition of a projection",
    () => tx`update millrace.projection set definition = ${definitionOf(projection)},
        parts = ${JSON.stringify(partsOf(projection))}::text::jsonb, functions = ${JSON.stringify(hashesOf(projection))}::text::jsonb
      where name = ${projection.name} and version = ${build}`
  )

/**
 * Compares the definition that the code declares with those of its builds. A build that can go on with the changes takes them over: nullable columns
 * are added to its tables, and to the views if it is the live one. Fails with `Mismatch`, which has the changes, if one cannot. Functions that differ are
 * stored as warnings, which are returned.
 */
export const settleDefinitions = Effect.fnUntraced(function* (
  tx: Session,
  projection: Projection.Any,
  builds: ReadonlyArray<number>,
  next: number
) {
  const { name, version } = projection
  const stored = yield* query(
    "read the definitions of a projection",
    () => tx<Array<StoredDefinition>>`select p.version, p.definition, p.parts, p.functions, p.warnings,
        exists (select from millrace.live l where (l.projection, l.version) = (p.name, p.version)) as live
      from millrace.projection p where p.name = ${name} order by 1`
  )
  const warnings = new Set<string>()
  for (const build of stored.filter((one) => builds.includes(one.version)))
    for (const warning of yield* settle(tx, projection, build, next)) warnings.add(warning)
  if (warnings.size > 0)
    yield* Effect.logWarning(
      `projection ${name} v${version}: ${[...warnings].join("; ")} since it was accepted. ${adviceAboutFunctions(name)}`
    )
})

/** What to do about functions that differ from those that a build's rows were made with. */
export const adviceAboutFunctions = (name: string): string =>
  `If the results stay the same: millrace migrate --accept ${name}; if not, rows keep what the old code made of them until millrace rebuild ${name}, millrace diff ${name} and millrace promote ${name}`

const settle = Effect.fnUntraced(function* (
  tx: Session,
  projection: Projection.Any,
  build: StoredDefinition,
  next: number
): Effect.fn.Return<ReadonlyArray<string>, SqlError | Mismatch> {
  const { name, version } = projection
  const refuse = (reason: string, changes: ReadonlyArray<DefinitionChange>) =>
    new Mismatch({
      what: `projection ${name}`,
      reason: `${reason}; ${adviceAfterChange(projection, next)}`,
      ...(changes.length > 0 && { changes: changes.map(({ effect: _, ...change }) => change) })
    })
  const { functions, parts } = build
  if (parts === null || functions === null) {
    // an earlier release created the build, and stored no more than its tables
    if (build.definition !== definitionOf(projection))
      return yield* refuse(`its tables changed since version ${version} first ran`, [])
    yield* storeDefinition(tx, projection, build.version)
    return []
  }
  const declared = partsOf(projection)
  const changes = definitionChanges(parts, declared)
  const incompatible = changes.filter(({ effect }) => effect === "rebuild")
  if (incompatible.length > 0)
    return yield* refuse(
      `its definition changed since version ${version} first ran: ${incompatible.map(({ text }) => text).join("; ")}`,
      incompatible
    )
  const added = changes.filter(({ effect }) => effect === "addColumn")
  if (added.length > 0) yield* addColumns(tx, projection, build, added)
  for (const { effect, text } of changes)
    if (effect === "keptColumn")
      yield* Effect.logWarning(`projection ${name} v${version}: ${text}; it stays, and new rows have null in it`)
  const warnings = functionChanges(functions, hashesOf(projection))
  const merged = mergedDefinition(parts, declared)
  const text = definitionOf(projection)
  const found = warnings.length === 0 ? null : JSON.stringify(warnings)
  const isSame = JSON.stringify(build.warnings) === JSON.stringify(warnings.length === 0 ? null : warnings)
  if (!isSame || changes.length > 0 || text !== build.definition)
    yield* query(
      "replace the definition of a projection",
      () => tx`update millrace.projection set definition = ${text}, parts = ${JSON.stringify(merged)}::text::jsonb,
          warnings = ${found}::text::jsonb
        where name = ${name} and version = ${build.version}`
    )
  return warnings
})

/** Says what to do if a table that gets a column is in use for longer than `lockMs`. */
const inUse = <E extends SqlError | Mismatch>(error: E): E | SqlError => {
  if (error._tag !== "SqlError" || error.code !== lockTimeout) return error
  const reason =
    "a transaction uses the table for too long. try: end that transaction (see pg_stat_activity), then start again"
  return new SqlError({
    operation: error.operation,
    code: error.code,
    retryable: true,
    inDoubt: false,
    reason,
    cause: error
  })
}

/** How long adding a column waits for what uses the table, in milliseconds: whatever reads the table then waits, too. */
const lockMs = 200
/** Adds nullable columns to the tables of a build, behind the others, and to the views if the build is live. */
const addColumns = Effect.fnUntraced(function* (
  tx: Session,
  projection: Projection.Any,
  { live, version }: StoredDefinition,
  changes: ReadonlyArray<DefinitionChange>
) {
  const { name } = projection
  const relations = relationsOf({ ...projection, version })
  yield* query("limit the wait for tables", () => tx.unsafe(`set local lock_timeout = ${lockMs}`))
  for (const { option, part } of changes) {
    const relation = relations.find((one) => part === `table ${one.name}`)!
    const column = relation.columns.find((one) => option === `column ${one.name}`)!
    yield* query(`add the column ${column.name} to ${relation.qualifiedName}`, () =>
      // several projections may add it to a table that they share
      tx.unsafe(`alter table ${relation.qualifiedName} add column if not exists ${quote(column.name)} ${column.type}`)
    )
    if (relation.shared) yield* extendSharedView(tx, relation)
  }
  if (live) yield* showAdded(tx, name, version)
  yield* query("wait as before", () => tx.unsafe("set local lock_timeout to default"))
}, Effect.mapError(inUse))
/** Shows new columns of the live build, also through a gate that is open. */
const showAdded = Effect.fnUntraced(function* (tx: Session, name: string, live: number) {
  const { views } = yield* readViewFacts(tx, name)
  const other = views.flatMap(({ builds, isGated }) => (isGated ? builds : [])).find((build) => build !== live)
  yield* showBuild(tx, name, { build: live, ...(other !== undefined && { other }) }).pipe(
    Effect.catchTag("ViewsRefused", ({ message: reason }) => new Mismatch({ what: `projection ${name}`, reason }))
  )
})

/** The texts that differ, and the behaviour that does. */
const allWarnings = (sql: Sql) =>
  sql`coalesce(warnings, '[]') || case when behaviour is null then '[]' else jsonb_build_array(behaviour) end`
/**
 * Accepts the functions that the code has now for all builds of its version: what they record is what the builds' rows shall hold. Forgets the samples. Returns what was
 * accepted; nothing if no function had changed.
 */
export const acceptFunctions = (sql: Sql, projection: Projection.Any): Effect.Effect<ReadonlyArray<string>, SqlError> =>
  query("accept the functions of a projection", async () => {
    const rows = await sql<Array<{ readonly warnings: ReadonlyArray<string> }>>`
      with before as (
        select name, version, ${allWarnings(sql)} as warnings from millrace.projection
        where (name, declared) = (${projection.name}, ${projection.version}) and retired_at is null
      )
      update millrace.projection p set functions = ${JSON.stringify(hashesOf(projection))}::text::jsonb, warnings = null, sample = null, behaviour = null
      from before b where (b.name, b.version) = (p.name, p.version) and p.parts is not null returning b.warnings`
    return [...new Set(rows.flatMap(({ warnings }) => warnings))]
  })

/** What the last start found of a projection's functions. */
export interface DefinitionWarning {
  readonly name: string
  readonly version: number
  readonly warnings: ReadonlyArray<string>
}
/** Builds whose functions differ from those that were accepted, by name and number. */
export const readDefinitionWarnings = (sql: Sql): Effect.Effect<ReadonlyArray<DefinitionWarning>, SqlError> =>
  query(
    "read what differs from stored definitions",
    () => sql<Array<DefinitionWarning>>`select name, version, ${allWarnings(sql)} as warnings from millrace.projection
      where retired_at is null and (warnings is not null or behaviour is not null) order by 1, 2`
  )
