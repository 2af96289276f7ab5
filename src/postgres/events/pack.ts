// An append as the statement takes it: ids as uuids, and events packed as a row of the log. Pure but for the clock.
import { createHash } from "node:crypto"
import { subjectTag } from "../../erasure/subject-keys.ts"
import { tagsOf, toRecords } from "../../aggregate/event-rules.ts"
import type { Append, Expected } from "../../aggregate/event-store.ts"
import { aggregateHeaders } from "../../log/envelope.ts"
import type { NewRecord } from "../../log/log.ts"
import { pack } from "../log/batch-codec.ts"
import { type AppendRow, expectAny, expectExists, versionMark } from "./append-sql.ts"
import type { AggregateTopic } from "./topics.ts"

/** A uuid made of a text: the first 16 bytes of its SHA-256. */
export const uuidOf = (text: string): string => {
  const digits = createHash("sha256").update(text).digest("hex").slice(0, 32)
  return [0, 8, 12, 16, 20].map((from, i) => digits.slice(from, [8, 12, 16, 20, 32][i])).join("-")
}
/** The number that stands for an expectation. */
export const expectation = (expected: Expected): number => {
  if (typeof expected === "number") return expected
  return { any: expectAny, exists: expectExists, noStream: 0 }[expected]
}

/** The events' `meta` for the outbox. Each has its own headers, because several commands share a segment. */
const segmentMetaOf = (records: ReadonlyArray<NewRecord>): string =>
  records
    .map(({ eventId, eventTime, headers, key, schemaVersion, tenant, traceparent }) => {
      // the mark is written raw, because a JSON text would have its escape
      const others = JSON.stringify(headers).slice(0, -1)
      const meta = JSON.stringify([
        key,
        eventTime,
        eventId ?? null,
        tenant ?? null,
        traceparent ?? null,
        schemaVersion ?? null
      ])
      const separator = others === "{" ? "" : ","
      return `${meta.slice(0, -1)},${others}${separator}"${aggregateHeaders.version}":"${versionMark}"}]`
    })
    .join(",")

const subjectTagsOf = (events: Append["events"]): ReadonlyArray<string> =>
  [...new Set(events.flatMap(({ subjects }) => subjects ?? []))].toSorted().map(subjectTag)

/** The events as handlers of inline projections see them: with personal fields that are not sealed. */
const plainRecords = (append: Append, records: ReadonlyArray<NewRecord>, target: Parameters<typeof toRecords>[1]) =>
  append.events.some(({ sealed }) => sealed !== undefined)
    ? toRecords({ ...append, events: append.events.map(({ sealed: _, ...event }) => event) }, target)
    : records

/** How an append is packed. */
export interface PackOptions {
  readonly topic: AggregateTopic
  readonly partition: number
  readonly commandId: string
  /** The index of its first event among all of the command. */
  readonly index: number
}
/** Packs an append that `appendProblem` accepted. */
export const packAppend = (append: Append, options: PackOptions): AppendRow => {
  const { commandId, index, partition, topic } = options
  const target = { commandId, index, partition, now: Date.now() }
  const records = toRecords(append, target)
  const packed = pack(records)
  return {
    topicId: topic.topicId,
    topic: topic.name,
    stream: append.stream,
    partition,
    expected: expectation(append.expected),
    commandId: uuidOf(commandId),
    digest: append.digest === undefined ? null : uuidOf(append.digest),
    follows: append.follows === undefined ? null : uuidOf(append.follows),
    ...packed,
    logRecords: plainRecords(append, records, target),
    tags: [...tagsOf(append.events), ...subjectTagsOf(append.events)],
    keys: append.events.flatMap(({ sealed }) => (sealed === undefined ? [] : [sealed])),
    timer: append.timer ?? null,
    segmentMeta: () => segmentMetaOf(records)
  }
}
