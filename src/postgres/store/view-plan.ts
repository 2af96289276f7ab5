// Plans the public views of a projection: which statements make them show a build, or through a gate the live one of two builds. Pure: no I/O.
import { quote } from "../client/columns.ts"
import { schemaOf } from "./ddl.ts"

/** A column as PostgreSQL's catalog has it. */
export interface ViewColumn {
  readonly name: string
  /** As `format_type` writes it: `timestamp with time zone`. */
  readonly type: string
}
/** A read model's table in the schema of one build. */
export interface BuildTable {
  readonly build: number
  readonly name: string
  readonly columns: ReadonlyArray<ViewColumn>
}
/** A public view over tables of a projection's builds that have the view's name. */
export interface PublicView {
  readonly name: string
  readonly columns: ReadonlyArray<ViewColumn>
  /** The builds whose tables it reads. */
  readonly builds: ReadonlyArray<number>
  /** Whether it reads `millrace.live`. */
  readonly isGated: boolean
  /** Its options, such as `security_invoker=true`, which a replacement without them would remove. */
  readonly options: ReadonlyArray<string>
  /** What PostgreSQL knows to use the view directly, such as `view public.mine`. It has to go before the view can be dropped. */
  readonly dependents: ReadonlyArray<string>
  /** What would be lost with the view besides: `grants`, `a comment`. */
  readonly attached: ReadonlyArray<string>
  /** Materialized views over it, also through other views. They keep their rows until they are refreshed. */
  readonly materialized: ReadonlyArray<string>
}
/** What the database has of a projection's read models that are not shared. */
export interface ViewFacts {
  readonly projection: string
  readonly tables: ReadonlyArray<BuildTable>
  readonly views: ReadonlyArray<PublicView>
  /** Names in the schema `public` that something else has. */
  readonly taken: ReadonlyArray<string>
}
/** Which builds the views show. */
export interface Shown {
  /** The build that readers shall see in the end. Its columns come first and decide the types. */
  readonly build: number
  /** For a gate, the other build that readers see while `millrace.live` says so. */
  readonly other?: number
}
/** Why a view cannot be changed as asked. */
export interface ViewRefusal {
  readonly view: string
  readonly reason: string
  /** What depends on the view, or would be lost with it. */
  readonly dependents: ReadonlyArray<string>
}
/** How the views are changed. Nothing of it may be executed if there are refusals. */
export interface ViewPlan {
  /** In the order of the views' names, so that two that execute such plans do not deadlock. */
  readonly statements: ReadonlyArray<string>
  readonly refusals: ReadonlyArray<ViewRefusal>
  /** Materialized views over the views. They show the old build's rows until they are refreshed. */
  readonly stale: ReadonlyArray<string>
}

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`

/** The SQL of a column as another type; undefined if the conversion may fail for some value. */
const converted = (column: string, from: string, to: string): string | undefined => {
  if (from === to) return column
  if (to === "text") return `${column}::text`
  if (to === "jsonb") return `to_jsonb(${column})`
  return from === "bigint" && to === "double precision" ? `${column}::double precision` : undefined
}

/** A table as the view shows it: an expression for each of the view's columns; null typed as the column where the table has none. */
const branchOf = ({ build, columns, name }: BuildTable, wanted: ReadonlyArray<ViewColumn>, projection: string) => {
  const list = wanted.map((column) => {
    const own = columns.find((other) => other.name === column.name)
    const as = quote(column.name)
    if (own === undefined) return `null::${column.type} as ${as}`
    const value = converted(as, own.type, column.type)
    return value === as ? as : `${value} as ${as}`
  })
  return `select ${list.join(", ")} from ${schemaOf(projection, build)}.${quote(name)}`
}

/** Why tables cannot be shown with these columns; undefined if they can. */
const problemOf = (tables: ReadonlyArray<BuildTable>, wanted: ReadonlyArray<ViewColumn>): string | undefined => {
  for (const { build, columns } of tables) {
    for (const { name, type } of wanted) {
      const own = columns.find((column) => column.name === name)
      if (own !== undefined && converted("", own.type, type) === undefined)
        return `column ${name} is ${own.type} in build ${build} and ${type} in the view, and not every ${own.type} can be converted to ${type}`
    }
  }
  return undefined
}

/** The columns with those of the tables behind them that are not among them. */
const withColumnsOf = (columns: ReadonlyArray<ViewColumn>, tables: ReadonlyArray<BuildTable>) => {
  const all = new Map(columns.map((column) => [column.name, column]))
  for (const table of tables)
    for (const column of table.columns) if (!all.has(column.name)) all.set(column.name, column)
  return [...all.values()]
}

/** Whether each column of a view is one that a table still has, with the type of the first table that has it. */
const isExact = (columns: ReadonlyArray<ViewColumn>, tables: ReadonlyArray<BuildTable>) =>
  columns.every(({ name, type }) => withColumnsOf([], tables).find((column) => column.name === name)?.type === type)

const planView = (
  projection: string,
  view: PublicView | undefined,
  tables: ReadonlyArray<BuildTable>,
  isGate: boolean
): { readonly statements: ReadonlyArray<string> } | Omit<ViewRefusal, "view"> => {
  const name = quote((view ?? tables[0]!).name)
  const options = view === undefined || view.options.length === 0 ? "" : ` with (${view.options.join(", ")})`
  const definition = (columns: ReadonlyArray<ViewColumn>) => {
    const branches = tables.map((table) => {
      const branch = branchOf(table, columns, projection)
      const live = `(select l.version from millrace.live l where l.projection = ${literal(projection)})`
      return isGate ? `${branch} where ${live} = ${table.build}` : branch
    })
    return `view public.${name}${options} as ${branches.join(" union all ")}`
  }
  const all = withColumnsOf([], tables)
  if (view === undefined) {
    const problem = problemOf(tables, all)
    return problem === undefined
      ? { statements: [`create ${definition(all)}`] }
      : { reason: `${problem}; give the column another name`, dependents: [] }
  }
  const isFree = view.dependents.length === 0 && view.attached.length === 0
  // the read model is gone: without a table of the build that is shown, the view has no rows
  if (tables.length === 0) return { statements: isFree ? [`drop view public.${name}`] : [] }
  const kept = withColumnsOf(view.columns, tables)
  const problem = problemOf(tables, kept)
  const replacement = { statements: [`create or replace ${definition(kept)}`] }
  if (problem === undefined && isExact(kept, tables)) return replacement
  if (isFree && problemOf(tables, all) === undefined)
    return { statements: [`drop view public.${name}`, `create ${definition(all)}`] }
  if (problem === undefined) return replacement
  return isFree
    ? { reason: `${problem}; give the column another name`, dependents: [] }
    : {
        reason: `${problem}; remove what depends on the view, or give the column another name`,
        dependents: [...view.dependents, ...view.attached]
      }
}

/**
 * Plans how the views show a build, or by a gate two. A view that exists keeps its columns in their order, and new ones come behind them: then
 * `create or replace view` keeps grants, comments and dependents. A column that no build has any more is null of its type, and one whose type
 * changed is converted to the view's type if that cannot fail. Where nothing depends on the view and nothing is attached to it, it gets exactly the
 * build's columns instead: it is dropped and created in one transaction. A view whose read model the shown builds do not have is dropped, or stays as it
 * is if something depends on it.
 */
export const planViews = ({ projection, tables, taken, views }: ViewFacts, { build, other }: Shown): ViewPlan => {
  const shown = other === undefined ? [build] : [build, other]
  const names = [
    ...new Set([...tables.filter((table) => shown.includes(table.build)), ...views].map(({ name }) => name))
  ]
  const statements: Array<string> = []
  const refusals: Array<ViewRefusal> = []
  for (const name of names.toSorted()) {
    const view = views.find((one) => one.name === name)
    if (view === undefined && taken.includes(name)) {
      const reason = `public.${name} exists and is not a view of projection ${projection}; rename it, or give the read model another name`
      refusals.push({ view: name, reason, dependents: [] })
      continue
    }
    const own = shown.flatMap((number) => tables.filter((table) => table.build === number && table.name === name))
    const plan = planView(projection, view, own, other !== undefined)
    if ("reason" in plan) refusals.push({ view: name, ...plan })
    else statements.push(...plan.statements)
  }
  const stale = [...new Set(views.flatMap(({ materialized }) => materialized))].toSorted()
  return { statements: refusals.length > 0 ? [] : statements, refusals, stale }
}

/** The refusals as one text: the views, why, and what depends on them. */
export const refusalText = (refusals: ReadonlyArray<ViewRefusal>): string =>
  refusals
    .map(
      ({ dependents, reason, view }) =>
        `view public.${view}: ${reason}${dependents.length === 0 ? "" : `; on the view depend: ${dependents.join(", ")}`}`
    )
    .join(". ")

/** Whether each view whose read model the build has shows that build alone. */
export const showsOnly = ({ tables, views }: ViewFacts, build: number): boolean =>
  views.every(
    ({ builds, isGated, name }) =>
      !tables.some((table) => table.build === build && table.name === name) ||
      (!isGated && builds.length === 1 && builds[0] === build)
  )

/** Whether each read model of the two builds has a view that is a gate over those of the two builds that have it, and over no others. */
export const isGateOpen = ({ tables, views }: ViewFacts, builds: readonly [number, number]): boolean => {
  const own = Map.groupBy(
    tables.filter(({ build }) => builds.includes(build)),
    ({ name }) => name
  )
  return [...own].every(([name, list]) => {
    const view = views.find((one) => one.name === name)
    return (
      view !== undefined &&
      view.isGated &&
      list.every(({ build }) => view.builds.includes(build)) &&
      view.builds.length === list.length
    )
  })
}
