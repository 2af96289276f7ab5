// Reads what a request asks of a view: filters, order, limit, and where the page begins. Pure.
import { createHash } from "node:crypto"
import { adviceFor } from "../../text/similar-names.ts"
import { shown } from "../../text/text.ts"
import { invalidParameter, mostFilters, type Operator, operators, valuesOfIn } from "../http/filters.ts"
import { single, whole } from "../http/parameters.ts"
import { Problem } from "../http/problem.ts"
import type { DeclaredView, ViewColumn } from "./catalog.ts"
import { forms, isOrdered, kindOf, valueOf } from "./column-types.ts"

/** A condition on a column. */
export interface Filter {
  readonly column: ViewColumn
  readonly operator: Operator
  /** One value; of `in` several; of `null` the text `true` or `false`. */
  readonly values: ReadonlyArray<string>
}
/** A column that the rows are ordered by. */
export interface OrderColumn {
  readonly column: ViewColumn
  readonly isDescending: boolean
  /** Whether it is compared as text, because its type has no order of its own. */
  readonly asText: boolean
}
/** The row that a page begins behind: the last one of the page before; or, backwards, the first one of the page after. */
export interface After {
  /** Its values of the columns of the order, as PostgreSQL's text. */
  readonly values: ReadonlyArray<string | null>
  /** How many rows with exactly these values were sent; 0 where the order has a primary key, by which no two rows are equal. */
  readonly sent: number
  /** Whether the page has the rows before this one. Only where the order has a primary key. */
  readonly isBackwards?: boolean
}
/** What a request asks of a view. */
export interface PageQuery {
  readonly filters: ReadonlyArray<Filter>
  /** It orders the rows totally if the view has a primary key; otherwise it has every column. */
  readonly order: ReadonlyArray<OrderColumn>
  readonly limit: number
  readonly after: After | undefined
  /** What a cursor of this query belongs to: the view, its filters and its order. */
  readonly digest: string
}

/** Parameters that are no filters. A column of such a name is filtered as `limit.eq=`. */
export const reserved = ["order", "limit", "after", "waitFor", "access_token"] as const
/** How many rows a page has by default, and at most. */
export const pageRows = { usual: 100, most: 1_000 } as const
/** How many columns an order may have. */
const mostOrder = 20

const filterOf = (name: string, value: unknown, view: DeclaredView, columns: ReadonlyArray<ViewColumn>): Filter => {
  const exact = columns.find((column) => column.name === name)
  const dot = name.lastIndexOf(".")
  const [columnName, operatorName] =
    exact !== undefined || dot < 0 ? [name, "eq"] : [name.slice(0, dot), name.slice(dot + 1)]
  const column = exact ?? columns.find((one) => one.name === columnName)
  if (column === undefined) {
    const known = columns.map((one) => one.name)
    throw new Problem(
      400,
      "unknown_column",
      `${view.name} has no column ${shown(columnName)}`,
      adviceFor(columnName, dot < 0 ? [...known, ...reserved] : known) ?? "see the columns in /v1/views"
    )
  }
  const operator = operators.find((one) => one === operatorName)
  if (operator === undefined)
    throw new Problem(
      400,
      "unknown_operator",
      `${shown(operatorName)} is no operator of a filter`,
      adviceFor(operatorName, operators) ?? `one of ${operators.join(", ")}`
    )
  const text = single(value, name)!
  return { column, operator, values: valuesOf(name, text, column, operator) }
}

const valuesOf = (name: string, text: string, column: ViewColumn, operator: Operator): ReadonlyArray<string> => {
  const kind = kindOf(column)
  if (operator === "null") {
    if (text === "true" || text === "false") return [text]
    throw invalidParameter(`the parameter ${name} is ${shown(text)}`, "use true or false")
  }
  if (kind === "other")
    throw invalidParameter(
      `the column ${column.name} is of the type ${column.type}, which cannot be filtered`,
      `use ${column.name}.null, or another column`
    )
  if (operator === "prefix" && kind !== "text")
    throw invalidParameter(
      `the column ${column.name} is of the type ${column.type}, and only texts have a prefix`,
      `use ${column.name}.gte and ${column.name}.lt`
    )
  if (!isOrdered(column) && operator !== "eq" && operator !== "ne")
    throw invalidParameter(
      `the column ${column.name} is of the type ${column.type}, which has no ${operator}`,
      `use ${column.name}=, ${column.name}.ne= or ${column.name}.null=`
    )
  const texts = operator === "in" ? valuesOfIn(name, text) : [text]
  return texts.map((one) => {
    const value = valueOf(column, one)
    if (value !== undefined) return value
    throw invalidParameter(
      `the parameter ${name} has the value ${shown(one)}, and the column is of the type ${column.type}`,
      `use ${forms[kind]}`
    )
  })
}
const orderOf = (text: string | undefined, view: DeclaredView, columns: ReadonlyArray<ViewColumn>) => {
  const order: Array<OrderColumn> = []
  for (const part of text === undefined ? [] : text.split(",")) {
    const [, name = part, direction = "asc"] = /^(.*)\.(asc|desc)$/s.exec(part) ?? []
    const column = columns.find((one) => one.name === name)
    const [, meant, other = ""] = /^(.*)\.([^.]*)$/s.exec(part) ?? []
    if (column === undefined && columns.some((one) => one.name === meant))
      throw invalidParameter(
        `the parameter order has ${shown(part)}: ${shown(other)} is no direction`,
        `use ${meant}.asc or ${meant}.desc`
      )
    if (column === undefined)
      throw new Problem(
        400,
        "unknown_column",
        `${view.name} has no column ${shown(name)} to order by`,
        adviceFor(
          name,
          columns.filter(isOrdered).map((one) => one.name)
        ) ?? "see the columns in /v1/views"
      )
    if (!isOrdered(column))
      throw invalidParameter(
        `the column ${name} is of the type ${column.type}, which has no order`,
        "order by another column"
      )
    if (order.some((one) => one.column === column))
      throw invalidParameter(`the parameter order names ${name} twice`, "name it once")
    if (order.length >= mostOrder)
      throw invalidParameter(`the parameter order has more than ${mostOrder} columns`, "name fewer columns")
    order.push({ column, isDescending: direction === "desc", asText: false })
  }
  // the order has to be total, so that a page begins exactly where the one before ended
  const rest = view.key.length > 0 ? view.key : columns.map(({ name }) => name)
  for (const name of rest) {
    const column = columns.find((one) => one.name === name)
    if (column === undefined || order.some((one) => one.column === column)) continue
    order.push({ column, isDescending: false, asText: !isOrdered(column) })
  }
  return order
}

/** The cursor of a page that ends with a row. */
export const cursorText = ({ digest }: Pick<PageQuery, "digest">, { isBackwards, sent, values }: After): string =>
  Buffer.from(JSON.stringify([digest, isBackwards === true ? -1 : sent, ...values])).toString("base64url")
const afterOf = (text: string, digest: string, length: number, hasKey: boolean): After => {
  let parts: unknown
  try {
    parts = JSON.parse(Buffer.from(text, "base64url").toString())
  } catch {
    parts = undefined
  }
  if (!Array.isArray(parts) || typeof parts[0] !== "string")
    throw new Problem(400, "invalid_cursor", "the parameter after is no cursor", "use next of the page before")
  const [own, sent, ...values] = parts as ReadonlyArray<unknown>
  if (own !== digest || values.length !== length)
    throw new Problem(
      400,
      "invalid_cursor",
      "the parameter after belongs to another view, or to another filter or order",
      "send the same filters and order as for the page before, or leave after out to start again"
    )
  const isText = (value: unknown): value is string | null =>
    value === null || (typeof value === "string" && !value.includes("\u0000"))
  const least = hasKey ? -1 : 0
  if (!Number.isSafeInteger(sent) || (sent as number) < least || (sent as number) > 1_000_000 || !values.every(isText))
    throw new Problem(400, "invalid_cursor", "the parameter after is no cursor", "use next of the page before")
  return sent === -1 ? { values, sent: 0, isBackwards: true } : { values, sent: sent as number }
}

/** Reads the parameters of a request. Throws a `Problem` 400 for what the view does not have. */
export const pageQueryOf = (
  query: Readonly<Record<string, unknown>>,
  view: DeclaredView,
  columns: ReadonlyArray<ViewColumn>
): PageQuery => {
  const names = Object.keys(query).filter((name) => !(reserved as ReadonlyArray<string>).includes(name))
  if (names.length > mostFilters)
    throw invalidParameter(`the request has ${names.length} filters`, `use at most ${mostFilters}`)
  const filters = names.map((name) => filterOf(name, query[name], view, columns))
  const order = orderOf(single(query["order"], "order"), view, columns)
  const limit = whole(query["limit"], "limit", { least: 1, most: pageRows.most, otherwise: pageRows.usual })
  const asked = filters.map(({ column, operator, values }) => JSON.stringify([column.name, operator, ...values]))
  const by = order.map(({ column, isDescending }) => [column.name, column.type, isDescending])
  const digest = createHash("sha256")
    .update(JSON.stringify([view.name, asked.toSorted(), by]))
    .digest("base64url")
    .slice(0, 16)
  const after = single(query["after"], "after")
  return {
    filters,
    order,
    limit,
    digest,
    after: after === undefined ? undefined : afterOf(after, digest, order.length, view.key.length > 0)
  }
}
