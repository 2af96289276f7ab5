// The position of a client that follows a view: what it has of the rows, and of the changes behind them. Pure.

/** What a client has. Snapshots are PostgreSQL's, as `pg_snapshot` writes them. */
export interface ChangePosition {
  readonly journal: string
  /** `rows`: it gets the rows that there are; `changes`: it has them. */
  readonly phase: "rows" | "changes"
  /** It has every change that this snapshot sees; while it gets rows, of the rows up to `upTo`. */
  readonly seen: string
  /** It is between two snapshots: it gets the changes that `until` sees and `seen` does not. */
  readonly until?: string
  /** The last change between the two that it has. */
  readonly after?: string
  /** The primary key of the last row that it has, as PostgreSQL's texts; undefined: it has none yet, or all. */
  readonly upTo?: ReadonlyArray<string>
}

const snapshotForm = String.raw`\d{1,20}:\d{1,20}:(?:\d{1,20}(?:,\d{1,20})*)?`
const form = new RegExp(
  String.raw`^c1\.(\d{1,18})\.([\w-]{16})\.([rc])\.(${snapshotForm})\.(${snapshotForm})?\.(\d{1,18})?\.([\w-]+)?$`
)

/** The id of a position. `digest`: of the view, the filters and the tenant, for which alone it means something. */
export const changeId = (digest: string, { after, journal, phase, seen, until, upTo }: ChangePosition): string => {
  const row = upTo === undefined ? "" : Buffer.from(JSON.stringify(upTo)).toString("base64url")
  return `c1.${journal}.${digest}.${phase === "rows" ? "r" : "c"}.${seen}.${until ?? ""}.${after ?? ""}.${row}`
}

/** What an id says; undefined if it is none. `keys`: of how many columns the primary key is. */
export const parseChangeId = (
  id: string,
  keys: number
): { readonly digest: string; readonly position: ChangePosition } | undefined => {
  const [, journal, digest, phase, seen, until, after, row] = form.exec(id) ?? []
  if (journal === undefined) return undefined
  const upTo = row === undefined ? undefined : keyOf(row)
  if (row !== undefined && upTo?.length !== keys) return undefined
  const position = {
    journal,
    phase: phase === "r" ? ("rows" as const) : ("changes" as const),
    seen: seen!,
    ...(until !== undefined && { until }),
    ...(after !== undefined && { after }),
    ...(upTo !== undefined && { upTo })
  }
  return { digest: digest!, position }
}
const keyOf = (text: string): ReadonlyArray<string> | undefined => {
  try {
    const values = JSON.parse(Buffer.from(text, "base64url").toString()) as unknown
    const isKey = Array.isArray(values) && values.every((one) => typeof one === "string" && !one.includes("\u0000"))
    return isKey ? values : undefined
  } catch {
    return undefined
  }
}
