// Runs `millrace dlq list|show|retry|discard`: turns flags into a selection of dead letters, and prints the results.
import { existsSync } from "node:fs"
import { userInfo } from "node:os"
import * as Effect from "effect/Effect"
import { migrateWhereEmpty } from "../postgres/client/migrate.ts"
import { type Database, openDatabase } from "../system/database.ts"
import * as DeadLetters from "../system/dead-letters/dead-letters.ts"
import { assertOwn } from "../system/identity.ts"
import { assertKnownProjection } from "../system/known-projection.ts"
import { openLog } from "../system/open-log.ts"
import { CommandFailed, exitCodes, usageError } from "./command-failure.ts"
import { loadApplication, loadApplicationIfAny } from "./config.ts"
import { print, warn } from "./print.ts"
import { rowCount, tableOf as table } from "./tables.ts"
import { timeOf } from "../text/moment.ts"

/** The filters that `list`, `retry` and `discard` share, as they were given. */
export interface DlqFilterFlags {
  /** Ids, as `list` prints them. */
  readonly ids: ReadonlyArray<string>
  /** Names with commas between them; undefined: all kinds. */
  readonly kind: string | undefined
  readonly projection: string | undefined
  /** The number of the projection's build. */
  readonly build?: number | undefined
  readonly subscription: string | undefined
  readonly target?: string | undefined
  readonly bridge?: string | undefined
  readonly rule: string | undefined
  readonly topic: string | undefined
  readonly key: string | undefined
  readonly error: string | undefined
  /** A duration before now, or a date. */
  readonly since: string | undefined
  readonly limit: number
}
/** The flags that all commands share. */
export interface DlqSharedFlags {
  readonly data: string
  readonly config: string | undefined
  /** The file of the bridge's rules. */
  readonly rules: string | undefined
  readonly json: boolean
}
/** The flags of `list`. */
export interface DlqListFlags extends DlqSharedFlags, DlqFilterFlags {
  /** Names with commas between them. */
  readonly status: string
}
/** The flags of `retry` and `discard`. */
export interface DlqBulkFlags extends DlqSharedFlags, DlqFilterFlags {
  readonly all: boolean
  /** Names with commas between them; undefined: all open ones. */
  readonly status?: string | undefined
  readonly dryRun: boolean
}

const namesOf = (text: string) => text.split(",").map((name) => name.trim())
const advice: Readonly<Record<DeadLetters.InvalidSelection["field"], string>> = {
  ids: "an id that millrace dlq list prints",
  kinds: `--kind ${DeadLetters.kindNames.join(",")}`,
  statuses: `--status ${DeadLetters.deadLetterStatuses.join(",")}`,
  limit: "--limit 100",
  build: "--projection NAME --build 2",
  bulk: "ids, a filter such as --projection, or --all"
}
const asUsageError = ({ field, message }: DeadLetters.InvalidSelection) => usageError(message, advice[field])
/** The filters as a request: kinds as a list, and the time as a number. */
const requestOf = Effect.fnUntraced(function* ({ kind, since, ...filters }: DlqFilterFlags) {
  const time = since === undefined ? undefined : timeOf(since, Date.now())
  if (since !== undefined && time === undefined)
    return yield* usageError(
      `--since '${since}' is neither a duration nor a date`,
      '--since "2 hours", or --since 2026-01-31T12:00Z'
    )
  const { bridge, build, error, ids, key, limit, projection, rule, subscription, target, topic } = filters
  const kinds = kind === undefined ? undefined : namesOf(kind)
  const ofKind = { projection, build, subscription, target, bridge, rule }
  return { ids, kinds, ...ofKind, error, key, limit, topic, since: time }
})

/** Opens the database that keeps the decisions about dead letters. Commands do not create a state directory for that; an empty database is migrated. */
const openDecisions = Effect.fnUntraced(function* (
  { config, data }: Pick<DlqSharedFlags, "config" | "data">,
  max: number
) {
  if ((process.env["MILLRACE_DATABASE_URL"] ?? "") === "" && !existsSync(data)) {
    return yield* new CommandFailed({
      message: `dlq keeps its decisions about dead letters in a database, and there is none: ${data} does not exist, and MILLRACE_DATABASE_URL is not set`,
      try: `set MILLRACE_DATABASE_URL to the application's database (for a bridge alone: to any PostgreSQL from 15 on), or name its state directory with --data`
    })
  }
  const database = yield* openDatabase(data, "join", { max })
  yield* migrateWhereEmpty(database.sql)
  if (config !== undefined) yield* assertOwn(yield* loadApplication(config), database.sql)
  return database
})
const contextOf = ({ sql }: Database, { rules }: DlqSharedFlags): DeadLetters.DeadLettersContext => ({
  sql,
  // of what the environment names: a retry registers nothing of an application
  openLog: Effect.map(openLog(Effect.succeed(sql)), ({ log }) => log),
  bridgeRules: rules
})

const maxWidth = 60
const short = (text: string) =>
  (text.length > maxWidth ? `${text.slice(0, maxWidth - 1)}…` : text).replaceAll(/\s+/g, " ")
const tableOf = (deadLetters: ReadonlyArray<DeadLetters.ListedDeadLetter>) => {
  const rows = deadLetters.map(({ attempts, error, failedAt, failedIn, id, key, record, status }) => [
    id,
    status,
    failedIn,
    record,
    key === null ? "" : short(key),
    short(error),
    attempts,
    new Date(failedAt).toISOString()
  ])
  const columns = ["id", "status", "failed in", "record", "key", "error", "attempts", "failed at"]
  return `${table(columns, rows)}\n${rowCount(rows.length)}`
}
const jsonOf = (deadLetters: ReadonlyArray<DeadLetters.ListedDeadLetter>) =>
  JSON.stringify(deadLetters.map(({ details }) => details))

/** Reports the kinds that a result does not have. Returns the exit code: 0 if it has all of them. */
const reportLeftOut = Effect.fnUntraced(function* (leftOut: ReadonlyArray<DeadLetters.LeftOutKind>) {
  for (const { kind, reason } of leftOut) yield* warn(`dead letters of kind ${kind} are left out: ${reason}`)
  return leftOut.length > 0 ? exitCodes.failed : 0
})

/** Prints dead letters, the newest first. Exits with 1 if a kind is left out. */
export const list = Effect.fnUntraced(function* ({ status, ...options }: DlqListFlags) {
  const request = { ...(yield* requestOf(options)), statuses: namesOf(status) }
  const selection = yield* Effect.mapError(DeadLetters.selectionOf(request), asUsageError)
  const database = yield* openDecisions(options, 1)
  if (options.projection !== undefined) yield* assertKnownProjection(database.sql, options.projection)
  const { deadLetters, hasMore, leftOut } = yield* DeadLetters.list(contextOf(database, options), selection)
  const code = yield* reportLeftOut(leftOut)
  yield* print(options.json ? jsonOf(deadLetters) : tableOf(deadLetters))
  if (hasMore) yield* warn(`these are the newest ${options.limit}; for others use --limit or filters`)
  return code
})

/** Prints all that is known of one dead letter. */
export const show = Effect.fnUntraced(function* ({ id, ...flags }: DlqSharedFlags & { readonly id: string }) {
  const request = { ids: [id], statuses: DeadLetters.deadLetterStatuses, limit: 1 }
  const selection = yield* Effect.mapError(DeadLetters.selectionOf(request), asUsageError)
  const database = yield* openDecisions(flags, 1)
  const { deadLetters, leftOut } = yield* DeadLetters.list(contextOf(database, flags), selection)
  yield* reportLeftOut(leftOut)
  const [found] = deadLetters
  if (found === undefined)
    return yield* new CommandFailed({ message: `there is no dead letter ${id}`, try: "millrace dlq list" })
  yield* print(flags.json ? JSON.stringify(found.details) : linesOf(found))
  return 0
})
/** What `failed in` says of them already. */
const ofBuild = new Set(["projection", "version", "declared", "live"])
const linesOf = ({ details, failedIn }: DeadLetters.ListedDeadLetter) =>
  Object.entries({ ...details, ...(details["kind"] === "projection" && { "failed in": failedIn }) })
    .filter(([name]) => details["kind"] !== "projection" || !ofBuild.has(name))
    .map(([name, value]) => {
      const text = value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value)
      return `${`${name}:`.padEnd(18)}${text}`
    })
    .join("\n")

/** Who runs the command. */
const currentUser = () => {
  try {
    return userInfo().username
  } catch {
    return `uid ${process.getuid?.() ?? "unknown"}`
  }
}

/** Checks the flags of a retry or a discard. */
const bulkSelectionOf = Effect.fnUntraced(function* (options: DlqBulkFlags) {
  const { all, status } = options
  const statuses = status === undefined ? undefined : namesOf(status)
  const request = { ...(yield* requestOf(options)), statuses, all }
  return yield* Effect.mapError(DeadLetters.bulkSelectionOf(request), asUsageError)
})
/** Opens the database with a connection beside the one that keeps other processes from deciding. */
const openForDecisions = Effect.fnUntraced(function* (options: DlqBulkFlags) {
  const database = yield* openDecisions(options, 2)
  if (options.projection !== undefined) yield* assertKnownProjection(database.sql, options.projection)
  return database
})
/** Prints which dead letters a command would decide about. */
const printPreview = Effect.fnUntraced(function* (
  verb: "retry" | "discard",
  { json }: DlqBulkFlags,
  { beyondLimit, deadLetters, leftOut }: DeadLetters.BulkPreview,
  behind = 0
) {
  yield* reportLeftOut(leftOut)
  const more =
    behind === 0 ? "" : `\n${behind} more ${behind === 1 ? "waits" : "wait"} behind these, and would follow them`
  const others = beyondLimit === 0 ? "" : `\n${beyondLimit} more fit; raise --limit for them`
  yield* print(json ? jsonOf(deadLetters) : `would ${verb}:\n${tableOf(deadLetters)}${more}${others}`)
  return 0
})
/** Fails if ids were named and nothing was done. */
const assertDone = (verb: "retried" | "discarded", { ids }: DlqFilterFlags, done: number) =>
  done > 0 || ids.length === 0
    ? Effect.succeed(0)
    : Effect.fail(
        new CommandFailed({
          message: `none of these dead letters is open and can be ${verb}`,
          try: `millrace dlq show ${ids[0]}`
        })
      )

/** Retries dead letters. Exits with 4 if some are refused again, with 1 if events fail again or a kind is left out. */
export const retry = Effect.fnUntraced(function* (options: DlqBulkFlags) {
  const selection = yield* bulkSelectionOf(options)
  const database = yield* openForDecisions(options)
  const application =
    options.dryRun && options.config === undefined ? undefined : yield* loadApplicationIfAny(options.config)
  if (application !== undefined) yield* assertOwn(application, database.sql)
  const context = contextOf(database, options)
  if (options.dryRun) {
    const preview = yield* DeadLetters.preview(context, selection, "retry")
    return yield* printPreview("retry", options, preview, yield* DeadLetters.countBehind(context, preview))
  }
  const ids: Array<number> = []
  const result = yield* DeadLetters.retry(context, selection, currentUser(), (kind, sent) => {
    if (kind === "projection") ids.push(...sent.map(({ id }) => Number(id)))
  })
  const code = yield* reportLeftOut(result.leftOut)
  const outcome = yield* DeadLetters.awaitOutcome(context, ids)
  const waiting = yield* DeadLetters.waitingRetries(context, ids)
  yield* printRetry(options, result, outcome, waiting)
  const [failure] = result.failures
  if (failure !== undefined) return yield* failure
  if (result.refused.length > 0) return exitCodes.rejected
  yield* assertDone("retried", options, result.retried)
  return outcome !== undefined && outcome.failedAgain > 0 ? exitCodes.failed : code
})
const outcomeText = ({ behind, failedAgain, late, processed }: DeadLetters.RetryOutcome) =>
  `; ${processed} processed${behind === 0 ? "" : `, and ${behind} that waited behind ${processed === 1 ? "it" : "them"}`}${failedAgain === 0 ? "" : `, ${failedAgain} failed again`}` +
  (late === 0
    ? ""
    : `; ${late} ${late === 1 ? "contribution was" : "contributions were"} too late for a window when the event failed, and ${late === 1 ? "is" : "are"} in millrace.late_events`)
/** What the limit left out, for the last line of a command. */
const othersText = (others: number, done: "tried" | "discarded") =>
  others === 0 ? "" : `; ${others} more ${others === 1 ? "was" : "were"} not ${done}; raise --limit for them`
const printRetry = Effect.fnUntraced(function* (
  { json }: DlqBulkFlags,
  { notTried, refused, retried }: DeadLetters.RetryResult,
  outcome: DeadLetters.RetryOutcome | undefined,
  waiting: ReadonlyArray<DeadLetters.WaitingRetries>
) {
  for (const [reason, some] of Map.groupBy(refused, (one) => one.reason)) {
    const which =
      some.length === 1 ? `${some[0]!.id} stays parked` : `${some[0]!.id} and ${some.length - 1} more stay parked`
    yield* warn(`${which}: ${reason}`)
  }
  if (json) {
    const known = outcome && {
      processed: outcome.processed,
      ...(outcome.behind > 0 && { behind: outcome.behind }),
      failed_again: outcome.failedAgain,
      ...(outcome.failed.length > 0 && { failed: outcome.failed }),
      late: outcome.late
    }
    return yield* print(
      JSON.stringify({
        retried,
        ...(refused.length > 0 && { refused }),
        ...known,
        ...(waiting.length > 0 && { not_run: waiting }),
        ...(notTried > 0 && { not_tried: notTried })
      })
    )
  }
  for (const { error, id, message } of outcome?.failed ?? [])
    yield* warn(`${id} failed again: ${short(`${error}: ${message}`)}`)
  for (const { build, count, try: advice } of waiting)
    yield* warn(
      `no process runs ${build}: ${count} of its retries ${count === 1 ? "waits" : "wait"} in the log. try: ${advice}`
    )
  const isDone = outcome !== undefined && outcome.decided >= retried
  const hint = "; millrace dlq list --status parked,retrying shows those that are not processed yet"
  yield* print(
    `${retried} sent again${outcome === undefined ? "" : outcomeText(outcome)}${othersText(notTried, "tried")}${retried === 0 || isDone ? "" : hint}`
  )
})

/** Discards dead letters. Exits with 1 if a kind is left out. */
export const discard = Effect.fnUntraced(function* (options: DlqBulkFlags) {
  const selection = yield* bulkSelectionOf(options)
  const context = contextOf(yield* openForDecisions(options), options)
  if (options.dryRun)
    return yield* printPreview("discard", options, yield* DeadLetters.preview(context, selection, "discard"))
  const { discarded, leftOut, notDiscarded } = yield* DeadLetters.discard(context, selection, currentUser())
  const code = yield* reportLeftOut(leftOut)
  yield* print(
    options.json
      ? JSON.stringify({ discarded, ...(notDiscarded > 0 && { not_discarded: notDiscarded }) })
      : `${discarded} discarded${othersText(notDiscarded, "discarded")}`
  )
  yield* assertDone("discarded", options, discarded)
  return code
})
