// The DDL of a projection: a schema a version, a table a read model, and the stable views over the version that is live.
import type { Projection } from "../../model/projection.ts"
import { quote, tableRelation, windowRelation, type Relation } from "../client/columns.ts"
import type { Writable } from "../../model/handler.ts"

/** The schema that a projection's version has to itself. */
export const schemaOf = (projection: string, version: number): string => `${projection}_v${version}`
/** The schema of read models that several projections write. */
export const sharedSchema = "millrace_shared"

/** A read model with its place in the database. */
export interface Placed extends Relation {
  /** Schema and table, as SQL names it. */
  readonly at: string
  readonly shared: boolean
}

/** Every read model of a projection, in the order of their names. */
export const relationsOf = (projection: Projection.Any): ReadonlyArray<Placed> =>
  (projection.writes as ReadonlyArray<Writable>)
    .filter((target) => target.kind !== "topic")
    .map((target) => {
      const relation = target.kind === "table" ? tableRelation(target) : windowRelation(target)
      const schema = target.shared ? sharedSchema : schemaOf(projection.name, projection.version)
      return Object.assign(relation, { at: `${schema}.${quote(target.name)}`, shared: target.shared })
    })
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))

/** Why a read model cannot have the key it declares; undefined where all can. Keys are compared here and in the database alike. */
export const unusableKey = (projection: Projection.Any): string | undefined => {
  for (const { columns, key, name } of relationsOf(projection)) {
    for (const column of key.map((part) => columns.find((other) => other.name === part)!)) {
      const what = `${column.name} is a column of ${name}'s key`
      if (column.nullable) return `${what} and may be null or left out: give it a value that says so`
      if (column.encode !== undefined) {
        return `${what} and has the type ${column.type} or is transformed: keys are texts, numbers, booleans or timestamptz, as they are`
      }
    }
  }
  return undefined
}

/** The statements that make a version's tables where they are missing. */
export const tablesDdl = (projection: Projection.Any): ReadonlyArray<string> => {
  const relations = relationsOf(projection)
  const schemas = new Set([
    schemaOf(projection.name, projection.version),
    ...relations.filter((r) => r.shared).map(() => sharedSchema)
  ])
  return [
    ...[...schemas].map((schema) => `create schema if not exists ${schema}`),
    ...relations.map((relation) => tableDdl(relation))
  ]
}
const tableDdl = ({ at, columns, key }: Placed): string => {
  const lines = columns.map(({ name, nullable, type }) => `${quote(name)} ${type}${nullable ? "" : " not null"}`)
  const primaryKey = `primary key (${key.map(quote).join(", ")})`
  // room on each page: rows of windows are updated many times while they are open
  return `create table if not exists ${at} (\n  ${[...lines, primaryKey].join(",\n  ")}\n) with (fillfactor = 80)`
}
/** The statements that point the stable views at a version. */
export const viewsDdl = (projection: Projection.Any): ReadonlyArray<string> =>
  relationsOf(projection).flatMap(({ at, name }) => [
    `drop view if exists public.${quote(name)}`,
    `create view public.${quote(name)} as select * from ${at}`
  ])
/** What tells a changed definition: the tables' shapes, and no more. */
export const definitionOf = (projection: Projection.Any): string =>
  JSON.stringify(relationsOf(projection).map(({ columns, key, name, shared }) => ({ name, key, shared, columns })))
