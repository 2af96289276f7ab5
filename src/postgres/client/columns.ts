// How a schema becomes a column: its SQL type, its values as array parameters, and its form in published JSON.
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import type { Fields } from "../../model/fields.ts"
import type { Table } from "../../model/read-model.ts"
import type { Row } from "../../model/recorder.ts"
import type { Window } from "../../model/window.ts"
import { arrayLiteral } from "./types.ts"

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
  /** A value for PostgreSQL, where it is not itself. */
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

/** A name in quotes: a read model or a column may be called `order` or `user`. */
export const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`

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
    ...codecOf(schema as unknown as Schema.Codec<unknown>, type)
  }
}
/** How values go in and come back, where they do not as they are. */
const codecOf = (schema: Schema.Codec<unknown>, type: SqlType): Pick<Column, "encode" | "decode"> => {
  const codec = Schema.toCodecJson(schema)
  const isPlain = SchemaAST.toEncoded(codec.ast) === codec.ast
  if (isPlain && type !== "jsonb") return {}
  const toJson = Schema.encodeUnknownSync(codec)
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

/** Values as one array parameter; null where there is none. */
export const arrayOf = (values: ReadonlyArray<string | number | null | undefined>): string =>
  arrayLiteral(values.map((value) => value ?? null))
/** PostgreSQL would take more, and nobody could read it, publish it or add to it again. What is not kept goes as a text that it refuses. */
const isKept = (type: SqlType, value: number) =>
  type === "bigint" ? Number.isSafeInteger(value) : Number.isFinite(value)
const kept: Partial<Record<SqlType, string>> = {
  bigint: "a whole number up to 2^53",
  "double precision": "a finite number",
  timestamptz: "a number of milliseconds"
}
/** A column of rows as one array parameter of `parameterType`. */
export const columnArray = ({ encode, name, nullable, type }: Column, rows: ReadonlyArray<Row>): string =>
  arrayLiteral(
    rows.map((row) => {
      const value = row[name]
      // JSON's null is a value of its own only where the column has no other
      if (value === undefined || (value === null && (nullable || encode === undefined))) return null
      if (encode !== undefined) return encode(value) as string
      return typeof value === "number" && !isKept(type, value) ? `${value} is not ${kept[type]}` : value
    })
  )
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
/** The type of a column's array parameter. Instants go as epoch milliseconds. */
export const parameterType = ({ type }: Column): string =>
  type === "timestamptz" ? "float8[]" : type === "jsonb" ? "text[]" : `${type}[]`
/** A parameter's element as the column's value. */
export const fromParameter = ({ name, type }: Column, alias: string): string => {
  const value = `${alias}.${quote(name)}`
  if (type === "jsonb") return `${value}::jsonb`
  if (type !== "timestamptz") return value
  // seconds and the rest apart: together, a double has no place for the milliseconds of far years
  const seconds = `floor(${value} / 1000)`
  return `to_timestamp(${seconds}) + (${value} - ${seconds} * 1000) * interval '1 ms'`
}
/** A column's value as JSON shows it: instants as epoch milliseconds. */
export const toJson = ({ name, type }: Column, alias: string): string =>
  type === "timestamptz"
    ? `(extract(epoch from ${alias}.${quote(name)}) * 1000)::int8 as ${quote(name)}`
    : `${alias}.${quote(name)}`
/** `order by` the key, in an order that every writer has. */
export const keyOrder = (relation: Relation, alias: string): string =>
  relation.key
    .map((name) => {
      const { type } = relation.columns.find((column) => column.name === name)!
      return type === "text" ? `${alias}.${quote(name)} collate "C"` : `${alias}.${quote(name)}`
    })
    .join(", ")
