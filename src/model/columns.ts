// The columns of a read model: the SQL type that follows from each schema, and how values are stored and read back. Pure.
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import type { Fields } from "./fields.ts"
import type { Writable } from "./handler.ts"
import type { Table } from "./read-model.ts"
import type { Row } from "./recorder.ts"
import type { Window } from "./window.ts"

/** The SQL types that columns have. */
export type SqlType = "text" | "bigint" | "double precision" | "boolean" | "timestamptz" | "jsonb"
/** A column of a read model. */
export interface Column {
  readonly name: string
  readonly type: SqlType
  readonly nullable: boolean
  /** What a batch's delta does to it; undefined: the new value replaces the old one. */
  readonly delta?: "count" | "sum" | "min" | "max"
  /** Null stands for a field that the row does not have. */
  readonly optional?: true
  /** A value for PostgreSQL, if it is not itself. Throws `UnencodableValue`. */
  readonly encode?: (value: unknown) => unknown
  /** A value from PostgreSQL, where it is not itself. */
  readonly decode?: (value: unknown) => unknown
}
/** A read model as the store knows it: a table or a window's rows. */
export interface Relation {
  readonly name: string
  readonly columns: ReadonlyArray<Column>
  readonly key: ReadonlyArray<string>
}

type Json = {
  readonly type?: string
  readonly title?: string
  readonly anyOf?: ReadonlyArray<Json>
  readonly enum?: ReadonlyArray<unknown>
  readonly allOf?: ReadonlyArray<Json>
  readonly $ref?: string
}

/** The column for a schema. What JSON tells apart decides; `Column.timestamptz` says so in its title. */
export const columnOf = (name: string, schema: Fields[string]): Column => {
  const document = Schema.toJsonSchemaDocument(schema as unknown as Schema.Schema<unknown>)
  const definitions = document.definitions as Readonly<Record<string, Json>>
  const resolve = (json: Json): Json =>
    json.$ref === undefined ? json : resolve(definitions[json.$ref.slice(json.$ref.lastIndexOf("/") + 1)] ?? {})
  const json = resolve(document.schema as Json)
  const variants = (json.anyOf ?? [json]).map(resolve)
  const values = variants.filter(({ type }) => type !== "null")
  const isOptional =
    (schema.ast as { readonly context?: { readonly isOptional?: boolean } }).context?.isOptional === true
  const hasNull = values.length < variants.length
  const types = new Set(values.map(typeOf))
  const type = types.size === 1 ? [...types][0]! : "jsonb"
  return {
    name,
    type,
    nullable: hasNull || isOptional,
    ...(isOptional && !hasNull && { optional: true as const }),
    ...codecOf(name, schema as unknown as Schema.Codec<unknown>, type)
  }
}
/** A value does not fit its column's schema. It counts as data that PostgreSQL refuses: `code` is the SQLSTATE for that. */
export class UnencodableValue extends Error {
  readonly code = "22023"
  constructor(column: string, reason: string) {
    super(`column ${column}: ${reason}`)
  }
}
/** How values go in and come back, where they do not as they are. */
const codecOf = (name: string, schema: Schema.Codec<unknown>, type: SqlType): Pick<Column, "encode" | "decode"> => {
  const codec = Schema.toCodecJson(schema)
  const isPlain = SchemaAST.toEncoded(codec.ast) === codec.ast
  if (isPlain && type !== "jsonb") return {}
  const encodeSync = Schema.encodeUnknownSync(codec)
  const toJson = (value: unknown) => {
    try {
      return encodeSync(value)
    } catch (error) {
      throw new UnencodableValue(name, (error as Error).message)
    }
  }
  const encode = type === "jsonb" ? (value: unknown) => JSON.stringify(toJson(value)) : toJson
  return isPlain ? { encode } : { encode, decode: Schema.decodeUnknownSync(codec) }
}
const typeOf = (json: Json): SqlType => {
  if (titled(json, "timestamptz")) return "timestamptz"
  switch (json.type) {
    case "string":
      return "text"
    case "integer":
      return "bigint"
    case "number":
      return "double precision"
    case "boolean":
      return "boolean"
    default:
      return "jsonb"
  }
}
const titled = (json: Json, title: string): boolean =>
  json.title === title || (json.allOf?.some((part) => titled(part, title)) ?? false)

/** A table's relation. */
export const tableRelation = (table: Table.Any): Relation => ({
  name: table.name,
  columns: Object.entries(table.columns).map(([name, schema]) => columnOf(name, schema)),
  key: table.primaryKey
})

/** A window's relation: key, `window_size` and `window_start` where its shape has them, and the aggregates. */
export const windowRelation = (window: Window.Any): Relation => {
  const sized = window.shape.type !== "global"
  const fold = Object.values(window.aggregate).some(({ sql }) => sql === "fold")
  const columns: Array<Column> = window.key.map((name) => columnOf(name, window.keyFields[name]!))
  if (sized) {
    columns.push({ name: "window_size", type: "text", nullable: false })
    columns.push({ name: "window_start", type: "timestamptz", nullable: false })
  }
  for (const [name, { sql, state }] of Object.entries(window.aggregate)) {
    if (sql === "fold") columns.push(columnOf(name, state as Fields[string]))
    else {
      const type = sql === "count" ? "bigint" : "double precision"
      // where a row is read and folded here, all its columns are written back whole
      columns.push(fold ? { name, type, nullable: false } : { name, type, nullable: false, delta: sql })
    }
  }
  return { name: window.name, columns, key: sized ? [...window.key, "window_size", "window_start"] : window.key }
}

/** The relations of all read models that a projection writes, in the order of their names. */
export const readModelsOf = (writes: ReadonlyArray<Writable>): ReadonlyArray<Relation & { readonly shared: boolean }> =>
  writes
    .filter((target) => target.kind !== "topic")
    .map((target) =>
      Object.assign(target.kind === "table" ? tableRelation(target) : windowRelation(target), { shared: target.shared })
    )
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))

/** Why a read model cannot have the key that it declares; undefined if all can. Keys are compared here and in the database alike. */
export const keyProblem = (writes: ReadonlyArray<Writable>): string | undefined => {
  for (const { columns, key, name } of readModelsOf(writes)) {
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

/** What a number must be so that its column can store it, read it back, publish it and add to it. Other numbers are refused. */
export const storableNumbers: Partial<Record<SqlType, string>> = {
  bigint: "a whole number up to 2^53",
  "double precision": "a finite number",
  timestamptz: "a number of milliseconds"
}
/** Whether a column of the type can store the number, see `storableNumbers`. */
export const isStorableNumber = (type: SqlType, value: number): boolean =>
  type === "bigint" ? Number.isSafeInteger(value) : Number.isFinite(value)
/** A row as the read model's definition has it, from the one that was read. */
export const fromRow = ({ columns }: Relation, row: Row): Row => {
  const values: Row = {}
  for (const { decode, name, optional } of columns) {
    const value: unknown = row[name]
    if (value === null && optional === true) continue
    values[name] = value === null || decode === undefined ? value : decode(value)
  }
  return values
}
