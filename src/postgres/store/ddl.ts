// The DDL of a projection's tables: a schema for each build, and a table for each read model.
import type { Projection } from "../../model/projection.ts"
import { readModelsOf, type Relation } from "../../model/columns.ts"
import type { Writable } from "../../model/handler.ts"
import { quote } from "../client/columns.ts"

/** The schema of one version of a projection. */
export const schemaOf = (projection: string, version: number): string => `${projection}_v${version}`
/** The schema of read models that several projections share. */
export const sharedSchema = "millrace_shared"

/** A read model's table in the database. */
export interface StoredRelation extends Relation {
  /** Schema and table, quoted for SQL. */
  readonly qualifiedName: string
  readonly shared: boolean
}

/** The read models of a projection, sorted by name. */
export const relationsOf = (projection: Projection.Any): ReadonlyArray<StoredRelation> =>
  readModelsOf(projection.writes as ReadonlyArray<Writable>).map((relation) => {
    const schema = relation.shared ? sharedSchema : schemaOf(projection.name, projection.version)
    return Object.assign(relation, { qualifiedName: `${schema}.${quote(relation.name)}` })
  })

/** The statements that create a version's tables if they do not exist. */
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
const tableDdl = ({ columns, key, qualifiedName }: StoredRelation): string => {
  const lines = columns.map(({ name, nullable, type }) => `${quote(name)} ${type}${nullable ? "" : " not null"}`)
  const primaryKey = `primary key (${key.map(quote).join(", ")})`
  // leaves room on each page, because rows of open windows are updated many times
  return `create table if not exists ${qualifiedName} (\n  ${[...lines, primaryKey].join(",\n  ")}\n) with (fillfactor = 80)`
}
/** A text that changes when the shapes of the tables change, and only then. */
export const definitionOf = (projection: Projection.Any): string =>
  JSON.stringify(relationsOf(projection).map(({ columns, key, name, shared }) => ({ name, key, shared, columns })))
