// The statements of a view's changes: the rows that there are, with the snapshot that sees them, and the changes between two snapshots. Pure.
import { quote } from "../../postgres/client/columns.ts"
import type { DeclaredView, ViewColumn } from "../views/catalog.ts"
import { printed } from "../views/column-types.ts"
import type { Filter, PageQuery } from "../views/page-query.ts"
import {
  behind,
  conditionsOf,
  type PageStatement,
  pageStatement,
  parametersFor,
  type TenantOfRows
} from "../views/page-sql.ts"

/** The rows that a client asks for and may see. */
export interface RowFilter {
  readonly filters: ReadonlyArray<Filter>
  readonly tenant: TenantOfRows | undefined
}
/** A view with the columns that readers see. */
export interface FollowedView {
  readonly view: DeclaredView
  readonly columns: ReadonlyArray<ViewColumn>
}
/** The changes between two snapshots, behind one of them. */
export interface ChangeWindow {
  readonly journal: string
  readonly seen: string
  readonly until: string
  readonly after: string | undefined
}
/** A change, as the database returns it. */
export interface ChangeRow {
  readonly id: string
  /** The primary key as a JSON object. */
  readonly key: string
  /** The row as JSON; null: it was deleted. */
  readonly row: string | null
  /** For each filter `1` if the row fitted it before the change, else `0`; null: there was no row. */
  readonly before: string | null
  /** The same of the row after it. */
  readonly after: string | null
}
/** A row of a page with its snapshot; a page without rows has one with nulls. */
export interface SnapshotRow {
  readonly snapshot: string
  readonly row: string | null
  readonly cursor: string | null
}

/** How many changes are read at once. */
export const changesAtOnce = 2_000

/** A page of rows in the order of the primary key, and the snapshot that sees them. */
export const rowsStatement = (
  { columns, view }: FollowedView,
  { filters, tenant }: RowFilter,
  { limit, order, upTo }: Pick<PageQuery, "order" | "limit"> & { readonly upTo: ReadonlyArray<string> | undefined }
): PageStatement => {
  const after = upTo === undefined ? undefined : { values: upTo, sent: 0 }
  const page = pageStatement(view, columns, { filters, order, limit, after, digest: "" }, tenant)
  const text = `select s.snapshot, p.row, p.cursor from (select pg_current_snapshot()::text as snapshot) s left join lateral (
${page.text}
) p on true`
  return { text, parameters: page.parameters }
}

/** A text with `1` or `0` for each filter, of the row `t`. */
const matchesOf = (conditions: ReadonlyArray<ReadonlyArray<string>>): string =>
  conditions
    .map((all) =>
      all.length === 0 ? "'1'" : `case when ${all.map((one) => `(${one})`).join(" and ")} then '1' else '0' end`
    )
    .join(" || ")

/** The conditions of one filter, evaluated for a row without values: fails with PostgreSQL's error where a value is none of its column's type. */
export const checkStatement = ({ view }: FollowedView, { filters, tenant }: RowFilter): PageStatement => {
  const { parameter, parameters } = parametersFor()
  const conditions = conditionsOf(filters, tenant, parameter).map((one) => [one])
  const text = `select ${matchesOf([[], ...conditions])} as matches from json_populate_record(null::public.${quote(view.name)}, '{}') t`
  return { text, parameters }
}

/** Changes in the order in which those of each row were made. `upTo`: only of rows up to this one, for a statement of one filter. */
export const changesStatement = (
  { columns, view }: FollowedView,
  { after, journal, seen, until }: ChangeWindow,
  groups: ReadonlyArray<RowFilter>,
  upTo?: { readonly order: PageQuery["order"]; readonly values: ReadonlyArray<string> }
): PageStatement => {
  const { parameter, parameters } = parametersFor()
  const [of, from, to] = [parameter(journal, "int8"), parameter(seen, "pg_snapshot"), parameter(until, "pg_snapshot")]
  const where = [
    `c.journal_id = ${of}`,
    `(c.xid >= pg_snapshot_xmax(${from}) or c.xid = any(array(select pg_snapshot_xip(${from}))))`,
    `pg_visible_in_snapshot(c.xid, ${to})`,
    ...(after === undefined ? [] : [`c.id > ${parameter(after, "int8")}`])
  ]
  const isSent = upTo === undefined ? [] : [`not (${behind(upTo.order, upTo, { view, parameter })})`]
  const matches = matchesOf(
    groups.map(({ filters, tenant }) => [...conditionsOf(filters, tenant, parameter), ...isSent])
  )
  const list = (wanted: ReadonlyArray<ViewColumn>) =>
    `(select row_to_json(s)::text from (select ${wanted.map((column) => printed(column, "t")).join(", ")}) s)`
  const key = list(columns.filter(({ name }) => view.key.includes(name)))
  const row = `json_populate_record(null::public.${quote(view.name)}`
  const text = `select c.id::text as id, coalesce(a.key, b.key) as key, a.row, b.matches as before, a.matches as after
from (select c.id, c.before, c.after from millrace.row_change c where ${where.join("\n  and ")} order by c.id limit ${changesAtOnce}) c
left join lateral (select ${key} as key, ${matches} as matches from ${row}, c.before) t) b on c.before is not null
left join lateral (select ${key} as key, ${list(columns)} as row, ${matches} as matches from ${row}, c.after) t) a on c.after is not null
order by c.id`
  return { text, parameters }
}
