// What the files of the log's contract share: topics, records, and reading a whole partition.
import * as Effect from "effect/Effect"
import { Log, type NewRecord, type TopicSpec } from "../../src/log/log.ts"

let topics = 0
/** Declares a topic that no other test uses, and returns its name. */
export const fresh = Effect.fnUntraced(function* (partitions = 1, spec: Partial<TopicSpec> = {}) {
  const name = `topic-${process.pid}-${topics++}`
  const log = yield* Log
  yield* log.declare([{ name, partitions, compacted: false, retentionMs: undefined, ...spec }])
  return name
})
/** A record of partition 0, with the given fields. */
export const record = (given: Partial<NewRecord> = {}): NewRecord => ({
  partition: 0,
  key: "k",
  value: "{}",
  eventTime: 1_357_000_000_000,
  eventId: undefined,
  tenant: undefined,
  traceparent: undefined,
  schemaVersion: undefined,
  headers: {},
  ...given
})
/** All records of a partition, read up to its end. */
export const readAll = Effect.fnUntraced(function* (topic: string, partition = 0, from = 0, maxBytes?: number) {
  const log = yield* Log
  const records = []
  const batches = []
  for (let position = from; ;) {
    const batch = yield* log.read(topic, partition, position, maxBytes === undefined ? {} : { maxBytes })
    if (batch.next === position) return { records, batches, end: batch.end }
    records.push(...batch.records)
    batches.push(batch)
    position = batch.next
  }
})
/** Whole numbers from `from` up to `to`, not included. */
export const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)
