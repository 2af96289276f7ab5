// Formats the explanation of a row, for people and as JSON.
import type { Column, Relation } from "../model/columns.ts"
import type { Row } from "../model/recorder.ts"
import type { ExplainedEvent, RowExplanation } from "../system/explain.ts"
import { terminalLine } from "./terminal-text.ts"

const most = 200
/** JSON of values that handlers and schemas gave: a bigint, which JSON does not have, is a text. */
export const jsonText = (value: unknown): string =>
  JSON.stringify(value, (_, inner: unknown) => (typeof inner === "bigint" ? String(inner) : inner)) ?? "nothing"
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

/** The explanation as JSON has it: names in snake case, whole values, times as epoch milliseconds. */
export const explanationJson = (explanation: RowExplanation) => {
  const { build, differences, events, live, notes, omitted, partitions, projection, replayed, row, stored, version } =
    explanation
  return {
    projection,
    version,
    build,
    live,
    table: row.target.name,
    key: row.key,
    events: events.map(eventJson),
    omitted,
    replayed: replayed ?? null,
    stored: stored ?? null,
    same: differences === undefined ? null : differences.every(({ isRounding }) => isRounding),
    differences: (differences ?? []).map(({ column, isRounding, ...values }) => ({
      column,
      stored: values.stored ?? null,
      replayed: values.replayed ?? null,
      rounding: isRounding
    })),
    partitions: partitions.map(({ from, gone, partition, stopped, to, topic }) => ({
      topic,
      partition,
      from,
      to,
      gone: gone ?? null,
      stopped: stopped ?? null
    })),
    trace_ids: [...new Set(events.flatMap(({ traceId }) => traceId ?? []))],
    notes
  }
}
const eventJson = (event: ExplainedEvent) => ({
  topic: event.topic,
  partition: event.partition,
  position: event.position,
  retried_by: event.retriedBy ?? null,
  outcome: event.outcome.replaceAll(" ", "_"),
  certain: event.isCertain,
  type: event.type ?? null,
  key: event.key,
  event_id: event.eventId ?? null,
  event_time: event.eventTime,
  appended_at: event.appendedAt ?? null,
  stream_time: event.streamTime ?? null,
  tenant: event.tenant ?? null,
  trace_id: event.traceId ?? null,
  value: event.value,
  message: event.message ?? null,
  calls: event.calls,
  lookups: event.lookups,
  error: event.error ?? null,
  dead_letter: event.deadLetter ?? null,
  duplicate_of: event.duplicateOf ?? null,
  row: event.row ?? null
})
