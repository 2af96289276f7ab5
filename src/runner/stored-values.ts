// Values as PostgreSQL's columns hold them: what is refused, how rows are merged, ordered, read and published. Handlers' values are checked with
// this before anything is stored, and the store in memory keeps them like this. Pure.
import {
  assertScalar,
  EncodedValue,
  fromRow,
  isStorableNumber,
  storableNumbers,
  type Column,
  type Relation
} from "../model/columns.ts"
import { isDeeper, maxDepth } from "../log/json.ts"
import type { Row } from "../model/recorder.ts"
import { isStorable } from "../text/text.ts"
import { Unstorable } from "./store.ts"

/** Data that PostgreSQL would refuse, with the SQLSTATE that it gives. */
export const refused = (code: string, reason: string) => new Unstorable({ code, reason })
const invalid = (column: Column, value: unknown) =>
  refused("22P02", `invalid input for column ${column.name} of type ${column.type}: ${String(value)}`)

// PostgreSQL's int8 ends before 2^63, and its timestamps are from 4714 BC to 294276 AD
const int8End = 2 ** 63
const firstInstant = -210_866_803_200_000
const endOfInstants = 9_224_318_016_000_000
// PostgreSQL skips this white space around a value, and no other
const around = /^[ \t\n\r\v\f]+|[ \t\n\r\v\f]+$/g
const numeric = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i
const truths: ReadonlySet<string> = new Set(["t", "tr", "tru", "true", "y", "ye", "yes", "on", "1"])
const untruths: ReadonlySet<string> = new Set(["f", "fa", "fal", "fals", "false", "n", "no", "of", "off", "0"])

const utf8 = new TextEncoder()
const compareJsonKeys = (a: string, b: string) => utf8.encode(a).length - utf8.encode(b).length || compareTexts(a, b)
/** JSON with the keys of objects in jsonb's order, in which they are read again: by length in UTF-8, then by code points. */
const inOrderOfJsonb = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(inOrderOfJsonb)
  if (typeof value !== "object" || value === null) return value
  const fields = Object.entries(value).toSorted(([a], [b]) => compareJsonKeys(a, b))
  return Object.fromEntries(fields.map(([key, inner]) => [key, inOrderOfJsonb(inner)]))
}
/** Throws for what jsonb cannot store. */
const assertJson = (value: unknown): void => {
  if (typeof value === "string" && value.includes("\u0000"))
    throw refused("22P05", "unsupported Unicode escape sequence: a text in JSON has a NUL character")
  if (typeof value === "string" && !isStorable(value))
    throw refused("22P02", "invalid input syntax for type json: a text has half a surrogate pair")
  if (typeof value !== "object" || value === null) return
  for (const [key, inner] of Object.entries(value)) {
    assertJson(key)
    assertJson(inner)
  }
}
/** Returns the time. Throws `Unstorable` if no timestamptz can be it. */
export const assertInstant = (time: number): number => {
  if (time >= firstInstant && time < endOfInstants) return time
  throw refused("22008", `timestamp out of range: ${time}`)
}
const numberOf = (column: Column, value: unknown): number => {
  // its text would be read as the same number, except that PostgreSQL's zero has no sign
  if (typeof value === "number" && isStorableNumber(column.type, value)) return value + 0
  const text =
    typeof value === "number" || typeof value === "bigint" || typeof value === "string"
      ? String(value).replace(around, "")
      : ""
  if (!numeric.test(text)) throw invalid(column, value)
  if (column.type === "bigint" && !/^[-+]?\d+$/.test(text)) throw invalid(column, value)
  return Number(text)
}
const encodedJson = ({ name }: Column, text: string): string => {
  if (isDeeper(text, maxDepth))
    throw refused("54001", `column ${name}: the JSON is nested deeper than ${maxDepth} levels`)
  const json: unknown = JSON.parse(text)
  assertJson(json)
  return JSON.stringify(inOrderOfJsonb(json))
}
/** A value as its column holds it; null if there is none. Throws `Unstorable` if PostgreSQL would refuse it. */
const stored = (column: Column, given: unknown): unknown => {
  if (given instanceof EncodedValue) return given.value
  const { encode, nullable, type } = column
  // JSON's null is a value of its own only if the column has no other
  if (given === undefined || (given === null && (nullable || encode === undefined))) return null
  if (encode === undefined) return storedScalar(column, given)
  const encoded = encode(given)
  return type === "jsonb" ? encodedJson(column, encoded as string) : storedScalar(column, encoded)
}
const storedScalar = (column: Column, value: unknown): unknown => {
  const { type } = column
  if (type === "text" && typeof value === "string" && isStorable(value)) return value
  assertScalar(column, value)
  if (typeof value === "number" && !isStorableNumber(type, value))
    throw refused("22P02", `${column.name}: ${value} is not ${storableNumbers[type]} (${type})`)
  switch (type) {
    case "text":
      if (!isStorable(String(value))) throw refused("22021", `NUL or half a surrogate pair in column ${column.name}`)
      return String(value)
    case "boolean": {
      const text = String(value).replace(around, "").toLowerCase()
      if (!truths.has(text) && !untruths.has(text)) throw invalid(column, value)
      return truths.has(text)
    }
    case "timestamptz": {
      return assertInstant(Math.floor(numberOf(column, value)))
    }
    case "bigint": {
      const number = numberOf(column, value)
      if (!(number >= -int8End && number < int8End)) throw refused("22003", `${number} is out of range for type bigint`)
      return number
    }
    default:
      return numberOf(column, value)
  }
}
/** A row with its values as the columns hold them. Throws `Unstorable` or `UnencodableValue`. */
export const storedRow = ({ columns }: Relation, row: Row): Row => {
  const values: Row = {}
  for (const column of columns) values[column.name] = stored(column, row[column.name])
  return values
}
/** A value that a commit can store whatever else is in its batch: `stored` once and for all. Throws `Unstorable` or `UnencodableValue`. */
export const preparedValue = (column: Column, value: unknown): unknown => {
  const kept = stored(column, value)
  return column.encode === undefined || kept === null ? kept : new EncodedValue(kept)
}
/** The same for a row: its columns, or with `isPatch` the key and those that it has. */
export const preparedRow = (relation: Relation, row: Row, isPatch = false): Row => {
  const values: Row = {}
  for (const column of relation.columns) {
    if (!isPatch || column.name in row || relation.key.includes(column.name))
      values[column.name] = preparedValue(column, row[column.name])
  }
  return assertNotNull(relation, values)
}
/** A column's value as the read model's definition has it, from a prepared one. */
export const readValue = ({ decode, type }: Column, value: unknown): unknown => {
  if (!(value instanceof EncodedValue)) return value
  const parsed: unknown = type === "jsonb" ? JSON.parse(value.value as string) : value.value
  return decode === undefined ? parsed : decode(parsed)
}
/** A row as the read model's definition has it, from the values of a prepared row, on top of those of another one. */
export const readRow = (relation: Relation, row: Row, before: Row = {}): Row => {
  const values: Row = { ...before }
  for (const column of relation.columns) {
    const { name, optional } = column
    if (!(name in row)) continue
    if (row[name] === null && optional === true) delete values[name]
    else values[name] = readValue(column, row[name])
  }
  return values
}
/** Returns the row. Throws `Unstorable` if a column has no value that must have one. */
export const assertNotNull = ({ columns, name }: Relation, row: Row): Row => {
  const missing = columns.find((column) => !column.nullable && row[column.name] === null)
  if (missing === undefined) return row
  throw refused("23502", `null value in column ${missing.name} of ${name}, which must have a value`)
}

/** What becomes of a window's column when a batch's delta is added. Throws `Unstorable` on overflow. */
export const merged = ({ delta, name, type }: Column, before: never, value: never): unknown => {
  switch (delta) {
    case "count":
    case "sum": {
      const sum = before + value
      if (!isStorableNumber(type, sum))
        throw refused("22003", `value out of range: overflow of column ${name} (${type})`)
      return sum
    }
    case "min":
      return Math.min(before, value)
    case "max":
      return Math.max(before, value)
    default:
      return value
  }
}

/** Texts in the order of their code points, as PostgreSQL's collation "C" has them in UTF-8. */
const compareTexts = (a: string, b: string): number => {
  for (let i = 0; i < a.length && i < b.length; i++) {
    const [x, y] = [a.charCodeAt(i), b.charCodeAt(i)]
    if (x === y) continue
    // a surrogate belongs to a code point above all that are one unit
    const [high, other] = [x >= 0xd800 && x < 0xe000, y >= 0xd800 && y < 0xe000]
    return high === other ? x - y : high ? 1 : -1
  }
  return a.length - b.length
}
/** Rows in the order of their keys, as PostgreSQL sorts them. */
export const byKey =
  ({ key }: Relation) =>
  (a: Row, b: Row): number => {
    for (const column of key) {
      const [x, y] = [a[column], b[column]]
      const order = typeof x === "string" ? compareTexts(x, y) : Number(x) - Number(y)
      if (order !== 0) return order
    }
    return 0
  }
/** A row as a message: the columns that the topic declares, jsonb as JSON. */
export const messageText = ({ columns }: Relation, row: Row, fields: ReadonlyArray<string> | undefined): string => {
  const shown = fields === undefined ? columns : columns.filter(({ name }) => fields.includes(name))
  const value = ({ name, type }: Column) =>
    type === "jsonb" && row[name] !== null ? (row[name] as string) : JSON.stringify(row[name])
  return `{${shown.map((column) => `${JSON.stringify(column.name)}:${value(column)}`).join(",")}}`
}

/** The relation with the columns of its key alone. */
export const keyOnly = ({ columns, key, name }: Relation): Relation => ({
  name,
  key,
  columns: columns.filter((column) => key.includes(column.name))
})
/** A stored row as PostgreSQL's client returns it: jsonb is parsed. */
export const parsedRow = ({ columns }: Relation, row: Row): Row => {
  const json = columns.filter(({ name, type }) => type === "jsonb" && row[name] !== null)
  return { ...row, ...Object.fromEntries(json.map(({ name }) => [name, JSON.parse(row[name] as string) as unknown])) }
}
/** A row as the read model's definition has it, from the stored one. */
export const decoded = (relation: Relation, row: Row): Row => fromRow(relation, parsedRow(relation, row))
