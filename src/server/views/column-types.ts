// How a query parameter becomes a value of a column, and how a column is printed as JSON, by its type in SQL. Pure.
import { quote } from "../../postgres/client/columns.ts"
import { dateOf } from "../../text/moment.ts"
import { isStorable } from "../../text/text.ts"
import type { ViewColumn } from "./catalog.ts"

/** The kinds of columns that can be filtered. */
type Kind = "text" | "integer" | "number" | "boolean" | "instant" | "time" | "uuid" | "json" | "other"

const kinds: Readonly<Record<string, Kind>> = {
  text: "text",
  "character varying": "text",
  name: "text",
  smallint: "integer",
  integer: "integer",
  bigint: "integer",
  numeric: "number",
  real: "number",
  "double precision": "number",
  boolean: "boolean",
  "timestamp with time zone": "instant",
  "timestamp without time zone": "time",
  date: "time",
  uuid: "uuid",
  jsonb: "json"
}
/** The kind of a column. */
export const kindOf = ({ type }: ViewColumn): Kind => kinds[type] ?? "other"

/** What a value of each kind looks like, for errors and documentation. */
export const forms: Readonly<Record<Exclude<Kind, "other">, string>> = {
  text: "a text without NUL",
  integer: "a whole number",
  number: "a number such as 12.5 or 1e9",
  boolean: "true or false",
  instant: "a time such as 2026-01-31T12:00:00Z, or epoch milliseconds",
  time: "a time such as 2026-01-31T12:00:00, or a date",
  uuid: "a UUID",
  json: "a JSON value"
}

const bounds: Readonly<Record<string, bigint>> = { smallint: 15n, integer: 31n, bigint: 63n }
const isInteger = (type: string, text: string): boolean => {
  if (!/^[+-]?\d{1,20}$/.test(text)) return false
  const bound = 2n ** bounds[type]!
  const value = BigInt(text.replace("+", ""))
  return value >= -bound && value < bound
}
const zone = String.raw`(Z|[+-]\d\d:\d\d)`
const date = String.raw`\d{4}-\d\d-\d\d`
const clock = String.raw`T\d\d:\d\d(:\d\d(\.\d{1,6})?)?`
const instants = new RegExp(`^${date}(${clock}${zone})?$`)
const times = new RegExp(`^${date}(${clock})?$`)
/** The last millisecond that PostgreSQL and JavaScript have. */
const latestMs = 8_640_000_000_000_000

/** The text that PostgreSQL reads as the value of a parameter; undefined if the parameter is no value of the column's type. */
export const valueOf = (column: ViewColumn, text: string): string | undefined => {
  if (!isStorable(text)) return undefined
  switch (kindOf(column)) {
    case "text":
      return text
    case "integer":
      return isInteger(column.type, text) ? text : undefined
    case "number":
      return /^[+-]?(\d{1,400}(\.\d{0,400})?|\.\d{1,400})(e[+-]?\d{1,3})?$/i.test(text) ? text : undefined
    case "boolean":
      return /^(true|false)$/.test(text) ? text : undefined
    case "instant": {
      if (/^-?\d{1,16}$/.test(text)) {
        const ms = Number(text)
        // years before 1 have another form in PostgreSQL
        return ms >= -62_135_596_800_000 && ms <= Math.min(latestMs, 253_402_300_799_999)
          ? new Date(ms).toISOString()
          : undefined
      }
      return instants.test(text) && dateOf(text) !== undefined ? text : undefined
    }
    case "time":
      return times.test(text) && dateOf(text) !== undefined ? text : undefined
    case "uuid":
      return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text) ? text : undefined
    case "json":
      return isJson(text) ? text : undefined
    case "other":
      return undefined
  }
}
const isJson = (text: string): boolean => {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** Whether rows can be put in the order of a column, and compared with `gt` and the like. */
export const isOrdered = (column: ViewColumn): boolean => {
  const kind = kindOf(column)
  return kind !== "other" && kind !== "json"
}

/** The SQL of a column's value in the JSON of a row: PostgreSQL's own, with every digit of a number, and times of UTC with `Z`. */
export const printed = (column: ViewColumn, alias: string): string => {
  const value = `${alias}.${quote(column.name)}`
  return kindOf(column) === "instant"
    ? `replace(to_json(${value}) #>> '{}', '+00:00', 'Z') as ${quote(column.name)}`
    : `${value} as ${quote(column.name)}`
}

/** The JSON Schema of a column's value, for the documentation. */
export const schemaOf = (column: ViewColumn): Readonly<Record<string, unknown>> => {
  switch (kindOf(column)) {
    case "text":
      return { type: "string" }
    case "integer":
      return { type: "integer" }
    case "number":
      return { type: "number" }
    case "boolean":
      return { type: "boolean" }
    case "instant":
      return { type: "string", format: "date-time" }
    case "uuid":
      return { type: "string", format: "uuid" }
    case "time":
      return { type: "string" }
    default:
      return {}
  }
}
