// Rules that every adapter of the log holds: what may be declared and appended, and how a batch is cut to size. Pure.
import { type Batch, LogError, type NewRecord, type TopicSpec, UnknownTopic } from "./log.ts"

/** What a reader takes at once, in bytes, where it says nothing else. */
export const defaultMaxBytes = 1 << 20

/** Why a topic cannot be declared so; undefined where it can. */
export const specProblem = ({ name, partitions, retentionMs }: TopicSpec): string | undefined => {
  if (name === "") return "a topic needs a name"
  if (!(Number.isInteger(partitions) && partitions >= 1))
    return `partitions is ${partitions}, it must be a whole number from 1`
  if (retentionMs !== undefined && !(retentionMs > 0)) return `retention is ${retentionMs} ms, it must be more than 0`
  return undefined
}

const policy = (compacted: boolean) => (compacted ? "compacted" : "kept by age")

/** Why a topic that is there cannot be what is declared now; undefined where it is, or where only its retention differs. */
export const specConflict = (
  there: Pick<TopicSpec, "partitions" | "compacted">,
  spec: TopicSpec
): string | undefined => {
  if (there.compacted !== spec.compacted) {
    return `it is ${policy(there.compacted)} and was declared ${policy(spec.compacted)}: give the new topic another name`
  }
  if (there.partitions === spec.partitions) return undefined
  return (
    `it has ${there.partitions} partitions and was declared with ${spec.partitions}, which would break the order of its keys: ` +
    `declare ${there.partitions}, or give the new topic another name and copy the events`
  )
}

/** The error for a topic that was never declared. */
export const unknownTopic = (topic: string) => new UnknownTopic({ topic, reason: "there is no such topic" })

/** Why a topic has no such partition; undefined where it has. */
export const partitionProblem = (topic: string, partitions: number, partition: number): UnknownTopic | undefined =>
  Number.isInteger(partition) && partition >= 0 && partition < partitions
    ? undefined
    : new UnknownTopic({ topic, reason: `it has partitions 0 to ${partitions - 1}, not ${partition}` })

/** A value as one line of well-formed text without NUL: where it is none, its JSON is written anew. Undefined: it is no JSON. */
export const singleLineJson = (value: string): string | undefined => {
  if (value.length > 0 && !value.includes("\n") && !value.includes("\0") && value.isWellFormed()) return value
  try {
    return JSON.stringify(JSON.parse(value))
  } catch {
    return undefined
  }
}

/** The records as they may be stored, the same array if all are fine, or why one of them may not. */
export const checkRecords = (
  topic: string,
  partitions: number,
  records: ReadonlyArray<NewRecord>
): ReadonlyArray<NewRecord> | LogError | UnknownTopic => {
  const refuse = (i: number, reason: string) =>
    new LogError({
      operation: "append",
      topic,
      retryable: false,
      reason: `record ${i + 1} of ${records.length}: ${reason}`
    })
  let copy: Array<NewRecord> | undefined
  for (let i = 0; i < records.length; i++) {
    const record = records[i]!
    const refused = partitionProblem(topic, partitions, record.partition)
    if (refused !== undefined) return refused
    if (!Number.isFinite(record.eventTime))
      return refuse(i, `its event time is ${record.eventTime}, no number of milliseconds`)
    if (record.value === null) continue
    const value = singleLineJson(record.value)
    if (value === undefined) return refuse(i, "its value is not JSON")
    if (value !== record.value) (copy ??= [...records])[i] = { ...record, value }
  }
  return copy ?? records
}

/** The first records of a batch that have at most `maxBytes`, but at least one, and what is left. */
export const splitBatch = (batch: Batch, maxBytes: number): readonly [Batch, Batch | undefined] => {
  let bytes = 0
  const at = batch.records.findIndex((record, i) => {
    bytes += record.value === null ? 0 : Buffer.byteLength(record.value)
    return i > 0 && bytes > maxBytes
  })
  if (at < 0) return [batch, undefined]
  const { end, next, records } = batch
  return [
    { records: records.slice(0, at), next: records[at]!.position, end },
    { records: records.slice(at), next, end }
  ]
}
