// How the columns of a read model are written in SQL: names, array parameters, casts, and their form in published JSON.
import { isStorableNumber, storableNumbers, type Column, type Relation } from "../../model/columns.ts"
import type { Row } from "../../model/recorder.ts"
import { arrayLiteral } from "./types.ts"

/** A name in quotes: a read model or a column may be called `order` or `user`. */
export const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`

/** Values as one array parameter; null where there is none. */
export const arrayOf = (values: ReadonlyArray<string | number | null | undefined>): string =>
  arrayLiteral(values.map((value) => value ?? null))
/** A column of rows as one array parameter of `parameterType`. */
export const columnArray = ({ encode, name, nullable, type }: Column, rows: ReadonlyArray<Row>): string =>
  arrayLiteral(
    rows.map((row) => {
      const value = row[name]
      // JSON's null is a value of its own only where the column has no other
      if (value === undefined || (value === null && (nullable || encode === undefined))) return null
      if (encode !== undefined) return encode(value) as string
      return typeof value === "number" && !isStorableNumber(type, value)
        ? `${value} is not ${storableNumbers[type]}`
        : value
    })
  )
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
