// Dead letters of projections: events that a projection parked. Retries and discards append a record to the event's topic.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Log, NewRecord } from "../../log/log.ts"
import { discardRecord, retryRecord } from "../../dead-letter/retry-record.ts"
import { query, type Sql } from "../../postgres/client/client.ts"
import { appendDecisions } from "../../postgres/events/decisions.ts"
import { bytesOf } from "../../text/utf8.ts"
import { readIdentity } from "../../postgres/store/identity.ts"
import * as StoredDeadLetters from "../../postgres/store/dead-letters.ts"
import { buildText as namedBuild } from "../build-text.ts"
import { mostGroups } from "./groups.ts"
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
/** Names a build for people, as `status` does: `orders v1, live`, `orders build 3 (version 2)`. */
export const buildText = ({
  declared,
  live,
  projection,
  version
}: Pick<StoredDeadLetters.StoredDeadLetter, "declared" | "live" | "projection" | "version">): string =>
  `${namedBuild({ name: projection, declared, version })}${live ? ", live" : ""}`
/** A build that no process runs, so that retries of its dead letters wait in the log, and what to do. */
export interface WaitingRetries {
  /** As `buildText` names it. */
  readonly build: string
  readonly count: number
  readonly try: string
}
/** What to do about retries that wait for a build. */
export const waitingRetriesOf = (row: StoredDeadLetters.NotRun): WaitingRetries => {
  const { count: waiting, declared, live, projection, removed, version } = row
  const start = removed
    ? `put version ${declared} of ${projection} back`
    : "start a process that runs it: millrace start"
  const end = live ? "" : `; or, if nobody needs the build, end it: millrace retire ${projection} ${version}`
  return { build: buildText(row), count: waiting, try: start + end }
}
const listedOf = (deadLetter: StoredDeadLetters.StoredDeadLetter): ListedDeadLetter => {
  const { attempts, error, failed_at: failedAt, id, key, message, partition, position, status, topic } = deadLetter
  return {
    id,
    status,
    failedIn: buildText(deadLetter),
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
/** The states in which a dead letter can be discarded. The log may already have the retry record of one that is `retrying`. */
const discardable = ["parked", "skipped"] as const

/** The builds that a decision about a dead letter counts for: with the live one all of them, as a replay decides; with another, that one and later ones. */
const readDecidedBuilds = Effect.fnUntraced(function* (
  sql: Sql,
  deadLetters: ReadonlyArray<StoredDeadLetters.StoredDeadLetter>
) {
  const names = deadLetters.filter(({ live }) => !live).map(({ projection }) => projection)
  const rows =
    names.length === 0 ? [] : yield* query("read builds", () => StoredDeadLetters.nextBuilds(sql, [...new Set(names)]))
  const next = new Map(rows.map((row) => [row.projection, row.next]))
  return ({ live, projection, version }: StoredDeadLetters.StoredDeadLetter) =>
    live ? undefined : { build: version, next: next.get(projection) ?? version + 1 }
})

/** Appends retry or discard records to a topic, which may be that of an aggregate. */
const appendTo = Effect.fnUntraced(function* (
  sql: Sql,
  log: Log["Service"],
  topic: string,
  records: ReadonlyArray<NewRecord>
) {
  if (!(yield* appendDecisions(sql, topic, records))) yield* log.append(topic, records)
})

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
  const buildsOf = yield* readDecidedBuilds(sql, deadLetters)
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
        .map((deadLetter) => {
          const { envelope, partition, position, projection, value } = deadLetter
          const record = StoredDeadLetters.recordOfDeadLetter({ envelope: envelope!, position, value }, partition)
          return retryRecord(record, projection, position, database, buildsOf(deadLetter))
        })
      if (records.length > 0) yield* appendTo(sql, log, topic, records)
      appended += records.length
    }
  }
  return appended
})

/** Appends a discard record for each dead letter to its topic. False: the topic does not exist any more. */
const appendDiscards = (
  sql: Sql,
  log: Log["Service"],
  topic: string,
  deadLetters: ReadonlyArray<StoredDeadLetters.StoredDeadLetter>,
  database: string | undefined,
  buildsOf: Effect.Success<ReturnType<typeof readDecidedBuilds>>
) => {
  const records = deadLetters.map((deadLetter) => {
    const { envelope, partition, position, projection, value } = deadLetter
    const record = StoredDeadLetters.recordOfDeadLetter({ envelope: envelope!, position, value }, partition)
    return discardRecord(record, projection, position, database, buildsOf(deadLetter))
  })
  return appendTo(sql, log, topic, records).pipe(
    Effect.as(true),
    Effect.catchTag("UnknownTopic", () => Effect.succeed(false))
  )
}
/**
 * Discards dead letters, and returns how many were open. A discard record is appended to the topic of each before the decision is noted: if the
 * process is killed between the two, the projection discards the dead letter when it processes the record, and the same call can be repeated. Dead
 * letters without an envelope (of lookup topics, and from before retries), and those of topics that no longer exist, get no record, because no
 * replay processes them.
 */
export const discardProjections = Effect.fnUntraced(function* (
  { openLog, sql }: Pick<DeadLettersContext, "openLog" | "sql">,
  deadLetters: ReadonlyArray<StoredDeadLetters.StoredDeadLetter>,
  by: string
): Effect.fn.Return<number, Error, Scope.Scope> {
  let discarded = 0
  const database = (yield* readIdentity(sql))?.id
  const buildsOf = yield* readDecidedBuilds(sql, deadLetters)
  const log = deadLetters.some(({ envelope }) => envelope !== null) ? yield* openLog : undefined
  const note = (some: typeof deadLetters, isLogged: boolean) => {
    const ids = some.map(({ id }) => id)
    return query("note discards", () => StoredDeadLetters.noteDiscarded(sql, ids, by, isLogged))
  }
  for (let i = 0; i < deadLetters.length; i += chunk) {
    const some = deadLetters.slice(i, i + chunk)
    const found = yield* query("look for open dead letters", () =>
      StoredDeadLetters.discardable(
        sql,
        some.map(({ id }) => id)
      )
    )
    const ids = new Set(found.map(({ id }) => id))
    const open = some.filter(({ id }) => ids.has(id))
    yield* note(
      open.filter(({ envelope }) => envelope === null),
      false
    )
    const recorded = open.filter(({ envelope }) => envelope !== null)
    for (const [topic, ofTopic] of Map.groupBy(recorded, (deadLetter) => deadLetter.topic))
      yield* note(ofTopic, yield* appendDiscards(sql, log!, topic, ofTopic, database, buildsOf))
    discarded += open.length
  }
  return discarded
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
    groups: Effect.fnUntraced(function* (ids, filter) {
      const asked = { ...filterOf(ids, filter, "show"), limit: mostGroups }
      const found = yield* query("group dead letters", () => StoredDeadLetters.groups(sql, asked))
      const groups = found.map((group) => ({
        failedIn: buildText(group),
        projection: group.projection,
        build: group.version,
        live: group.live,
        error: group.error,
        count: group.count,
        keys: group.keys,
        firstFailedAt: group.first_failed_at,
        lastFailedAt: group.last_failed_at,
        sample: { id: group.sample, message: group.message },
        waiting: group.waiting,
        waits: group.error === "EarlierParked"
      }))
      return { groups, isPartial: groups.length === mostGroups }
    }),
    retry: Effect.fnUntraced(function* (deadLetters, by) {
      if (deadLetters.length === 0) return { retried: 0, refused: [] }
      const some = deadLetters.map(({ id }) => known.get(Number(id))!)
      return { retried: yield* appendRetryRecords(sql, yield* openLog, some, by), refused: [] }
    }),
    discard: (deadLetters, by) =>
      discardProjections(
        { openLog, sql },
        deadLetters.map(({ id }) => known.get(Number(id))!),
        by
      )
  }
}
