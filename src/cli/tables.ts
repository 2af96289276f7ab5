// Rows as text: aligned for people, separated for programs.
import Table from "cli-table3"
import type { Status } from "../system.ts"

type Rows = ReadonlyArray<Record<string, unknown>>

/** Rows in a format. `tsv` has no header, NULL is empty, and a tab or a line's end within a value is written `\t`, `\n` or `\r`. */
export const rowsAs = (
  format: "table" | "tsv" | "csv" | "json",
  rows: Rows,
  columns: ReadonlyArray<string>
): string => {
  switch (format) {
    case "json":
      return JSON.stringify(rows)
    case "tsv":
      return rows.map((row) => columns.map((column) => tabbed(row[column])).join("\t")).join("\n")
    case "csv":
      return [
        columns.map(comma).join(","),
        ...rows.map((row) => columns.map((column) => comma(row[column])).join(","))
      ].join("\n")
    case "table": {
      if (columns.length === 0) return ""
      const table = plain(columns)
      for (const row of rows) table.push(columns.map((column) => textOf(row[column])))
      return `${table.toString()}\n(${rows.length} row${rows.length === 1 ? "" : "s"})`
    }
  }
}
const textOf = (value: unknown): string =>
  value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value)
const escapes: Readonly<Record<string, string>> = { "\t": "\\t", "\n": "\\n", "\r": "\\r" }
const tabbed = (value: unknown) => textOf(value).replaceAll(/[\t\n\r]/g, (character) => escapes[character]!)
const comma = (value: unknown) => {
  const text = textOf(value)
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
const plain = (head: ReadonlyArray<string>) =>
  new Table({ head: [...head], style: { head: [], border: [], compact: true } })

/** The status for people: a line a projection's partition, relays, dead letters. */
export const statusTable = ({ dead_letters, healthy, projections, relays }: Status): string => {
  const table = plain(["projection", "topic", "position", "end", "lag", "epoch", "stream time", "state"])
  for (const { end, epoch, halted, lag, mode, name, partition, position, stream_time, topic, version } of projections) {
    const time = stream_time === null ? "" : new Date(stream_time).toISOString()
    table.push([`${name} v${version}`, `${topic}/${partition}`, position, end, lag, epoch, time, halted ?? mode])
  }
  return [
    table.toString(),
    ...relays.map(
      ({ halted, lag, target }) => `relay to ${target}: ${lag} behind${halted === null ? "" : `, halted: ${halted}`}`
    ),
    `dead letters: ${dead_letters}`,
    healthy ? "healthy" : "not healthy"
  ].join("\n")
}
