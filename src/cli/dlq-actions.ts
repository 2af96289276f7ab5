// What `millrace dlq` does with dead letters of all kinds: lists, shows, retries and discards them.
import { existsSync } from "node:fs"
import { userInfo } from "node:os"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { SqlError } from "../postgres/client/client.ts"
import { soleRetry } from "../postgres/store/dead-letter-decisions.ts"
import { type Database, openDatabase } from "../system/database.ts"
import { openDeadLetterTopics, openParkedSender } from "../system/open-dead-letters.ts"
import { openSystem } from "../system/system.ts"
import { migrateWhereEmpty } from "../postgres/client/migrate.ts"
import { loadApplication } from "./config.ts"
import { CommandFailed, exitCodes } from "../system/command-failure.ts"
import type { Entry, Filter, Purpose, Retried, Source } from "../system/dead-letters/source.ts"
import { projectionLetters } from "../system/dead-letters/of-projections.ts"
import { relayLetters } from "../system/dead-letters/of-relays.ts"
import { subscriptionLetters } from "../system/dead-letters/of-topics.ts"

const print = (text: string) => Effect.sync(() => process.stdout.write(text === "" ? "" : `${text}\n`))

/** The kinds, and what their ids look like. */
const kinds = {
  projection: /^\d{1,15}$/,
  subscription: /@\d+:[^@]*$/,
  relay: /^relay:\d{1,15}$/,
  bridge: /@[0-9a-f]{16}$/
} as const
type Kind = keyof typeof kinds
const kindNames = Object.keys(kinds) as ReadonlyArray<Kind>
const statuses = ["parked", "skipped", "retrying", "retried", "discarded"] as const

/** The filters as they were given. */
export interface Filters extends Omit<Filter, "since" | "statuses"> {
  /** As `list` prints them. */
  readonly ids: ReadonlyArray<string>
  /** With commas; undefined: all. */
  readonly kind: string | undefined
  /** A duration before now, or a date. */
  readonly since: string | undefined
}
/** What all subcommands are given. */
export interface Options extends Filters {
  readonly data: string
  readonly config: string | undefined
  /** The bridge's rules. */
  readonly rules: string | undefined
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
/** The kinds that may have what is asked for. */
const chosenKinds = ({ ids, kind, projection, rule, subscription }: Filters): ReadonlyArray<Kind> =>
  kindNames.filter(
    (name) =>
      (kind === undefined || kind.split(",").some((one) => one.trim() === name)) &&
      (projection === undefined || name === "projection" || name === "relay") &&
      (subscription === undefined || name === "subscription") &&
      (rule === undefined || name === "bridge") &&
      (ids.length === 0 || ids.some((id) => kinds[name].test(id)))
  )
/** The filters, checked. */
const filterOf = Effect.fnUntraced(function* (filters: Filters, statuses: ReadonlyArray<string>) {
  const { error, ids, key, kind, limit, projection, rule, since, subscription, topic } = filters
  const from = since === undefined ? undefined : sinceOf(since, Date.now())
  if (since !== undefined && from === undefined) {
    return yield* usage(`--since ${since} is no time`, '--since "2 hours", or --since 2026-01-31T12:00Z')
  }
  if (limit < 1) return yield* usage(`--limit ${limit} is no number of letters`, "--limit 100")
  const odd = kind?.split(",").find((name) => !kindNames.some((one) => one === name.trim()))
  if (odd !== undefined) return yield* usage(`--kind ${odd} is no kind of letter`, `--kind ${kindNames.join(",")}`)
  const lost = ids.find((id) => !kindNames.some((name) => kinds[name].test(id)))
  if (lost !== undefined) return yield* usage(`${lost} is no id`, "one that millrace dlq list prints")
  return { projection, subscription, rule, topic, key, error, since: from, statuses, limit } satisfies Filter
})
/** Everything in bulk is asked for in words. */
const assertChosen = (filters: Filters, all: boolean) => {
  const { error, ids, key, kind, projection, rule, since, subscription, topic } = filters
  const given = [error, key, kind, projection, rule, since, subscription, topic]
  return all || ids.length > 0 || given.some((one) => one !== undefined)
    ? Effect.void
    : Effect.fail(usage("which dead letters?", "ids, a filter such as --projection, or --all"))
}

/** Decisions about letters are kept in a database, which other commands make. One that is there and empty is made ready. */
const openDecisions = Effect.fnUntraced(function* (data: string, max: number) {
  if ((process.env["MILLRACE_DATABASE_URL"] ?? "") === "" && !existsSync(data)) {
    const message = `dlq keeps what was decided about dead letters in a database, and there is none: no ${data}, and MILLRACE_DATABASE_URL is not set`
    const hint = `set MILLRACE_DATABASE_URL to the application's database (for a bridge alone: to any PostgreSQL from 15 on), or name its state directory with --data`
    return yield* new CommandFailed({ message, try: hint })
  }
  const database = yield* openDatabase(data, "join", { max })
  yield* migrateWhereEmpty(database.sql)
  return database
})
const told = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.mapError(effect, (error) =>
    error instanceof SqlError && (error.code === "42P01" || error.code === "42703")
      ? new CommandFailed({ message: "this database has no dead letters of this version yet", try: "millrace migrate" })
      : error
  )

const short = (text: string) => (text.length > 60 ? `${text.slice(0, 59)}…` : text).replaceAll(/\s+/g, " ")
const tableOf = Effect.fnUntraced(function* (entries: ReadonlyArray<Entry>) {
  const { rowsAs } = yield* Effect.promise(() => import("./tables.ts"))
  const rows = entries.map(({ attempts, error, failedAt, id, key, of, record, status }) => [
    id,
    status,
    of,
    record,
    key === null ? "" : short(key),
    short(error),
    attempts,
    new Date(failedAt).toISOString()
  ])
  return rowsAs("table", rows, ["id", "status", "of", "record", "key", "error", "attempts", "failed at"])
})

/** Letters of a kind; undefined: nothing that is configured has any. */
const sourceOf = Effect.fnUntraced(function* (
  kind: Kind,
  database: Database,
  { config, ids, kind: kinds, rule, rules }: Options
): Effect.fn.Return<Source | undefined, unknown, Scope.Scope> {
  const { sql } = database
  if (kind === "relay") return relayLetters(sql, openParkedSender)
  if (kind === "subscription") {
    const topics = yield* openDeadLetterTopics(sql)
    return topics === undefined ? undefined : subscriptionLetters(sql, topics)
  }
  if (kind === "bridge") {
    const asked = ids.length > 0 || kinds !== undefined || rule !== undefined
    return yield* (yield* Effect.promise(() => import("../system/dead-letters/of-bridges.ts"))).open(sql, rules, asked)
  }
  const log = Effect.gen(function* () {
    return (yield* openSystem(yield* loadApplication(config), database, { relaysHere: false })).log
  })
  return projectionLetters(sql, log)
})
interface OfKind {
  readonly source: Source
  readonly entries: ReadonlyArray<Entry>
}
interface Listed {
  readonly found: ReadonlyArray<OfKind>
  /** Why not all kinds that were asked for are there: 1, where one is left out. */
  readonly code: 0 | 1
}
/** Letters of all kinds that were asked for, with where they are from. A system that is away keeps nobody from the letters of another one. */
const listed = Effect.fnUntraced(function* (database: Database, options: Options, filter: Filter, purpose: Purpose) {
  const found: Array<OfKind> = []
  const chosen = chosenKinds(options)
  let code: Listed["code"] = 0
  for (const kind of chosen) {
    const ids = options.ids.length === 0 ? undefined : options.ids.filter((id) => kinds[kind].test(id))
    const read = Effect.gen(function* () {
      const source = yield* sourceOf(kind, database, options)
      if (source !== undefined) found.push({ source, entries: yield* told(source.list(ids, filter, purpose)) })
    })
    const leaveOut = ({ message }: { readonly message: string }) =>
      Effect.sync(() => {
        process.stderr.write(`millrace: dead letters of kind ${kind} are left out: ${message}\n`)
        code = 1
      })
    yield* chosen.length === 1 ? read : Effect.catchIf(read, isAway, leaveOut)
  }
  return { found, code } satisfies Listed
})
const isAway = (error: unknown): error is { readonly message: string } =>
  (error as { readonly retryable?: unknown }).retryable === true
const newest = (found: ReadonlyArray<{ readonly entries: ReadonlyArray<Entry> }>) =>
  found.flatMap(({ entries }) => entries).toSorted((a, b) => b.failedAt - a.failedAt)
const asJson = (entries: ReadonlyArray<Entry>) => JSON.stringify(entries.map(({ all }) => all))

/** Prints letters, the newest first. Says on standard error where there are more than were asked for. */
export const list = Effect.fnUntraced(function* (options: Options & { readonly status: ReadonlyArray<string> }) {
  const filter = yield* filterOf(options, options.status)
  const database = yield* openDecisions(options.data, 1)
  const { limit } = filter
  const { code, found } = yield* listed(database, options, { ...filter, limit: limit + 1 }, "show")
  const all = newest(found)
  const entries = all.slice(0, limit)
  yield* print(options.json ? asJson(entries) : yield* tableOf(entries))
  if (all.length > limit)
    process.stderr.write(`millrace: the newest ${limit}; there are more, see --limit and filters\n`)
  return code
})

/** The statuses of a list with commas. */
export const statusesOf = (text: string): Effect.Effect<ReadonlyArray<string>, CommandFailed> => {
  const names = text.split(",").map((name) => name.trim())
  const unknown = names.find((name) => !statuses.some((status) => status === name))
  return unknown === undefined
    ? Effect.succeed(names)
    : Effect.fail(usage(`--status ${unknown} is no status`, `--status ${statuses.join(",")}`))
}

const none = { kind: undefined, projection: undefined, subscription: undefined, rule: undefined, topic: undefined }
/** Prints everything that is known of one letter. */
export const show = Effect.fnUntraced(function* ({
  id,
  ...given
}: Pick<Options, "data" | "json" | "rules"> & { readonly id: string }) {
  const filters = { ...none, ids: [id], key: undefined, error: undefined, since: undefined, limit: 1 }
  const options: Options = { ...filters, ...given, config: undefined }
  const filter = yield* filterOf(options, statuses)
  const database = yield* openDecisions(options.data, 1)
  const [entry] = newest((yield* listed(database, options, filter, "show")).found)
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
/** What is decided about in bulk. */
export interface Bulk extends Options {
  readonly all: boolean
  readonly dryRun: boolean
}

/** The database, and no other process that decides in bulk on it. */
const openAlone = Effect.fnUntraced(function* ({ data, dryRun }: Bulk) {
  const database = yield* openDecisions(data, 2)
  if (dryRun || (yield* soleRetry(database.sql))) return database
  const message = "another millrace dlq retry or discard is at work on this database"
  return yield* new CommandFailed({ message, try: "again when it has ended" })
})

/** Retries letters: events are handled at the log's end, messages and records are sent again. Exits with 4 where some are refused still. */
export const retry = Effect.fnUntraced(function* (options: Bulk) {
  yield* assertChosen(options, options.all)
  const filter = yield* filterOf(options, ["parked", "skipped", "retrying"])
  const database = yield* openAlone(options)
  const { code, found } = yield* listed(database, options, filter, "retry")
  if (options.dryRun) return yield* wouldDo("retry", options, found)
  const done: Array<Retried> = []
  // what keeps one kind from being sent is no matter of the others
  for (const { entries, source } of found) {
    const ended = told(source.retry(entries, who())).pipe(
      Effect.catch((failure) => Effect.succeed({ retried: 0, refused: [], failure }))
    )
    done.push(yield* ended)
  }
  return Math.max(code, yield* report(options, done))
})
const report = Effect.fnUntraced(function* (options: Options, done: ReadonlyArray<Retried>) {
  const retried = done.reduce((sum, one) => sum + one.retried, 0)
  const refused = done.flatMap((one) => one.refused)
  for (const [reason, some] of Map.groupBy(refused, (one) => one.reason)) {
    const which = some.length === 1 ? `${some[0]!.id} stays` : `${some[0]!.id} and ${some.length - 1} more stay`
    yield* Effect.sync(() => process.stderr.write(`millrace: ${which}: ${reason}\n`))
  }
  yield* print(
    options.json
      ? JSON.stringify({ retried, ...(refused.length > 0 && { refused }) })
      : `${retried} sent to be handled again${retried === 0 ? "" : "; see millrace dlq list --status parked,retrying"}`
  )
  const failed = done.find((one) => one.failure !== undefined)
  if (failed !== undefined) return yield* Effect.fail(failed.failure)
  return refused.length > 0 ? exitCodes.rejected : yield* missing(options, retried)
})

/**
 * Discards letters: they are kept, and nobody waits for them any more. Those whose retry did not come to its end, too, but for events: the record that
 * asks for their retry may be in the log.
 */
export const discard = Effect.fnUntraced(function* (options: Bulk) {
  yield* assertChosen(options, options.all)
  const filter = yield* filterOf(options, ["parked", "skipped", "retrying"])
  const { code, found } = yield* listed(yield* openAlone(options), options, filter, "discard")
  if (options.dryRun) return yield* wouldDo("discard", options, found)
  let discarded = 0
  for (const { entries, source } of found) discarded += yield* told(source.discard(entries, who()))
  yield* print(options.json ? JSON.stringify({ discarded }) : `${discarded} discarded`)
  return Math.max(code, yield* missing(options, discarded))
})

const wouldDo = Effect.fnUntraced(function* (
  what: string,
  { json }: Options,
  found: ReadonlyArray<{ readonly entries: ReadonlyArray<Entry> }>
) {
  const entries = found.flatMap((one) => one.entries)
  yield* print(json ? asJson(entries) : `would ${what}:\n${yield* tableOf(entries)}`)
  return 0
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
