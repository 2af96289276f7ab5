// Runs `millrace timers list|retry|discard`, beside the processes of the system or while none runs.
import * as Effect from "effect/Effect"
import {
  discardTimers,
  type ListedTimer,
  listTimers,
  retryTimers,
  type TimerSelection
} from "../postgres/events/timer-decisions.ts"
import type { Sql, SqlError } from "../postgres/client/client.ts"
import { assertKnownNames } from "../system/known-projection.ts"
import { asUnprepared, CommandFailed, usageError } from "./command-failure.ts"
import { print } from "./print.ts"
import { rowCount, tableOf } from "./tables.ts"
import { openJoined } from "./open-joined.ts"
import { counted } from "../text/counted.ts"

/** What all of the commands are given. */
interface TimerFlags extends Omit<TimerSelection, "failing"> {
  readonly data: string
  readonly config: string | undefined
  readonly json: boolean
}
/** The flags of `list`. */
export interface ListTimersFlags extends TimerFlags {
  readonly failing: boolean
  readonly limit: number
}
/** The flags of `retry` and `discard`. */
export interface DecideTimersFlags extends TimerFlags {
  readonly all: boolean
  readonly dryRun: boolean
}

const open = Effect.fnUntraced(function* (flags: TimerFlags) {
  const { sql } = yield* openJoined(flags)
  yield* Effect.mapError(assertKnownNames(sql, flags), asUnprepared)
  return sql
})

const columns = ["id", "state", "of", "timer", "command", "for", "due", "failures", "reason"]
const maxWidth = 60
const short = (text: string) =>
  (text.length > maxWidth ? `${text.slice(0, maxWidth - 1)}…` : text).replaceAll(/\s+/g, " ")
const rowOf = ({ aggregate, command, due, failures, id, projection, reason, state, stream, timer }: ListedTimer) => [
  id,
  state,
  projection,
  timer ?? "",
  String(command["type"]),
  `${aggregate} ${short(stream)}`,
  due,
  failures,
  short(reason ?? "")
]

/** Prints timers that wait, the next one first. */
export const list = Effect.fnUntraced(function* (flags: ListTimersFlags) {
  const { json, limit } = flags
  if (limit < 1 || limit > 100_000)
    return yield* usageError(`--limit is ${limit}; it must be from 1 to 100000`, "--limit 50")
  const found = yield* Effect.mapError(listTimers(yield* open(flags), flags, limit), asUnprepared)
  yield* print(json ? JSON.stringify(found) : `${tableOf(columns, found.map(rowOf))}\n${rowCount(found.length)}`)
  return 0
})

/** How many a dry run names at most. */
const mostPreviewed = 100_000
const decide = Effect.fnUntraced(function* (
  verb: "retry" | "discard",
  nothing: string,
  flags: DecideTimersFlags,
  change: (sql: Sql, selection: TimerSelection) => Effect.Effect<ReadonlyArray<string>, SqlError>
) {
  const { aggregate, all, dryRun, ids, json, projection } = flags
  if (!all && ids.length === 0 && projection === undefined && aggregate === undefined)
    return yield* usageError(
      "no timers are named",
      "ids that millrace timers list prints, a filter such as --projection, or --all"
    )
  const selection = { ids, projection, aggregate, failing: dryRun && verb === "retry" }
  const sql = yield* open(flags)
  const preview = dryRun ? yield* Effect.mapError(listTimers(sql, selection, mostPreviewed), asUnprepared) : []
  const done = dryRun ? preview.map(({ id }) => id) : yield* Effect.mapError(change(sql, selection), asUnprepared)
  const missing = ids.filter((id) => !done.includes(id.toLowerCase()))
  const what = verb === "discard" ? "discarded" : "tried again now"
  const text = `${counted(done.length, "command")} ${dryRun ? "would be" : verb === "retry" ? "to be" : ""} ${what}`
  if (dryRun && !json && preview.length > 0) yield* print(tableOf(columns, preview.map(rowOf)))
  yield* print(json ? JSON.stringify({ ...(dryRun && { dry_run: true }), ids: done }) : text.replace("  ", " "))
  if (missing.length > 0)
    return yield* new CommandFailed({ message: `${nothing}: ${missing.join(", ")}`, try: "millrace timers list" })
  return 0
})

/** Tries what failed now. */
export const retry = (flags: DecideTimersFlags) =>
  decide("retry", "no command that failed has this id", flags, retryTimers)
/** Deletes what waits or fails. */
export const discard = (flags: DecideTimersFlags) =>
  decide("discard", "no timer or command has this id", flags, discardTimers)
