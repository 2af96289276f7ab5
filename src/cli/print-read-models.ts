// Prints which read models of an application have rows, and some of the rows, for people who run `millrace dev`.
import * as Effect from "effect/Effect"
import { countRowsUpTo, readSomeRows } from "../postgres/store/shown-rows.ts"
import type { AnyApplication } from "./config.ts"
import type { System } from "../system/system.ts"
import { tableOf } from "./tables.ts"

/** Counting ends here, for the rows of a large table take long to count. */
const countedRows = 100_000
const shownRows = 5
const widestTable = 120

interface StoredReadModel {
  readonly kind: "table" | "window"
  readonly name: string
}
/** The tables and windows that the application keeps in the database, tables first. */
export const readModelsOf = ({ projections }: AnyApplication): ReadonlyArray<StoredReadModel> => {
  const targets = projections.flatMap(({ projection }) => projection.writes as ReadonlyArray<StoredReadModel>)
  const byName = new Map(targets.map((target) => [target.name, target]))
  const ofKind = (kind: string) => [...byName.values()].filter((target) => target.kind === kind)
  return [...ofKind("table"), ...ofKind("window")]
}

/** A query that shows rows of a read model: those of a window in the order of time. */
export const queryOf = ({ kind, name }: StoredReadModel): string =>
  `select * from ${name}${kind === "window" ? " order by window_start" : ""} limit ${shownRows}`

/**
 * How many rows each read model has, the first rows of the first that has any, and the command that prints them. Empty if the application has
 * no read models. Readers do not see a read model that is new in a version before that is promoted; the text says so.
 */
export const readModelsText = Effect.fnUntraced(function* (
  { application, database: { sql } }: System,
  command: string
) {
  const counted: Array<StoredReadModel & { readonly rows: number | undefined }> = []
  for (const readModel of readModelsOf(application)) {
    const rows = yield* Effect.orElseSucceed(countRowsUpTo(sql, readModel.name, countedRows), () => undefined)
    counted.push({ ...readModel, rows })
  }
  if (counted.length === 0) return ""
  const width = Math.max(...counted.map(({ name }) => name.length))
  const lines = counted.map(({ name, rows }) => `  ${name.padEnd(width)}  ${rowsText(rows)}`)
  const filled = counted.find(({ rows = 0 }) => rows > 0)
  const text = ["Read models:", ...lines].join("\n")
  if (filled === undefined) return text
  const sample = yield* Effect.orElseSucceed(readSomeRows(sql, filled.name, shownRows), () => [])
  const title = filled.rows! > shownRows ? `${filled.name}, ${shownRows} of its rows:` : `${filled.name}:`
  return `${text}\n\n${tableIfItFits(title, sample)}Look at them: ${command} "${queryOf(filled)}"`
})
/** A table of the rows under its title; empty if there are none, or if it is too wide to read. */
const tableIfItFits = (title: string, rows: ReadonlyArray<Readonly<Record<string, unknown>>>): string => {
  const [first] = rows
  if (first === undefined) return ""
  const columns = Object.keys(first)
  const table = tableOf(
    columns,
    rows.map((row) => columns.map((column) => cellOf(row[column])))
  )
  return table.split("\n").some((line) => line.length > widestTable) ? "" : `${title}\n${table}\n`
}
const cellOf = (value: unknown) => (typeof value === "object" && value !== null ? JSON.stringify(value) : value)
const rowsText = (rows: number | undefined) => {
  if (rows === undefined) return "not there yet: a new version shows it once it is promoted"
  if (rows > countedRows) return `more than ${countedRows} rows`
  return `${rows} row${rows === 1 ? "" : "s"}`
}
