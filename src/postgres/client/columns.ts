// How the columns of a read model are written in SQL: names, array parameters, casts, and their form in published JSON.
import {
  assertScalar,
  EncodedValue,
  isStorableNumber,
  storableNumbers,
  type Column,
  type Relation
} from "../../model/columns.ts"
import type { Row } from "../../model/recorder.ts"
import { storable } from "../../text/text.ts"
import { arrayLiteral } from "./types.ts"

/** Quotes a name, since a read model or a column may be called `order` or `user`. */
export const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`

/** Values as one array parameter; an undefined value becomes null. */
export const arrayOf = (values: ReadonlyArray<string | number | null | undefined>): string =>
  arrayLiteral(values.map((value) => value ?? null))
/**
 * Texts of people, records and errors as one array parameter, for Millrace's own tables: a text that PostgreSQL cannot store is there as JSON,
 * with escapes. Every such text passes here or through `storable`.
 */
export const textArray = (texts: ReadonlyArray<string | null | undefined>): string =>
  arrayLiteral(texts.map((text) => (text == null ? null : storable(text))))
/**
 * A column of rows as one array parameter of `parameterType`. A number that cannot be stored is sent as a text that PostgreSQL refuses,
 * so that its error says why.
 */
export const columnArray = (column: Column, rows: ReadonlyArray<Row>): string => {
  const { encode, name, nullable, type } = column
  return arrayLiteral(
    rows.map((row) => {
      const value = row[name]
      // JSON's null is a value of its own only in a column that is not nullable
      if (value === undefined || (value === null && (nullable || encode === undefined))) return null
      if (value instanceof EncodedValue) return value.value as string
      if (encode !== undefined) return encode(value) as string
      assertScalar(column, value)
      return typeof value === "number" && !isStorableNumber(type, value)
        ? `${value} is not ${storableNumbers[type]}`
        : value
    })
  )
}
/** The type of a column's array parameter. Instants are sent as epoch milliseconds. */
export const parameterType = ({ type }: Column): string =>
  type === "timestamptz" ? "float8[]" : type === "jsonb" ? "text[]" : `${type}[]`
/** The SQL that turns an element of the array parameter into the column's value. */
export const fromParameter = ({ name, type }: Column, alias: string): string => {
  const value = `${alias}.${quote(name)}`
  if (type === "jsonb") return `${value}::jsonb`
  if (type !== "timestamptz") return value
  // seconds and milliseconds are added separately: one double cannot hold the milliseconds of years far away. Fractions of milliseconds
  // are rounded down as event times are: rows would be read with one millisecond, and published with another
  const seconds = `floor(${value} / 1000)`
  return `to_timestamp(${seconds}) + (floor(${value}) - ${seconds} * 1000) * interval '1 ms'`
}
/** The SQL of a column's value in published JSON: instants become epoch milliseconds. */
export const toJson = ({ name, type }: Column, alias: string): string =>
  type === "timestamptz"
    ? `(extract(epoch from ${alias}.${quote(name)}) * 1000)::int8 as ${quote(name)}`
    : `${alias}.${quote(name)}`
/** The `order by` list of the key, which gives the same order in every session. */
export const keyOrder = (relation: Relation, alias: string): string =>
  relation.key
    .map((name) => {
      const { type } = relation.columns.find((column) => column.name === name)!
      return type === "text" ? `${alias}.${quote(name)} collate "C"` : `${alias}.${quote(name)}`
    })
    .join(", ")
