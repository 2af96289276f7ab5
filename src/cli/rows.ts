// Prints the rows of a statement as they arrive: as tables, TSV, CSV or JSON.
import type { ResultColumn, TextRows } from "../postgres/client/statement.ts"
import { jsonOf } from "../text/json-values.ts"
import { rowCount, tableOf } from "./tables.ts"

/** The formats of rows. */
export type RowFormat = "table" | "tsv" | "csv" | "json"
/** The text before the rows, of some rows, and after `count` rows in all. */
export interface RowPrinter {
  readonly before: string
  readonly rows: (rows: TextRows) => string
  readonly after: (count: number) => string
}

/**
 * The printer of a format. `tsv` has no header; NULL is empty, and a tab or a line end within a value is written as `\t`, `\n` or `\r`. JSON has
 * an object for each row; the second column with the same name gets the suffix `_2`. A table has some hundred rows; more rows make more tables.
 */
export const rowPrinter = (format: RowFormat, columns: ReadonlyArray<ResultColumn>): RowPrinter => {
  const names = columns.map(({ name }) => name)
  switch (format) {
    case "json": {
      const keys = uniqueNames(names).map((name) => JSON.stringify(name))
      const types = columns.map(({ delimiter, type }) => ({ oid: type, delimiter }))
      const objectOf = (row: ReadonlyArray<string | null>) =>
        `{${keys.map((key, i) => `${key}:${jsonOf(types[i]!, row[i] ?? null)}`).join()}}`
      let first = true
      const rows = (some: TextRows) => {
        const text = (first ? "" : ",") + some.map(objectOf).join()
        first = false
        return text
      }
      return { before: "[", rows, after: () => "]\n" }
    }
    case "tsv":
      return { before: "", rows: (rows) => linesOf(rows, escapeTsv, "\t"), after: () => "" }
    case "csv": {
      const header = columns.length === 0 ? "" : `${names.map(quoteCsv).join()}\n`
      return { before: header, rows: (rows) => linesOf(rows, quoteCsv, ","), after: () => "" }
    }
    case "table": {
      let printed = false
      const rows = (some: TextRows) => {
        printed = true
        return `${tableOf(names, some)}\n`
      }
      const after = (count: number) => (columns.length === 0 ? "" : `${printed ? "" : rows([])}${rowCount(count)}\n`)
      return { before: "", rows, after }
    }
  }
}

const linesOf = (rows: TextRows, write: (value: string | null) => string, separator: string) =>
  rows.map((row) => `${row.map(write).join(separator)}\n`).join("")
const uniqueNames = (columns: ReadonlyArray<string>) => {
  const taken = new Set(columns)
  const seen = new Set<string>()
  return columns.map((column) => {
    if (!seen.has(column)) {
      seen.add(column)
      return column
    }
    let i = 2
    while (taken.has(`${column}_${i}`)) i++
    taken.add(`${column}_${i}`)
    return `${column}_${i}`
  })
}
const escapes: Readonly<Record<string, string>> = { "\t": "\\t", "\n": "\\n", "\r": "\\r" }
const escapeTsv = (value: string | null) => (value ?? "").replaceAll(/[\t\n\r]/g, (character) => escapes[character]!)
const quoteCsv = (value: string | null) => {
  const text = value ?? ""
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
