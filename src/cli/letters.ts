// What `millrace dlq` does: lists dead letters, shows them, appends them to their topics again, and discards them.
import { userInfo } from "node:os"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Log } from "../log.ts"
import type { Sql } from "../postgres/client.ts"
import * as Letters from "../postgres/dead-letters.ts"
import { query, SqlError } from "../postgres/client.ts"
import { retryRecord } from "../retry.ts"
import { openDatabase, openDeadLetterTopics, openParkedSender, openSystem } from "../system.ts"
import { loadApplication } from "./config.ts"
import { CommandFailed, exitCodes } from "./failure.ts"
import { type Entry, type Filter, iso, type Kind, relayLetters, subscriptionLetters } from "./other-letters.ts"

const print = (text: string) => Effect.sync(() => process.stdout.write(text === "" ? "" : `${text}\n`))

const kinds = ["projection", "subscription", "relay"] as const
type KindName = (typeof kinds)[number]

/** The filters as they were given. */
export interface Filters {
  /** As `list` prints them. */
  readonly ids: ReadonlyArray<string>
  /** With commas; undefined: all. */
  readonly kind: string | undefined
  readonly projection: string | undefined
  readonly subscription: string | undefined
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
const chosenKinds = ({ kind, projection, subscription }: Filters): ReadonlyArray<KindName> =>
  kinds.filter(
    (name) =>
      (kind === undefined || kind.split(",").some((one) => one.trim() === name)) &&
      (projection === undefined || name !== "subscription") &&
      (subscription === undefined || name === "subscription")
  )
/** The ids of a kind; undefined: none was named, so that filters choose. */
const idsOf = ({ ids }: Filters, kind: KindName): ReadonlyArray<string> | undefined => {
  if (ids.length === 0) return undefined
  const pattern = { projection: /^\d{1,15}$/, relay: /^relay:\d{1,15}$/, subscription: /@/ }[kind]
  return ids.filter((id) => pattern.test(id))
}
/** The filters, checked. */
const filterOf = Effect.fnUntraced(function* (filters: Filters, statuses: ReadonlyArray<Letters.Letter["status"]>) {
  const { error, ids, key, kind, limit, projection, since, subscription, topic } = filters
  const from = since === undefined ? undefined : sinceOf(since, Date.now())
  if (since !== undefined && from === undefined) {
    return yield* usage(`--since ${since} is no time`, '--since "2 hours", or --since 2026-01-31T12:00Z')
  }
  if (limit < 1) return yield* usage(`--limit ${limit} is no number of letters`, "--limit 100")
  const odd = kind?.split(",").find((name) => !kinds.some((one) => one === name.trim()))
  if (odd !== undefined) return yield* usage(`--kind ${odd} is no kind of letter`, `--kind ${kinds.join(",")}`)
  const lost = ids.find((id) => !kinds.some((name) => idsOf(filters, name)!.includes(id)))
  if (lost !== undefined) return yield* usage(`${lost} is no id`, "one that millrace dlq list prints")
  return { projection, subscription, topic, key, error, since: from, statuses, limit } satisfies Filter
})
/** The same for the letters of projections. */
const ofProjections = (filters: Filters, filter: Filter): Letters.LetterFilter => ({
  ...filter,
  ids: idsOf(filters, "projection")?.map(Number),
  statuses: filter.statuses as Letters.LetterFilter["statuses"]
})
/** Everything in bulk is asked for in words. */
const assertChosen = ({ error, ids, key, kind, projection, since, subscription, topic }: Filters, all: boolean) =>
  all ||
  ids.length > 0 ||
  [error, key, kind, projection, since, subscription, topic].some((given) => given !== undefined)
    ? Effect.void
    : Effect.fail(usage("which dead letters?", "ids, a filter such as --projection, or --all"))

const told = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.mapError(effect, (error) =>
    error instanceof SqlError && (error.code === "42P01" || error.code === "42703")
      ? new CommandFailed({ message: "this database has no dead letters of this version yet", try: "millrace migrate" })
      : error
  )
const read = <A>(statement: () => PromiseLike<A>) => told(query("read dead letters", statement))

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
const short = (text: string) => (text.length > 60 ? `${text.slice(0, 59)}…` : text).replaceAll(/\s+/g, " ")
const tableOf = Effect.fnUntraced(function* (entries: ReadonlyArray<Entry>) {
  const { rowsAs } = yield* Effect.promise(() => import("./tables.ts"))
  const rows = entries.map(({ attempts, error, failedAt, id, key, of, record, status }) => ({
    id,
    status,
    of,
    record,
    key: key === null ? "" : short(key),
    error: short(error),
    attempts,
    "failed at": new Date(failedAt).toISOString()
  }))
  return rowsAs("table", rows, ["id", "status", "of", "record", "key", "error", "attempts", "failed at"])
})

/** The kinds of letters beside those of projections that were asked for, and their ids. */
const othersOf = Effect.fnUntraced(function* (sql: Sql, filters: Filters) {
  const wanted = new Set(chosenKinds(filters).filter((name) => idsOf(filters, name)?.length !== 0))
  const found: Array<{ readonly kind: Kind; readonly ids: ReadonlyArray<string> | undefined }> = []
  const add = (name: KindName, kind: Kind) => found.push({ kind, ids: idsOf(filters, name) })
  if (wanted.has("relay")) add("relay", relayLetters(sql, yield* inScope(openParkedSender)))
  if (wanted.has("subscription")) {
    const topics = yield* openDeadLetterTopics(sql)
    if (topics !== undefined) add("subscription", subscriptionLetters(sql, topics))
  }
  return found
})
/** An effect that needs a scope, for whoever has none. */
const inScope = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) =>
  Effect.map(Effect.scope, (scope) => Scope.provide(effect, scope))

/** Letters of all kinds, the newest first. */
const listed = Effect.fnUntraced(function* (sql: Sql, filters: Filters, filter: Filter) {
  const mine = chosenKinds(filters).includes("projection")
    ? yield* read(() => Letters.list(sql, ofProjections(filters, filter)))
    : []
  const entries = mine.map(entryOf)
  for (const { ids, kind } of yield* othersOf(sql, filters)) {
    entries.push(...(yield* told(kind.list(ids, filter, false))))
  }
  return entries.toSorted((a, b) => b.failedAt - a.failedAt).slice(0, filter.limit)
})

/** Prints letters, the newest first. */
export const list = Effect.fnUntraced(function* (
  options: Options & { readonly status: ReadonlyArray<Letters.Letter["status"]> }
) {
  const filter = yield* filterOf(options, options.status)
  const { sql } = yield* openDatabase(options.data, "join", { max: 1 })
  const entries = yield* listed(sql, options, filter)
  yield* print(options.json ? JSON.stringify(entries.map(({ all }) => all)) : yield* tableOf(entries))
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
export const show = Effect.fnUntraced(function* ({
  id,
  ...options
}: Pick<Options, "data" | "json"> & { readonly id: string }) {
  const none = { kind: undefined, projection: undefined, subscription: undefined, topic: undefined }
  const filters = { ...none, ids: [id], key: undefined, error: undefined, since: undefined, limit: 1 }
  const filter = yield* filterOf(filters, anyStatus)
  const { sql } = yield* openDatabase(options.data, "join", { max: 1 })
  const [entry] = yield* listed(sql, filters, filter)
  if (entry === undefined) {
    return yield* new CommandFailed({ message: `there is no dead letter ${id}`, try: "millrace dlq list" })
  }
  if (options.json) yield* print(JSON.stringify(entry.all))
  else {
    const lines = Object.entries(entry.all).map(([name, value]) => {
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

/** Those letters of the other kinds that would be decided on, the oldest first. */
const undecided = Effect.fnUntraced(function* (sql: Sql, filters: Filters, filter: Filter) {
  const found: Array<{ readonly kind: Kind; readonly entries: ReadonlyArray<Entry> }> = []
  for (const { ids, kind } of yield* othersOf(sql, filters)) {
    found.push({ kind, entries: yield* told(kind.list(ids, filter, true)) })
  }
  return found
})

/** Retries letters: appends their records again, for the projection to handle at the log's end, or sends their messages again. */
export const retry = Effect.fnUntraced(function* (
  options: Options & { readonly all: boolean; readonly dryRun: boolean }
) {
  yield* assertChosen(options, options.all)
  const filter = yield* filterOf(options, ["parked", "skipped", "retrying"])
  const database = yield* openDatabase(options.data, "join", { max: 2 })
  const { sql } = database
  const letters = chosenKinds(options).includes("projection")
    ? yield* read(() => Letters.retryable(sql, ofProjections(options, filter)))
    : []
  const others = yield* undecided(sql, options, filter)
  if (options.dryRun) {
    const entries = [...letters.map(entryOf), ...others.flatMap((one) => one.entries)]
    yield* print(
      options.json ? JSON.stringify(entries.map(({ all }) => all)) : `would retry:\n${yield* tableOf(entries)}`
    )
    return 0
  }
  let retried = 0
  if (letters.length > 0) {
    const { log } = yield* openSystem(yield* loadApplication(options.config), database, { relaysHere: false })
    retried += yield* append(sql, log, letters, who())
  }
  for (const { entries, kind } of others) retried += yield* kind.retry(entries, who())
  yield* print(
    options.json
      ? JSON.stringify({ retried })
      : `${retried} sent to be handled again${retried === 0 ? "" : "; see millrace dlq list --status parked,retrying"}`
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
  const isMine = chosenKinds(options).includes("projection")
  const mine = ofProjections(options, filter)
  const others = yield* undecided(sql, options, filter)
  if (options.dryRun) {
    const letters = isMine ? yield* read(() => Letters.list(sql, mine)) : []
    const entries = [...letters.map(entryOf), ...others.flatMap((one) => one.entries)]
    yield* print(
      options.json ? JSON.stringify(entries.map(({ all }) => all)) : `would discard:\n${yield* tableOf(entries)}`
    )
    return 0
  }
  let discarded = isMine ? (yield* read(() => Letters.discard(sql, mine, who()))).length : 0
  for (const { entries, kind } of others) discarded += yield* kind.discard(entries, who())
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
