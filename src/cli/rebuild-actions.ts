// Runs `millrace rebuild`: prints the plan, rebuilds and reports the progress, or pauses, resumes and cancels.
import * as Effect from "effect/Effect"
import { assertDatabaseExists, type Database, openDatabase } from "../system/database.ts"
import { assertRegistered } from "../system/identity.ts"
import { assertKnownProjection } from "../system/known-projection.ts"
import { openLog } from "../system/open-log.ts"
import { awayMs, cancelRebuild, pauseRebuild, type RebuildProgress, resumeRebuild } from "../system/rebuild.ts"
import { planKeys, type ScannedKeys } from "../system/rebuild-keys.ts"
import { planRebuild, type RebuildPlan, type RebuildRequest } from "../system/rebuild-plan.ts"
import { rebuiltJson, replayedPart, runRebuild } from "../system/run-rebuild.ts"
import { openSystem } from "../system/system.ts"
import { migrate } from "../postgres/client/migrate.ts"
import { retrying } from "../postgres/client/retrying.ts"
import { limitBounds, readRebuild, type RebuildLimits } from "../postgres/store/rebuild.ts"
import type { Claim } from "../runner/store.ts"
import { type CommandFailed, usageError, withAdviceIfAway } from "./command-failure.ts"
import { type AnyApplication, loadApplication } from "./config.ts"
import { readKeyFile } from "./key-file.ts"
import { atLowerPriority } from "./priority.ts"
import { openProgress } from "./progress.ts"
import { print, warn } from "./print.ts"
import { limitsText, planText, progressOf, rebuiltText } from "./rebuild-text.ts"
import { drained } from "./shutdown.ts"
import { timeOf } from "../text/moment.ts"
import { countedLarge, grouped } from "../text/counted.ts"

/** The flags and the argument of the command. */
export interface RebuildFlags {
  readonly data: string
  readonly config: string | undefined
  readonly name: string
  readonly plan: boolean
  readonly rate: string | undefined
  readonly maxLiveLag: string | undefined
  readonly from: string | undefined
  readonly until: string | undefined
  /** The file of the keys; `-` is standard input. */
  readonly keys: string | undefined
  readonly pause: boolean
  readonly resume: boolean
  readonly cancel: boolean
  readonly json: boolean
  /** What events see of lookups: what live processing saw, or today's values. */
  readonly lookups: Claim["lookups"]
}

/** A number above 0, or null for the word that means no limit. */
const limitOf = (
  flag: string,
  text: string | undefined,
  none: string
): Effect.Effect<number | null | undefined, CommandFailed> => {
  if (text === undefined) return Effect.undefined
  if (text === none) return Effect.succeed(null)
  const value = text.trim() === "" ? NaN : Number(text)
  const { least, most } = limitBounds
  if (value >= least && value <= most) return Effect.succeed(value)
  return Effect.fail(
    usageError(`${flag} is '${text}'; it must be a number from ${least} to ${most}, or ${none}`, `${flag} ${none}`)
  )
}

/** A time in the past that a flag names, in epoch milliseconds. */
const pastOf = (flag: string, text: string): Effect.Effect<number, CommandFailed> => {
  const now = Date.now()
  const time = timeOf(text, now)
  const also = flag === "--from" ? `${flag} now, ` : ""
  const examples = `${also}${flag} "2 hours", or ${flag} 2026-01-31T12:00Z`
  if (time === undefined) return Effect.fail(usageError(`${flag} '${text}' is neither a duration nor a date`, examples))
  if (time > now)
    return Effect.fail(
      usageError(
        `${flag} '${text}' is in the future, where the log has no records yet`,
        `a time that is over: ${examples}`
      )
    )
  return Effect.succeed(Math.floor(time))
}
/** Where the build begins: `now` as a copy of the live one, or at a time, in epoch milliseconds. */
const fromOf = (text: string | undefined): Effect.Effect<"now" | number | undefined, CommandFailed> =>
  text === undefined || text === "now" ? Effect.succeed(text) : pastOf("--from", text)

/** What the flags ask for. Fails if some exclude each other. */
const checked = Effect.fnUntraced(function* (flags: RebuildFlags) {
  const { cancel, pause, plan, resume } = flags
  const given = ([flag, isGiven]: readonly [string, unknown]) =>
    isGiven === undefined || isGiven === false ? [] : [`--${flag}`]
  // what a cancellation would delete is a plan, too
  const asked = Object.entries({ plan: plan && !cancel, pause, resume, cancel }).flatMap(given)
  if (asked.length > 1) return yield* usageError(`${asked.join(" and ")} exclude each other`, `only ${asked[0]}`)
  const besideKeys = Object.entries({ from: flags.from, until: flags.until, pause, resume, cancel }).flatMap(given)
  if (flags.keys !== undefined && besideKeys.length > 0)
    return yield* usageError(`--keys and ${besideKeys[0]} exclude each other`, `only --keys, or only ${besideKeys[0]}`)
  const from = yield* fromOf(flags.from)
  const untilMs = flags.until === undefined ? undefined : yield* pastOf("--until", flags.until)
  if (from !== undefined && untilMs !== undefined)
    return yield* usageError(
      from === "now"
        ? "--from now and --until exclude each other: a copy of the live build has all that it has"
        : "--from and --until exclude each other: an investigation build has all that the log stored before its time",
      "only --until"
    )
  const rate = yield* limitOf("--rate", flags.rate, "max")
  const lag = yield* limitOf("--max-live-lag", flags.maxLiveLag, "none")
  const limits = { rate, maxLiveLagMs: lag == null ? lag : lag * 1000 }
  if ((pause || cancel) && (rate !== undefined || lag !== undefined))
    return yield* usageError(
      `${pause ? "--pause" : "--cancel"} excludes --rate and --max-live-lag`,
      "give them with --resume, or with the next millrace rebuild"
    )
  const waiting = () =>
    Effect.runSync(warn(`waiting for keys from ${flags.keys === "-" ? "standard input" : flags.keys}`))
  const keys = flags.keys === undefined ? undefined : yield* readKeyFile(flags.keys, waiting)
  return { from, untilMs, keys, rate, limits }
})

/** Rebuilds a projection, or does what the flags ask of its rebuild. */
export const rebuild = Effect.fnUntraced(function* (flags: RebuildFlags) {
  const { cancel, config, data, json, lookups, name, pause, plan, resume } = flags
  const { from, keys, limits, rate, untilMs } = yield* checked(flags)
  const application = yield* loadApplication(config)
  yield* assertDatabaseExists(data)
  const database = yield* openDatabase(data, "join")
  const { sql } = database
  yield* assertRegistered(application, sql)
  yield* assertKnownProjection(sql, name)
  // an older release may have created the database
  if (!plan) yield* migrate(sql)
  if (pause || resume) {
    const build = yield* pause ? pauseRebuild(sql, name, untilMs) : resumeRebuild(sql, name, limits, untilMs)
    const state = pause ? "paused" : "running"
    yield* print(json ? JSON.stringify({ projection: name, build, state }) : pausedText(name, build, pause))
    return 0
  }
  if (cancel) {
    const build = yield* cancelRebuild(sql, name, untilMs, plan)
    const text =
      build === undefined
        ? `no rebuild of ${name} is under way`
        : `build ${build} of ${name} ${plan ? "would be" : "is"} deleted; the live build is as it was`
    const state = plan ? { state: "unchanged", dry_run: true } : { state: "cancelled" }
    yield* print(json ? JSON.stringify({ projection: name, build: build ?? null, ...state }) : text)
    return 0
  }
  const { log } = yield* openLog(Effect.succeed(sql))
  const context = { application, sql, log }
  const onScanned = (done: number, total: number) =>
    warn(`${name}: ${grouped(done)} of ${countedLarge(total, "record")} scanned for the keys`)
  const ofKeys = keys && (yield* planKeys(context, name, rate, keys, onScanned))
  const request: RebuildRequest = {
    lookups,
    ...(keys === undefined ? yield* replayedPart(context, name, from, untilMs) : { keys })
  }
  const planned = ofKeys?.plan ?? (yield* planRebuild(context, name, rate, request))
  yield* plan && json ? print(JSON.stringify(planned)) : (json ? warn : print)(planText(planned))
  if (plan) return 0
  const again = commandOf(planned, flags)
  return yield* drained(
    Effect.mapError(
      run(application, database, planned, { json, limits, request, again, scanned: ofKeys?.scanned }),
      withAdviceIfAway(`run it again; it continues the build where it is, and the live build is as it was: ${again}`)
    )
  )
})

/** The flag that names the build of a plan. */
const scopeFlag = ({ from, until }: Pick<RebuildPlan, "from" | "until">) =>
  until !== null ? ` --until ${until}` : from !== null ? ` --from ${from}` : ""
/** The command that continues the rebuild of a plan. */
const commandOf = (plan: RebuildPlan, { keys, lookups }: Pick<RebuildFlags, "keys" | "lookups">) =>
  `millrace ${lookups === "today" ? "reenrich" : "rebuild"} ${plan.projection}${keys === undefined ? scopeFlag(plan) : ` --keys ${keys}`}`

const pausedText = (name: string, build: number, isPaused: boolean) =>
  isPaused
    ? `the rebuild of ${name} (build ${build}) is paused; let it go on with: millrace rebuild ${name} --resume`
    : `the rebuild of ${name} (build ${build}) goes on in the processes that run it; process it here, too, with: millrace rebuild ${name}`

const run = Effect.fnUntraced(function* (
  application: AnyApplication,
  database: Database,
  planned: RebuildPlan,
  {
    again,
    json,
    limits,
    request,
    scanned
  }: Pick<RebuildFlags, "json"> & {
    readonly limits: RebuildLimits
    readonly request: RebuildRequest
    /** The command that continues it. */
    readonly again: string
    /** The log, as far as it was scanned for the keys. */
    readonly scanned: ScannedKeys | undefined
  }
) {
  const { projection: name, until } = planned
  const system = yield* openSystem(application, database, { relaysHere: false })
  const { sql } = database
  const onRetry = ({ message }: { readonly message: string }) => warn(`${name}: ${message}; retrying`)
  const flag = until === null ? "" : ` --until ${until}`
  let begun = planned.build
  const onBuild = Effect.fnUntraced(function* (build: number, replayed: number) {
    begun = build
    const stored = yield* retrying(readRebuild(sql, { projection: name, version: replayed }), {
      forMs: awayMs,
      onRetry
    })
    const text = stored && limitsText(stored)
    if (text !== undefined) yield* warn(`${name}: ${text}`)
  })
  const replaying = Effect.gen(function* () {
    // a line for each report: it comes every two seconds
    const show = yield* openProgress(name, 0)
    const report = (progress: RebuildProgress) => Effect.sync(() => show(progressOf(progress)))
    return yield* runRebuild(system, name, limits, { request, scanned }, { report, onRetry, onBuild })
  })
  const interrupted = Effect.suspend(() =>
    warn(
      `interrupted: build ${begun} of ${name} stays as far as it is. Continue it with: ${again}; or delete it with: millrace rebuild ${name}${flag} --cancel`
    )
  )
  yield* atLowerPriority
  const rebuilt = yield* Effect.onInterrupt(Effect.scoped(replaying), () => interrupted)
  const result = rebuiltJson(planned, rebuilt)
  yield* print(json ? JSON.stringify(result) : rebuiltText(name, rebuilt, until))
  return 0
})
