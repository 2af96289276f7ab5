// Dead letters of projections: events that a projection parked. A retry appends a retry record to the event's topic.
import * as Effect from "effect/Effect"
import type { Log } from "../../log/log.ts"
import { retryRecord } from "../../dead-letter/retry-record.ts"
import { query, type Sql } from "../../postgres/client/client.ts"
import { bytesOf } from "../../text/utf8.ts"
import { readIdentity } from "../../postgres/store/identity.ts"
import * as StoredDeadLetters from "../../postgres/store/dead-letters.ts"
import {
  type DeadLetterFilter,
  type DeadLettersContext,
  type DeadLetterSource,
  iso,
  type ListedDeadLetter,
  type ListPurpose
} from "./source.ts"

/** The value's bytes as base64, if its envelope keeps a value that is not text. */
const bytesIfNoText = (envelope: string): string | null => {
  const { value } = JSON.parse(envelope) as { readonly value?: string }
  return value === undefined ? null : bytesOf(value).toString("base64")
}
/** All that is known of a dead letter, with the envelope's fields beside its columns. */
const detailsOf = ({ envelope, ...columns }: StoredDeadLetters.StoredDeadLetter) => {
  const { eventId = null, tenant = null } = (
    envelope === null ? {} : JSON.parse((JSON.parse(envelope) as { envelope?: string }).envelope ?? envelope)
  ) as { readonly eventId?: string; readonly tenant?: string }
  const bytes = envelope === null || columns.value === null ? null : bytesIfNoText(envelope)
  return {
    ...columns,
    ...(bytes !== null && { value_base64: bytes }),
    kind: "projection",
    event_id: eventId,
    tenant,
    event_time: iso(columns.event_time),
    failed_at: iso(columns.failed_at),
    decided_at: iso(columns.decided_at)
  }
}
const listedOf = (deadLetter: StoredDeadLetters.StoredDeadLetter): ListedDeadLetter => {
  const { attempts, error, failed_at: failedAt, id, key, message, partition, position, status, topic } = deadLetter
  return {
    id,
    status,
    failedIn: `${deadLetter.projection} v${deadLetter.version}`,
    record: `${topic}/${partition}@${position}`,
    key,
    error: `${error}: ${message}`,
    attempts,
    failedAt,
    details: detailsOf(deadLetter)
  }
}

/** How many dead letters are marked and appended together. */
const chunk = 200
/** Those that can be discarded. The log may already have the retry record of one that is `retrying`. */
const discardable = ["parked", "skipped"] as const

/**
 * Appends a retry record for each dead letter to its topic, and returns how many were appended. Each dead letter is marked as `retrying` before,
 * so that one whose record was not appended is noticed. The projection processes a dead letter once, even if the log has several retry records of it.
 */
export const appendRetryRecords = Effect.fnUntraced(function* (
  sql: Sql,
  log: Log["Service"],
  deadLetters: ReadonlyArray<StoredDeadLetters.StoredDeadLetter>,
  by: string
) {
  let appended = 0
  const database = (yield* readIdentity(sql))?.id
  for (let i = 0; i < deadLetters.length; i += chunk) {
    const some = deadLetters.slice(i, i + chunk)
    const marked = yield* query("note retries", () =>
      StoredDeadLetters.markRetrying(
        sql,
        some.map(({ id }) => id),
        by
      )
    )
    const open = new Set(marked.map(({ id }) => id))
    // the list is ordered by topic
    for (const [topic, ofTopic] of Map.groupBy(some, (deadLetter) => deadLetter.topic)) {
      const records = ofTopic
        .filter(({ id }) => open.has(id))
        .map(({ envelope, partition, position, projection, value }) => {
          const record = StoredDeadLetters.recordOfDeadLetter({ envelope: envelope!, position, value }, partition)
          return retryRecord(record, projection, position, database)
        })
      if (records.length > 0) yield* log.append(topic, records)
      appended += records.length
    }
  }
  return appended
})

/** The dead letters of all projections. */
export const projectionDeadLetters = ({ openLog, sql }: DeadLettersContext): DeadLetterSource => {
  const known = new Map<number, StoredDeadLetters.StoredDeadLetter>()
  const filterOf = (ids: ReadonlyArray<string> | undefined, filter: DeadLetterFilter, purpose: ListPurpose) => ({
    ...filter,
    ids: ids?.map(Number),
    statuses: filter.statuses.filter(
      (status) => purpose !== "discard" || discardable.some((possible) => possible === status)
    )
  })
  return {
    list: Effect.fnUntraced(function* (ids, filter, purpose) {
      const asked = filterOf(ids, filter, purpose)
      const found = yield* query("read dead letters", () =>
        purpose === "retry"
          ? StoredDeadLetters.retryable(sql, asked)
          : StoredDeadLetters.list(sql, asked, purpose === "discard")
      )
      for (const deadLetter of found) known.set(deadLetter.id, deadLetter)
      return found.map(listedOf)
    }),
    count: (ids, filter, purpose) =>
      query("count dead letters", () =>
        StoredDeadLetters.count(sql, filterOf(ids, filter, purpose), purpose === "retry")
      ),
    retry: Effect.fnUntraced(function* (deadLetters, by) {
      if (deadLetters.length === 0) return { retried: 0, refused: [] }
      const some = deadLetters.map(({ id }) => known.get(Number(id))!)
      return { retried: yield* appendRetryRecords(sql, yield* openLog, some, by), refused: [] }
    }),
    discard: Effect.fnUntraced(function* (deadLetters, by) {
      const ids = deadLetters.map(({ id }) => Number(id))
      const asked = { ids, statuses: discardable, limit: ids.length }
      return (yield* query("discard dead letters", () => StoredDeadLetters.discard(sql, asked, by))).length
    })
  }
}
