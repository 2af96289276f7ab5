// Rules that every adapter of the log follows: what may be declared and appended, and how a batch is split. Pure.
import { afterString } from "./json.ts"
import { type Batch, LogError, type NewRecord, type ReadOptions, type TopicSpec, UnknownTopic } from "./log.ts"
import { counted } from "../text/counted.ts"

/** The default of `ReadOptions.maxBytes`. */
const defaultMaxBytes = 1 << 20
/** How many bytes of values the next read may return at most. */
export const maxBytesOf = ({ maxBytes = defaultMaxBytes }: ReadOptions = {}): number =>
  typeof maxBytes === "number" ? maxBytes : maxBytes()

/** Why a topic cannot be declared like this; undefined if it can. */
export const specProblem = ({
  compacted,
  isAggregate,
  name,
  partitions,
  retentionMs
}: TopicSpec): string | undefined => {
  if (name === "") return "the topic has no name; give it one"
  if (!(Number.isInteger(partitions) && partitions >= 1))
    return `partitions is ${partitions}; it must be a whole number, at least 1`
  if (retentionMs !== undefined && !(retentionMs > 0)) return `retention is ${retentionMs} ms; it must be more than 0`
  if (isAggregate === true && (compacted || retentionMs !== undefined))
    return `it has the events of an aggregate, which are kept forever; declare it without ${compacted ? "compaction" : "retention"}`
  return undefined
}

const policyName = (compacted: boolean) => (compacted ? "compacted" : "not compacted")

/** Why an existing topic cannot become what is declared; undefined if it fits, or if only its retention differs. */
export const specConflict = (
  there: Pick<TopicSpec, "partitions" | "compacted" | "isAggregate">,
  spec: TopicSpec
): string | undefined => {
  if ((there.isAggregate === true) !== (spec.isAggregate === true)) {
    return there.isAggregate === true
      ? "it has the events of an aggregate; give the other topic another name"
      : "a topic of this name exists already; give the aggregate another name"
  }
  if (there.compacted !== spec.compacted) {
    return `the topic is ${policyName(there.compacted)} but is declared as ${policyName(spec.compacted)}; give the new topic another name`
  }
  if (there.partitions === spec.partitions) return undefined
  return (
    `the topic has ${counted(there.partitions, "partition")} but is declared with ${spec.partitions}, which would break the order of its keys; ` +
    `declare ${there.partitions}, or give the new topic another name and copy the events`
  )
}

/** The error for appending to the topic of an aggregate from outside of the event store. */
export const aggregateTopic = (topic: string) =>
  new LogError({
    operation: "append",
    topic,
    retryable: false,
    reason: "it has the events of an aggregate, which commands append; send the aggregate a command"
  })

/** The error for a topic that does not exist. */
export const unknownTopic = (topic: string) => new UnknownTopic({ topic, reason: "the topic does not exist" })

/** The error for a partition that the topic does not have; undefined if it has it. */
export const partitionProblem = (topic: string, partitions: number, partition: number): UnknownTopic | undefined =>
  Number.isInteger(partition) && partition >= 0 && partition < partitions
    ? undefined
    : new UnknownTopic({
        topic,
        reason: `partition ${partition} does not exist; the topic has partitions 0 to ${partitions - 1}`
      })

/** Valid JSON without the white space between its tokens. */
const withoutSpaces = (json: string): string => {
  let text = ""
  let start = 0
  for (let i = 0; i < json.length;) {
    const char = json.charAt(i)
    if (char === '"') i = afterString(json, i)
    else if (char === " " || char === "\n" || char === "\r" || char === "\t") {
      text += json.slice(start, i)
      start = ++i
    } else i++
  }
  return text + json.slice(start)
}
/**
 * A value as one line of well-formed text without NUL. Undefined if the value is not JSON. In valid JSON line ends occur only between tokens,
 * so the spaces there are removed, and nothing else changes; only text that is not well-formed is written again, with escapes.
 */
export const singleLineJson = (value: string): string | undefined => {
  if (value.length > 0 && !value.includes("\n") && !value.includes("\0") && value.isWellFormed()) return value
  try {
    const parsed = JSON.parse(value) as unknown
    return value.isWellFormed() ? withoutSpaces(value) : JSON.stringify(parsed)
  } catch {
    return undefined
  }
}

/** The records as they may be stored (the same array if nothing had to change), or the error of the first that may not. */
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
      return refuse(i, `the event time is ${record.eventTime}; it must be a number of milliseconds`)
    if (record.value === null) continue
    const value = singleLineJson(record.value)
    if (value === undefined) return refuse(i, "the value is not JSON")
    if (value !== record.value) (copy ??= [...records])[i] = { ...record, value }
  }
  return copy ?? records
}

/** The first records of a batch, `maxBytes` of values at most but at least one record, and the rest of the batch if there is any. */
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
