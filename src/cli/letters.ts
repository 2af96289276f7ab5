// What `millrace dlq` does: lists dead letters, shows them, appends them to their topics again, and discards them.
import { userInfo } from "node:os"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Log } from "../log.ts"
import type { Sql } from "../postgres/client.ts"
import * as Letters from "../postgres/dead-letters.ts"
import { query } from "../postgres/client.ts"
import { retryRecord } from "../retry.ts"
import { openDatabase, openSystem } from "../system.ts"
import { loadApplication } from "./config.ts"
import { CommandFailed, exitCodes } from "./failure.ts"

const print = (text: string) => Effect.sync(() => process.stdout.write(text === "" ? "" : `${text}\n`))

/** The filters as they were given. */
export interface Filters {
  readonly ids: ReadonlyArray<number>
  readonly projection: string | undefined
  readonly topic: string | undefined
  readonly key: string | undefined
  readonly error: string | undefined
  /** A duration before now, or a date. */
  readonly since: string | undefined
  readonly limit: number
}
/** What all subcommands are given. */
export interface Options extends Filters {
  readonly data: string
  readonly config: string | undefined
  readonly json: boolean
}

const usage = (message: string, hint: string) => new CommandFailed({ message, try: hint, exitCode: exitCodes.usage })

/** A moment: a date, or a duration before `now`. Undefined where the text is neither. */
export const sinceOf = (text: string, now: number): number | undefined => {
  const duration = Option.getOrUndefined(Duration.fromInput(text as Duration.Input))
  if (duration !== undefined) return now - Duration.toMillis(duration)
  const date = Date.parse(text)
  return Number.isNaN(date) ? undefined : date
}
const filterOf = Effect.fnUntraced(function* (
  { error, ids, key, limit, projection, since, topic }: Filters,
  statuses: Letters.LetterFilter["statuses"]
) {
  const from = since === undefined ? undefined : sinceOf(since, Date.now())
  if (since !== undefined && from === undefined) {
    return yield* usage(`--since ${since} is no time`, '--since "2 hours", or --since 2026-01-31T12:00Z')
  }
  if (limit < 1) return yield* usage(`--limit ${limit} is no number of letters`, "--limit 100")
  const some = ids.length === 0 ? undefined : ids
  return { ids: some, projection, topic, key, error, since: from, statuses, limit } satisfies Letters.LetterFilter
})
/** Everything in bulk is asked for in words. */
const assertChosen = ({ error, ids, key, projection, since, topic }: Filters, all: boolean) =>
  all || ids.length > 0 || [error, key, projection, since, topic].some((given) => given !== undefined)
    ? Effect.void
    : Effect.fail(usage("which dead letters?", "ids, a filter such as --projection, or --all"))

const read = <A>(statement: () => PromiseLike<A>) =>
  query("read dead letters", statement).pipe(
    Effect.mapError((error) =>
      error.code === "42P01" || error.code === "42703"
        ? new CommandFailed({
            message: "this database has no dead letters of this version yet",
            try: "millrace migrate"
          })
        : error
    )
  )

/** A letter as programs get it: the envelope's fields beside the others. */
const publicOf = ({ envelope, ...letter }: Letters.Letter) => {
  const { eventId = null, tenant = null } = (
    envelope === null ? {} : JSON.parse((JSON.parse(envelope) as { envelope?: string }).envelope ?? envelope)
  ) as { readonly eventId?: string; readonly tenant?: string }
  const iso = (time: number | null) => (time === null || !Number.isFinite(time) ? null : new Date(time).toISOString())
  return {
    ...letter,
    event_id: eventId,
    tenant,
    event_time: iso(letter.event_time),
    failed_at: iso(letter.failed_at),
    decided_at: iso(letter.decided_at)
  }
}
const placeOf = ({ partition, position, topic }: Letters.Letter) => `${topic}/${partition}@${position}`
const short = (text: string) => (text.length > 60 ? `${text.slice(0, 59)}…` : text).replaceAll(/\s+/g, " ")
const tableOf = Effect.fnUntraced(function* (letters: ReadonlyArray<Letters.Letter>) {
  const { rowsAs } = yield* Effect.promise(() => import("./tables.ts"))
  const rows = letters.map((letter) => ({
    id: letter.id,
    status: letter.status,
    projection: `${letter.projection} v${letter.version}`,
    record: placeOf(letter),
    key: letter.key === null ? "" : short(letter.key),
    error: short(`${letter.error}: ${letter.message}`),
    attempts: letter.attempts,
    "failed at": publicOf(letter).failed_at
  }))
  const columns = ["id", "status", "projection", "record", "key", "error", "attempts", "failed at"]
  return rowsAs("table", rows, columns)
})

/** Prints letters, the newest first. */
export const list = Effect.fnUntraced(function* (
  options: Options & { readonly status: ReadonlyArray<Letters.Letter["status"]> }
) {
  const filter = yield* filterOf(options, options.status)
  const { sql } = yield* openDatabase(options.data, "join", { max: 1 })
  const letters = yield* read(() => Letters.list(sql, filter))
  yield* print(options.json ? JSON.stringify(letters.map(publicOf)) : yield* tableOf(letters))
  return 0
})

/** The statuses of a list with commas. */
export const statusesOf = (text: string): Effect.Effect<ReadonlyArray<Letters.Letter["status"]>, CommandFailed> => {
  const names = text.split(",").map((name) => name.trim())
  const unknown = names.find((name) => !anyStatus.some((status) => status === name))
  return unknown === undefined
    ? Effect.succeed(names as ReadonlyArray<Letters.Letter["status"]>)
    : Effect.fail(usage(`--status ${unknown} is no status`, `--status ${anyStatus.join(",")}`))
}

const anyStatus = ["parked", "skipped", "retrying", "retried", "discarded"] as const
/** Prints everything that is known of one letter. */
export const show = Effect.fnUntraced(function* (options: {
  readonly data: string
  readonly id: number
  readonly json: boolean
}) {
  const { sql } = yield* openDatabase(options.data, "join", { max: 1 })
  const filter = { ids: [options.id], statuses: anyStatus, limit: 1 }
  const [letter] = yield* read(() => Letters.list(sql, filter))
  if (letter === undefined) {
    return yield* new CommandFailed({ message: `there is no dead letter ${options.id}`, try: "millrace dlq list" })
  }
  const said = publicOf(letter)
  if (options.json) yield* print(JSON.stringify(said))
  else {
    const lines = Object.entries(said).map(([name, value]) => {
      const text = value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value)
      return `${`${name}:`.padEnd(18)}${text}`
    })
    yield* print(lines.join("\n"))
  }
  return 0
})

const who = () => {
  try {
    return userInfo().username
  } catch {
    return `uid ${process.getuid?.() ?? "unknown"}`
  }
}
const atOnce = 200

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

/** Retries letters: appends their records again, for the projection to handle at the log's end. */
export const retry = Effect.fnUntraced(function* (
  options: Options & { readonly all: boolean; readonly dryRun: boolean }
) {
  yield* assertChosen(options, options.all)
  const filter = yield* filterOf(options, ["parked", "skipped", "retrying"])
  const database = yield* openDatabase(options.data, "join", { max: 2 })
  if (options.dryRun) {
    const letters = yield* read(() => Letters.retryable(database.sql, filter))
    yield* print(options.json ? JSON.stringify(letters.map(publicOf)) : `would retry:\n${yield* tableOf(letters)}`)
    return 0
  }
  const application = yield* loadApplication(options.config)
  const { log } = yield* openSystem(application, database)
  const letters = yield* read(() => Letters.retryable(database.sql, filter))
  const retried = yield* append(database.sql, log, letters, who())
  yield* print(
    options.json
      ? JSON.stringify({ retried })
      : `${retried} appended to be handled again${retried === 0 ? "" : "; see millrace dlq list --status parked,retrying"}`
  )
  return yield* missing(options, retried)
})

/** Discards letters: they are kept, and nobody waits for them any more. */
export const discard = Effect.fnUntraced(function* (
  options: Options & { readonly all: boolean; readonly dryRun: boolean }
) {
  yield* assertChosen(options, options.all)
  const filter = yield* filterOf(options, ["parked", "skipped"])
  const { sql } = yield* openDatabase(options.data, "join", { max: 1 })
  if (options.dryRun) {
    const letters = yield* read(() => Letters.list(sql, filter))
    yield* print(options.json ? JSON.stringify(letters.map(publicOf)) : `would discard:\n${yield* tableOf(letters)}`)
    return 0
  }
  const discarded = (yield* read(() => Letters.discard(sql, filter, who()))).length
  yield* print(options.json ? JSON.stringify({ discarded }) : `${discarded} discarded`)
  return yield* missing(options, discarded)
})
/** Ids that were named and were not there to be decided on fail the command. */
const missing = ({ ids }: Filters, done: number) =>
  done > 0 || ids.length === 0
    ? Effect.succeed(0)
    : Effect.fail(
        new CommandFailed({
          message: "none of these is parked, or can be handled again",
          try: `millrace dlq show ${ids[0]}`
        })
      )
