// The views of an application: its tables, windows and declared views by name, with the columns that the database has of them. Pure.
import type { Application } from "../../model/application.ts"
import { relationOf } from "../../model/columns.ts"
import type { Projection } from "../../model/projection.ts"
import { tenantColumn } from "../../model/read-model.ts"
import type { Window } from "../../model/window.ts"
import { adviceFor } from "../../text/similar-names.ts"
import { shown } from "../../text/text.ts"
import type { Principal } from "../access/principal.ts"
import { Problem } from "../http/problem.ts"

/** A column, as the database has it. */
export interface ViewColumn {
  readonly name: string
  /** The type as PostgreSQL writes it, without length or precision: `timestamp with time zone`. */
  readonly type: string
}
/** How a window divides time. Durations are in milliseconds. Names of fields are those that `GET /v1/views` has. */
export interface DeclaredWindow {
  /** The values of `window_size`, with the length of each and how far apart they start; null of a calendar's units. */
  readonly sizes: ReadonlyArray<{ readonly size: string; readonly ms: number | null; readonly every_ms: number | null }>
  /** The time zone of a calendar; null: UTC. */
  readonly time_zone: string | null
  /** How long after its end it still accepts events, in stream time. */
  readonly grace_ms: number
}
/** What the application declares of a view. */
export interface DeclaredView {
  readonly kind: "table" | "window" | "view"
  readonly name: string
  /** Whether several projections may write the table. */
  readonly isShared: boolean
  /** The projections that write it; of a view none. */
  readonly writtenBy: ReadonlyArray<string>
  /** The columns of the primary key; of a view none. */
  readonly key: ReadonlyArray<string>
  /** The columns that are never null. */
  readonly required: ReadonlySet<string>
  /** The column that is a row's tenant, if the table has such a column. */
  readonly tenant: string
  /** The columns that are declared, with their types in SQL; of a view none. */
  readonly columns: ReadonlyArray<ViewColumn>
  /** How it divides time, if it is a window. */
  readonly window?: DeclaredWindow
}

const windowOf = ({ graceMs, shape }: Pick<Window.Any, "graceMs" | "shape">): DeclaredWindow => ({
  sizes:
    shape.type === "fixed"
      ? shape.spans.map(({ everyMs, label, sizeMs }) => ({ size: label, ms: sizeMs, every_ms: everyMs }))
      : shape.type === "calendar"
        ? shape.units.map((unit) => ({ size: unit, ms: null, every_ms: null }))
        : [],
  time_zone: shape.type === "calendar" ? shape.timeZone : null,
  grace_ms: graceMs
})

/** All views of an application by name. */
export const declaredViews = ({ projections, views }: Application.Any): ReadonlyMap<string, DeclaredView> => {
  const found = new Map<string, DeclaredView>()
  for (const { projection } of projections) {
    for (const target of (projection as Projection.Any).writes) {
      if (target.kind === "topic") continue
      const { columns, key, name } = relationOf(target)
      const writtenBy = [...new Set([...(found.get(name)?.writtenBy ?? []), projection.name])]
      found.set(name, {
        kind: target.kind,
        name,
        isShared: target.shared,
        writtenBy,
        key,
        required: new Set(key),
        tenant: target.tenant ?? tenantColumn,
        columns: columns.map((column) => ({
          name: column.name,
          type: column.type === "timestamptz" ? "timestamp with time zone" : column.type
        })),
        ...(target.kind === "window" && { window: windowOf(target) })
      })
    }
  }
  for (const { name, tenant = tenantColumn } of views)
    found.set(name, {
      kind: "view",
      name,
      isShared: false,
      writtenBy: [],
      key: [],
      required: new Set(),
      tenant,
      columns: []
    })
  return new Map([...found].toSorted(([a], [b]) => (a < b ? -1 : 1)))
}

/** The tenant's column of a view; undefined if it has none that is a text. */
export const tenantOf = ({ tenant }: DeclaredView, columns: ReadonlyArray<ViewColumn>): string | undefined =>
  columns.find(({ name, type }) => name === tenant && type === "text")?.name

/** The tenant's column of a view that a principal of a tenant reads. Throws a `Problem` 403 if the rows do not say whose they are. */
export const assertByTenant = (view: DeclaredView, columns: ReadonlyArray<ViewColumn>): string => {
  const column = tenantOf(view, columns)
  if (column !== undefined) return column
  throw new Problem(
    403,
    "not_by_tenant",
    `the rows of ${view.name} do not say which tenant they belong to, and the credential belongs to one`,
    "use a credential without a tenant, or give the table or the key of the window a text column tenant (or name one by the option tenant)"
  )
}

/** The names of views that a principal may read: if it has a tenant, those that have a column with the tenant of each row. */
export const readableNames = (
  views: ReadonlyMap<string, DeclaredView>,
  { tenant }: Pick<Principal, "tenant">,
  columns: ReadonlyMap<string, ReadonlyArray<ViewColumn>>
): ReadonlyArray<string> =>
  [...views.values()]
    .filter((view) => tenant === undefined || tenantOf(view, columns.get(view.name) ?? []) !== undefined)
    .map(({ name }) => name)

/** The problem of a request for a view that the application does not declare. `readable`: the names of views that its principal may read. */
export const unknownView = (name: string, readable: ReadonlyArray<string>): Problem =>
  new Problem(
    404,
    "unknown_view",
    `the application has no table, window or view ${shown(name)}`,
    adviceFor(name, readable) ?? "see the views in /v1/views"
  )
