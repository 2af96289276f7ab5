// The statement of a page: every value of a request is a parameter, and names are those of the database's catalog. Pure.
import { arrayOf, quote } from "../../postgres/client/columns.ts"
import type { DeclaredView, ViewColumn } from "./catalog.ts"
import { printed } from "./column-types.ts"
import type { Operator } from "../http/filters.ts"
import type { After, Filter, OrderColumn, PageQuery } from "./page-query.ts"

/** A statement with its parameters, all of them texts. */
export interface PageStatement {
  readonly text: string
  readonly parameters: ReadonlyArray<string>
}

/** The column with a row's tenant, and the tenant whose rows alone are read. */
export interface TenantOfRows {
  readonly column: string
  readonly name: string
}
/** Adds a parameter of a type to a statement, and returns its SQL. */
export type Parameter = (value: string, type: string) => string
/** Collects the parameters of a statement. */
export const parametersFor = (): { readonly parameters: ReadonlyArray<string>; readonly parameter: Parameter } => {
  const parameters: Array<string> = []
  return { parameters, parameter: (value, type) => `$${parameters.push(value)}::text::${type}` }
}

const comparisons: Readonly<Partial<Record<Operator, string>>> = {
  eq: "=",
  ne: "is distinct from",
  gt: ">",
  gte: ">=",
  lt: "<",
  lte: "<="
}

/** The reverse order. PostgreSQL puts nulls last in one direction and first in the other, so that they are reversed, too. */
const turned = (order: ReadonlyArray<OrderColumn>): ReadonlyArray<OrderColumn> =>
  order.map(({ asText, column, isDescending }) => ({ asText, column, isDescending: !isDescending }))

/**
 * The statement that returns a page and one row more; the rows of a page backwards come in the reverse order. Each row has its JSON text in `row`,
 * and in `cursor` the JSON array of its values of the order, as text. `tenant`: the column and the tenant whose rows alone are returned.
 */
export const pageStatement = (
  view: DeclaredView,
  columns: ReadonlyArray<ViewColumn>,
  { after, filters, limit, order: asked }: PageQuery,
  tenant: TenantOfRows | undefined
): PageStatement => {
  const { parameter, parameters } = parametersFor()
  const order = after?.isBackwards === true ? turned(asked) : asked
  const conditions = [
    ...conditionsOf(filters, tenant, parameter),
    ...(after === undefined ? [] : [behind(order, after, { view, parameter })])
  ]
  const ordered = `order by ${order.map((one) => `${expression(one)}${one.isDescending ? " desc" : ""}`).join(", ")}`
  // the rows of the page come first: PostgreSQL would make the JSON of each row that it sorts
  const text = `select row_to_json(s)::text as row, json_build_array(${order
    .map(({ column }) => `t.${quote(column.name)}::text`)
    .join(", ")})::text as cursor
from (
select t.* from public.${quote(view.name)} t
${conditions.length === 0 ? "" : `where ${conditions.join("\n  and ")}\n`}${ordered}
limit ${limit + 1}${after === undefined || after.sent === 0 ? "" : ` offset ${after.sent}`}
) t cross join lateral (select ${columns.map((column) => printed(column, "t")).join(", ")}) s
${ordered}`
  return { text, parameters }
}

const expression = ({ asText, column }: OrderColumn) =>
  asText ? `t.${quote(column.name)}::text collate "C"` : `t.${quote(column.name)}`

/** The conditions of the rows `t` that a request asks for and a tenant may see. */
export const conditionsOf = (
  filters: ReadonlyArray<Filter>,
  tenant: TenantOfRows | undefined,
  parameter: Parameter
): ReadonlyArray<string> => [
  ...(tenant === undefined ? [] : [`t.${quote(tenant.column)} = ${parameter(tenant.name, "text")}`]),
  ...filters.map((filter) => condition(filter, parameter))
]
const condition = ({ column, operator, values: [value = "", ...more] }: Filter, parameter: Parameter): string => {
  const name = `t.${quote(column.name)}`
  if (operator === "null") return `${name} is ${value === "true" ? "" : "not "}null`
  if (operator === "in") return `${name} = any(${parameter(arrayOf([value, ...more]), `${column.type}[]`)})`
  if (operator === "prefix") return `starts_with(${name}, ${parameter(value, "text")})`
  return `${name} ${comparisons[operator]} ${parameter(value, column.type)}`
}

/**
 * The condition of rows behind the last one of the page before, as PostgreSQL orders them: nulls come last, or first if the order is
 * descending. Without a primary key equal rows are included: of these, `offset` skips those that were sent.
 */
export const behind = (
  order: ReadonlyArray<OrderColumn>,
  { values }: Pick<After, "values">,
  { parameter, view }: { readonly view: DeclaredView; readonly parameter: Parameter }
): string => {
  let text = view.key.length > 0 ? "false" : "true"
  for (let i = order.length - 1; i >= 0; i--) {
    const one = order[i]!
    const value = values[i] ?? null
    const name = expression(one)
    if (value === null) {
      const isBehind = one.isDescending ? `${name} is not null or ` : ""
      text = `(${isBehind}(${name} is null and ${text}))`
      continue
    }
    const given = parameter(value, one.asText ? "text" : one.column.type)
    const [sign, withEqual] = one.isDescending ? ["<", "<="] : [">", ">="]
    const orNull = one.isDescending || view.required.has(one.column.name) ? "" : ` or ${name} is null`
    const exact = `(${name} ${sign} ${given}${orNull} or (${name} = ${given} and ${text}))`
    // an index can begin at the first column's value, which it cannot learn from alternatives
    text = i === 0 && orNull === "" ? `(${name} ${withEqual} ${given} and ${exact})` : exact
  }
  return text
}
