// The DDL of a projection: a schema a version, a table a read model, and the stable views over the version that is live.
import type { Projection } from "../../model/projection.ts"
import { readModelsOf, type Relation } from "../../model/columns.ts"
import type { Writable } from "../../model/handler.ts"
import { quote } from "../client/columns.ts"

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
  readModelsOf(projection.writes as ReadonlyArray<Writable>).map((relation) => {
    const schema = relation.shared ? sharedSchema : schemaOf(projection.name, projection.version)
    return Object.assign(relation, { at: `${schema}.${quote(relation.name)}` })
  })

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
