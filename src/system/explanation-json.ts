// The explanation of a row as JSON. Pure.
import type { ExplainedEvent, ReplayedPartition, RowExplanation } from "./explain.ts"

/** JSON of values that handlers and schemas gave: a bigint, which JSON does not have, is a text. */
export const jsonText = (value: unknown): string =>
  JSON.stringify(value, (_, inner: unknown) => (typeof inner === "bigint" ? String(inner) : inner)) ?? "nothing"

/** A partition as JSON has it: what was replayed of it. */
export const partitionJson = ({ from, gone, partition, stopped, to, topic }: ReplayedPartition) => ({
  topic,
  partition,
  from,
  to,
  gone: gone ?? null,
  stopped: stopped ?? null
})

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
    partitions: partitions.map(partitionJson),
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
