// A page of rows in other forms: the SQL that reads it, and files of it. Pure.
import { instantOf, shellWord } from "./format.js"
import { isNested } from "./json.js"
import { isTime } from "./types.js"

/** The parameters of the address that are the console's own, and no filters. */
export const columnsParameter = "~columns"
const own = new Set(["order", "after", "limit", columnsParameter])
export const operators = ["eq", "ne", "gt", "gte", "lt", "lte", "in", "prefix", "null"]

/** The filters of an address, as `{ name, column, operator, value }`. */
export const filtersOf = (query, columns) =>
  Object.entries(query)
    .filter(([name]) => !own.has(name))
    .map(([name, value]) => {
      const isColumn = columns.some((one) => one.name === name)
      const dot = name.lastIndexOf(".")
      return isColumn || dot < 0
        ? { name, column: name, operator: "eq", value }
        : { name, column: name.slice(0, dot), operator: name.slice(dot + 1), value }
    })
/** The operators that a type has. */
export const operatorsOf = (type = "text") => {
  if (type === "jsonb") return ["eq", "ne", "null"]
  if (type === "boolean") return ["eq", "ne", "null"]
  if (/^(text|character varying|name)$/.test(type)) return operators
  if (/^(smallint|integer|bigint|numeric|real|double precision|timestamp|date|uuid)/.test(type))
    return operators.filter((one) => one !== "prefix")
  return ["null"]
}

/** What was typed as the value of a filter, as the parameter: times as the API takes them. */
export const valueFor = (type, operator, text) =>
  !isTime(type) || operator === "null"
    ? text
    : operator === "in"
      ? text.split(",").map(instantOf).join(",")
      : instantOf(text)

const quoted = (name) => `"${name.replaceAll('"', '""')}"`
/** A literal: `E''` where the text has a backslash, so that it means the same whatever the server's settings are. */
const literal = (text) => `${text.includes("\\") ? "E" : ""}'${text.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`
const valueOf = (text, type) =>
  isTime(type) && /^-?\d+$/.test(text) ? `to_timestamp(${text} / 1000.0)` : `${literal(text)}::${type}`
const signs = { eq: "=", gt: ">", gte: ">=", lt: "<", lte: "<=" }
const listOf = (text) => (text.startsWith("[") ? JSON.parse(text).map(String) : text.split(","))
const conditionOf = ({ column, operator, value }, type) => {
  const name = quoted(column)
  if (operator === "null") return `${name} is ${value === "true" ? "" : "not "}null`
  if (operator === "ne") return `${name} is distinct from ${valueOf(value, type)}`
  if (operator === "in")
    return `${name} in (${listOf(value)
      .map((one) => valueOf(one, type))
      .join(", ")})`
  if (operator === "prefix") return `starts_with(${name}, ${literal(value)})`
  return `${name} ${signs[operator]} ${valueOf(value, type)}`
}
/** The columns of an order, with the primary key behind. */
const orderOf = (order = "", key) => {
  const given = order === "" ? [] : order.split(",").map((part) => part.split(/\.(?=asc$|desc$)/))
  const names = new Set(given.map(([name]) => name))
  return [...given, ...key.filter((name) => !names.has(name)).map((name) => [name])]
    .map(([name, direction]) => `${quoted(name)}${direction === "desc" ? " desc" : ""}`)
    .join(", ")
}
/** The statement that reads the first page of what an address shows. */
export const sqlOf = (view, query, { columns, limit }) => {
  const typeOf = (name) => view.columns.find((one) => one.name === name)?.type ?? "text"
  const conditions = filtersOf(query, view.columns).map((one) => conditionOf(one, typeOf(one.column)))
  const order = orderOf(query.order, view.key)
  return [
    `select ${columns.length === view.columns.length ? "*" : columns.map(({ name }) => quoted(name)).join(", ")} from ${quoted(view.name)}`,
    conditions.length > 0 ? `where ${conditions.join(" and ")}` : "",
    order === "" ? "" : `order by ${order}`,
    `limit ${limit}`
  ]
    .filter(Boolean)
    .join(" ")
}
export const sqlCommand = (sql) => `npx millrace sql ${shellWord(sql)}`

const cellOf = (value) =>
  value === null || value === undefined ? "" : isNested(value) ? JSON.stringify(value) : String(value)
/** A value in CSV. A text that a spreadsheet would run as a formula gets an apostrophe in front. */
const csvOf = (value) => {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : cellOf(value)
  return value === "" || /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
/** Rows as a file: `csv`, where null is empty and an empty text is `""`, or `ndjson`. */
export const fileOf = (form, rows, columns) => {
  const names = columns.map(({ name }) => name)
  if (form === "ndjson")
    return rows.map((row) => `${JSON.stringify(Object.fromEntries(names.map((name) => [name, row[name]])))}\n`).join("")
  return [names, ...rows.map((row) => names.map((name) => row[name]))]
    .map((line) => `${line.map(csvOf).join(",")}\r\n`)
    .join("")
}
