// Formats the explanation of a row, for people and as JSON.
import type { Column, Relation } from "../model/columns.ts"
import type { Row } from "../model/recorder.ts"
import type { ExplainedEvent, RowExplanation } from "../system/explain.ts"
import { jsonText } from "../system/explanation-json.ts"
import { terminalLine } from "./terminal-text.ts"

const most = 200
/** A value on one line, shortened. */
const short = (value: unknown): string => {
  const text = terminalLine(typeof value === "string" ? value : jsonText(value))
  return text.length > most ? `${text.slice(0, most - 1)}…` : text
}
const instant = (ms: number | undefined) =>
  ms === undefined || Math.abs(ms) > 8.64e15 ? String(ms ?? "unknown") : new Date(ms).toISOString()

/** A key as the arguments of the command: the value, or `column=value` for each of several columns. */
export const keyArguments = ({ columns, key }: Relation, row: Row): string => {
  const value = (column: string) => {
    const isTime = columns.some(({ name, type }) => name === column && type === "timestamptz")
    return isTime ? instant(row[column] as number) : String(row[column])
  }
  const texts = key.map((column) => (key.length === 1 ? value(column) : `${column}=${value(column)}`))
  return texts.map((text) => terminalLine(/[\s'"{]/.test(text) ? JSON.stringify(text) : text)).join(" ")
}
/** A row with its times as dates. */
const rowText = (row: Row | undefined, columns: ReadonlyArray<Column>): string => {
  if (row === undefined) return "no row"
  const times = new Set(columns.filter(({ type }) => type === "timestamptz").map(({ name }) => name))
  return short(
    Object.fromEntries(
      Object.entries(row).map(([name, value]) => [
        name,
        times.has(name) && typeof value === "number" ? instant(value) : value
      ])
    )
  )
}

const outcomes: Readonly<Record<ExplainedEvent["outcome"], string>> = {
  applied: "",
  "without effect": "changed nothing",
  late: "too late: its window was closed",
  "dead letter": "dead letter: it never got in",
  duplicate: "duplicate: ignored"
}
const eventText = (event: ExplainedEvent, number: number, columns: ReadonlyArray<Column>): string => {
  const { appendedAt, calls, deadLetter, duplicateOf, error, eventId, eventTime, isCertain, key, lookups } = event
  const { message, outcome, partition, position, retriedBy, row, streamTime, tenant, topic, traceId, type, value } =
    event
  const retry = retriedBy === undefined ? "" : `, retried at position ${retriedBy}`
  const label = [
    `${number}. ${topic}/${partition} position ${position}${retry}`,
    type,
    key === null ? undefined : `key ${short(key)}`
  ]
  const lines = [
    `event time ${instant(eventTime)}, appended ${instant(appendedAt)}` +
      (eventId === undefined ? "" : `, event id ${short(eventId)}`) +
      (tenant === undefined ? "" : `, tenant ${short(tenant)}`) +
      (traceId === undefined ? "" : `, trace ${short(traceId)}`)
  ]
  if (message !== undefined) lines.push(`message ${message.sequence} of the stream ${short(message.stream)}`)
  for (const call of calls) lines.push(`${call.kind} ${short(call.values)}`)
  for (const [name, seen] of Object.entries(lookups)) lines.push(`saw ${name} = ${short(seen)}`)
  lines.push(`value ${value === null ? "null" : short(value)}`)
  const what = outcomes[outcome]
  if (what !== "") {
    const more =
      outcome === "late" && streamTime !== undefined
        ? ` at the stream time ${instant(streamTime)}`
        : duplicateOf !== undefined
          ? `, it has the id of position ${duplicateOf}`
          : ""
    lines.push(`${what}${more}${isCertain ? "" : " (by its key; the handler asked for nothing of this row)"}`)
  }
  if (error !== undefined) lines.push(`error ${error.error}: ${short(error.message)}`)
  if (deadLetter !== undefined) lines.push(`dead letter ${deadLetter.id} in the database: ${deadLetter.status}`)
  if (outcome === "applied") lines.push(`then ${rowText(row, columns)}`)
  return [label.filter((part) => part !== undefined).join("  "), ...lines.map((line) => `   ${line}`)].join("\n")
}

/** The explanation for people: the events, the row, and whether it is the stored one. */
export const explanationText = (explanation: RowExplanation): string => {
  const { build, differences, events, live, notes, omitted, partitions, projection, replayed, row, stored, version } =
    explanation
  const { columns } = row.relation
  const records = partitions.reduce((sum, { from, to }) => sum + to - from, 0)
  const lines = [
    `${row.target.name} ${keyArguments(row.relation, row.key)}: projection ${projection} version ${version}, build ${build}${live ? "" : " (not live)"}; ` +
      `replayed ${records} position${records === 1 ? "" : "s"} of ${partitions.length} partition${partitions.length === 1 ? "" : "s"}`,
    ...(omitted > 0 ? [`${omitted} earlier event${omitted === 1 ? " is" : "s are"} left out; see --limit`] : []),
    ...events.map((event, i) => eventText(event, omitted + i + 1, columns)),
    `the replay gives ${rowText(replayed, columns)}`
  ]
  if (differences === undefined) lines.push(`the stored row is ${rowText(stored, columns)}`)
  else if (differences.length === 0) lines.push("the stored row is the same")
  else if (differences.every(({ isRounding }) => isRounding)) lines.push("the stored row differs by rounding only")
  else
    lines.push(
      `the stored row differs: ${stored === undefined ? "there is none" : replayed === undefined ? rowText(stored, columns) : differences.map((one) => `${one.column} is ${short(one.stored)}, and the replay gives ${short(one.replayed)}`).join("; ")}`,
      "either the handler or what it calls changed since then, lookups had other values (only for events that a note names), or something else wrote to the table"
    )
  return [...lines, ...notes.map((note) => `note: ${note}`)].join("\n")
}
