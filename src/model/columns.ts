// The columns of a read model: the SQL type that follows from each schema, and how values are stored and read back. Pure.
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import type { Fields } from "./fields.ts"
import type { Writable } from "./handler.ts"
import type { Table } from "./read-model.ts"
import type { Row } from "./recorder.ts"
import type { Window } from "./window.ts"

/** The SQL types of columns. */
export type SqlType = "text" | "bigint" | "double precision" | "boolean" | "timestamptz" | "jsonb"
/** A column of a read model. */
export interface Column {
  readonly name: string
  readonly type: SqlType
  readonly nullable: boolean
  /** How the delta of a batch changes the stored value; undefined: the new value replaces it. */
  readonly delta?: "count" | "sum" | "min" | "max"
  /** The field is optional in the schema: null in the database means that the row does not have it. */
  readonly optional?: true
  /** Converts a value for PostgreSQL; undefined if it is stored as it is. Throws `UnencodableValue`. */
  readonly encode?: (value: unknown) => unknown
  /** Converts a value from PostgreSQL; undefined if it is used as it is. */
  readonly decode?: (value: unknown) => unknown
}
/** A read model as a relation in SQL: a table, or the rows of a window. */
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

/** The column of a schema. Its SQL type follows from the JSON Schema, whose title is `timestamptz` for `Column.timestamptz`. */
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
/** A value that `Column.encode` has encoded already: JSON as text, or what the schema makes of the value. */
export class EncodedValue {
  readonly value: unknown
  constructor(value: unknown) {
    this.value = value
  }
}
/** A value does not fit the schema of its column. It is treated as data that PostgreSQL refuses: `code` is the SQLSTATE for that. */
export class UnencodableValue extends Error {
  override readonly name = "UnencodableValue"
  readonly code = "22023"
  constructor(column: string, reason: string) {
    super(`column ${column}: ${reason}`)
  }
}
/**
 * Throws `UnencodableValue` for what a column of texts, numbers, booleans or times cannot hold, and PostgreSQL would not refuse for that. An
 * object, a function or a symbol has no form as an element of an array parameter: an array would become several elements, and move the
 * values of later rows. A text for a number may only be a decimal one, for others are not the same number everywhere.
 */
export const assertScalar = ({ name, type }: Column, value: unknown): void => {
  const isNumeric = storableNumbers[type] !== undefined
  switch (typeof value) {
    case "object":
    case "function":
    case "symbol":
      throw new UnencodableValue(
        name,
        `a value of the type ${typeof value} cannot be stored in a column of type ${type}`
      )
    case "number":
      if (isNumeric || Number.isFinite(value)) return
      throw new UnencodableValue(name, `${value} cannot be stored in a column of type ${type}`)
    case "bigint":
    case "string": {
      const text = String(value)
      if (!isNumeric || !(foreignNumber.test(text) || isRounded(type, text))) return
      throw new UnencodableValue(name, `${text} is not ${storableNumbers[type]}`)
    }
  }
}
// texts that PostgreSQL reads as numbers, and that are none or others in JavaScript
const foreignNumber = /^\s*[-+]?(nan|inf|0[xob])|_/i
/** Whether the text is a decimal number that would be another one once it was read. */
const isRounded = (type: SqlType, text: string): boolean => {
  const number = Number(text)
  if (type === "bigint") return Number.isInteger(number) && !Number.isSafeInteger(number)
  return Math.abs(number) === Infinity || (number === 0 && /^[^e]*[1-9]/i.test(text))
}
/** The conversions of a column's values, if they are not stored as they are. */
const codecOf = (name: string, schema: Schema.Codec<unknown>, type: SqlType): Pick<Column, "encode" | "decode"> => {
  const codec = Schema.toCodecJson(schema)
  const isPlain = SchemaAST.toEncoded(codec.ast) === codec.ast
  if (isPlain && type !== "jsonb") return {}
  const encodeSync = Schema.encodeUnknownSync(codec)
  const encode = (value: unknown) => {
    try {
      const encoded = encodeSync(value)
      return type === "jsonb" ? JSON.stringify(encoded) : encoded
    } catch (error) {
      throw new UnencodableValue(name, (error as Error).message)
    }
  }
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

const relations = new WeakMap<Table.Any | Window.Any, Relation>()
/** The relation of a read model. */
export const relationOf = (target: Table.Any | Window.Any): Relation => {
  let relation = relations.get(target)
  if (relation === undefined) {
    relation = target.kind === "table" ? tableRelation(target) : windowRelation(target)
    relations.set(target, relation)
  }
  return relation
}
const tableRelation = (table: Table.Any): Relation => ({
  name: table.name,
  columns: Object.entries(table.columns).map(([name, schema]) => columnOf(name, schema)),
  key: table.primaryKey
})

/** The key, `window_size` and `window_start` (except for a global window), and the aggregates. */
const windowRelation = (window: Window.Any): Relation => {
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
      // the row of a fold is read and changed by the runner, so all its columns are written back as values
      columns.push(fold ? { name, type, nullable: false } : { name, type, nullable: false, delta: sql })
    }
  }
  return { name: window.name, columns, key: sized ? [...window.key, "window_size", "window_start"] : window.key }
}

/** The relations of all read models that a projection writes, ordered by name. */
export const readModelsOf = (writes: ReadonlyArray<Writable>): ReadonlyArray<Relation & { readonly shared: boolean }> =>
  writes
    .filter((target) => target.kind !== "topic")
    .map((target) => Object.assign({ shared: target.shared }, relationOf(target)))
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))

const mostKeyColumns = 32
/** Why the key of a read model is not possible; undefined if all keys are. Keys must compare the same in the runner and in PostgreSQL. */
export const keyProblem = (writes: ReadonlyArray<Writable>): string | undefined => {
  for (const { columns, key, name } of readModelsOf(writes)) {
    if (key.length > mostKeyColumns)
      return `the key of ${name} has ${key.length} columns, and PostgreSQL takes at most ${mostKeyColumns}; combine some of them`
    for (const column of key.map((part) => columns.find((other) => other.name === part)!)) {
      const what = `column ${column.name} in the key of ${name}`
      if (column.nullable) return `${what} may be null or missing; use a schema that requires a value`
      if (column.encode !== undefined) {
        return `${what} has the type ${column.type} or a schema that transforms it; keys can be strings, numbers, booleans or timestamptz`
      }
    }
  }
  return undefined
}

/** Which numbers a column of each SQL type can store, read back, publish and add up; for errors. Other numbers are refused. */
export const storableNumbers: Partial<Record<SqlType, string>> = {
  bigint: "a whole number up to 2^53",
  "double precision": "a finite number",
  timestamptz: "a number of milliseconds"
}
/** Whether a column of this type can store the number; see `storableNumbers`. */
export const isStorableNumber = (type: SqlType, value: number): boolean =>
  type === "bigint" ? Number.isSafeInteger(value) : Number.isFinite(value)
/** A row as the read model declares it, from a row that was read from PostgreSQL. */
export const fromRow = ({ columns }: Relation, row: Row): Row => {
  const values: Row = {}
  for (const { decode, name, optional } of columns) {
    const value: unknown = row[name]
    if (value === null && optional === true) continue
    values[name] = value === null || decode === undefined ? value : decode(value)
  }
  return values
}
