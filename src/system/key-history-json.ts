// The history of a key as JSON. Pure.
import { partitionJson } from "./explanation-json.ts"
import type { NoHistory, ProjectionHistory } from "./key-history.ts"

const historyJson = (found: ProjectionHistory) => {
  const ids = new Map(found.rows.map(({ id }, i) => [id, i]))
  return {
    projection: found.projection,
    problem: null,
    version: found.version,
    build: found.build,
    rows: found.rows.map(({ before, differences, key, name, others, replayed, stored }, id) => ({
      id,
      table: name,
      key,
      other_keys: others,
      before: before ?? null,
      replayed: replayed ?? null,
      stored: stored ?? null,
      same: differences === undefined ? null : differences.every(({ isRounding }) => isRounding)
    })),
    events: found.steps.map((step) => ({
      topic: step.topic,
      partition: step.partition,
      position: step.position,
      retries: step.retries ?? null,
      key: step.key,
      type: step.type ?? null,
      event_id: step.eventId ?? null,
      event_time: step.eventTime,
      appended_at: step.appendedAt ?? null,
      outcome: step.outcome.replaceAll(" ", "_"),
      changes: step.changes.map(({ after, row }) => ({ row: ids.get(row)!, value: after ?? null }))
    })),
    omitted: found.omitted,
    complete: found.isComplete,
    left: found.left,
    partitions: found.partitions.map(partitionJson),
    notes: found.notes
  }
}
/** The history of a key as JSON has it: names in snake case, whole values, times as epoch milliseconds. */
export const keyHistoryJson = (key: string, projections: ReadonlyArray<ProjectionHistory | NoHistory>) => ({
  key,
  projections: projections.map((one) => ("problem" in one ? one : historyJson(one)))
})
