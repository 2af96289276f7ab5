// Events that projections parked, as dead letters: a retry appends their records to their topics again. It handles none.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Log } from "../../log/log.ts"
import { query, type Sql } from "../../postgres/client/client.ts"
import * as Letters from "../../postgres/store/dead-letters.ts"
import { retryRecord } from "../../dead-letter/retry-record.ts"
import { type Entry, type Filter, iso, type Purpose, type Source } from "./source.ts"

/** A letter as programs get it: the envelope's fields beside the others. */
const publicOf = ({ envelope, ...letter }: Letters.Letter) => {
  const { eventId = null, tenant = null } = (
    envelope === null ? {} : JSON.parse((JSON.parse(envelope) as { envelope?: string }).envelope ?? envelope)
  ) as { readonly eventId?: string; readonly tenant?: string }
  return {
    ...letter,
    kind: "projection",
    event_id: eventId,
    tenant,
    event_time: iso(letter.event_time),
    failed_at: iso(letter.failed_at),
    decided_at: iso(letter.decided_at)
  }
}
const entryOf = (letter: Letters.Letter): Entry => {
  const { attempts, error, failed_at: failedAt, id, key, message, partition, position, status, topic } = letter
  return {
    id,
    status,
    of: `${letter.projection} v${letter.version}`,
    record: `${topic}/${partition}@${position}`,
    key,
    error: `${error}: ${message}`,
    attempts,
    failedAt,
    all: publicOf(letter)
  }
}

const atOnce = 200
/** Of others the record that asks for their retry may be in the log. */
const discardable = ["parked", "skipped"] as const

/**
 * Appends letters to their topics once more. Each is noted as `retrying` before it is appended, so that one which is not is seen; the
 * projection handles a letter once however often its retry is in the log. Returns how many were appended.
 */
export const append = Effect.fnUntraced(function* (
  sql: Sql,
  log: Log["Service"],
  letters: ReadonlyArray<Letters.Letter>,
  by: string
) {
  let appended = 0
  for (let i = 0; i < letters.length; i += atOnce) {
    const some = letters.slice(i, i + atOnce)
    const marked = yield* query("note retries", () =>
      Letters.markRetrying(
        sql,
        some.map(({ id }) => id),
        by
      )
    )
    const open = new Set(marked.map(({ id }) => id))
    // letters come by topic
    for (const [topic, of] of Map.groupBy(some, (letter) => letter.topic)) {
      const records = of
        .filter(({ id }) => open.has(id))
        .map(({ envelope, partition, position, projection, value }) => {
          const record = Letters.recordOfLetter({ envelope: envelope!, position, value }, partition)
          return retryRecord(record, projection, position)
        })
      if (records.length > 0) yield* log.append(topic, records)
      appended += records.length
    }
  }
  return appended
})

/** What projections parked. `open` opens the log, in the scope of the command. */
export const projectionLetters = (sql: Sql, open: Effect.Effect<Log["Service"], unknown, Scope.Scope>): Source => {
  const letters = new Map<number, Letters.Letter>()
  const filterOf = (ids: ReadonlyArray<string> | undefined, filter: Filter, purpose: Purpose) => ({
    ...filter,
    ids: ids?.map(Number),
    statuses: filter.statuses.filter(
      (status): status is Letters.Letter["status"] => purpose !== "discard" || discardable.some((one) => one === status)
    )
  })
  return {
    list: Effect.fnUntraced(function* (ids, filter, purpose) {
      const asked = filterOf(ids, filter, purpose)
      const found = yield* query("read dead letters", () =>
        purpose === "retry" ? Letters.retryable(sql, asked) : Letters.list(sql, asked, purpose === "discard")
      )
      for (const letter of found) letters.set(letter.id, letter)
      return found.map(entryOf)
    }),
    retry: Effect.fnUntraced(function* (entries, by) {
      if (entries.length === 0) return { retried: 0, refused: [] }
      const some = entries.map(({ id }) => letters.get(Number(id))!)
      return { retried: yield* append(sql, yield* open, some, by), refused: [] }
    }),
    discard: Effect.fnUntraced(function* (entries, by) {
      const ids = entries.map(({ id }) => Number(id))
      const asked = { ids, statuses: discardable, limit: ids.length }
      return (yield* query("discard dead letters", () => Letters.discard(sql, asked, by))).length
    })
  }
}
