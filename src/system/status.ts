// Reads how far a system has come: projections against the ends of the log, relays against the outbox, what runs, and what is wrong.
import * as Effect from "effect/Effect"
import { type PartitionBounds, type Log, OutOfRange, type ReadError } from "../log/log.ts"
import type { Sql, SqlError } from "../postgres/client/client.ts"
import { readRelays, readUnpublished, type RelayRow } from "../postgres/relay/lag.ts"
import { readFailingTimers, readTimers, type TimerStatus } from "../postgres/store/timer-status.ts"
import { type BuildStatus, readBuildRoles, readBuilds } from "../postgres/store/builds.ts"
import { readDefinitionWarnings } from "../postgres/store/definitions.ts"
import { readOpenGates } from "../postgres/store/gate.ts"
import { besideRole, type ProcessRow, readProcesses } from "../postgres/store/processes.ts"
import {
  countDeadLetters,
  type PartitionRow,
  readClock,
  readPartitions,
  readStops,
  stopKey
} from "../postgres/store/status.ts"
import { readSubscriptions, type SubscriptionRow } from "../postgres/subscription/lag.ts"
import { relaySubject } from "../monitor/ongoing-failures.ts"
import { withBuilds } from "./build-findings.ts"
import { withCommands } from "./command-findings.ts"
import { type Delays, readDelays } from "./delays.ts"
import { withTimers } from "./timer-findings.ts"
import { readPauses } from "../postgres/store/pauses.ts"
import { readRebuild } from "../postgres/store/rebuild.ts"
import { readWaits } from "./rebuild-pacing.ts"
import { type Finding, type Findings, findingsOf, isAlive } from "./findings.ts"

/** How far a partition of a projection has come. `halted`: why it is halted, as its runner recorded it or as the log shows; null if it is not. */
export interface PartitionStatus extends PartitionRow {
  readonly end: number
  readonly lag: number
  /** How long ago the oldest record that is not processed was appended, in milliseconds; null if there is none. */
  readonly oldest_ms: number | null
}
/** A process, as `status` prints it. Durations are in milliseconds of the database's clock. */
export interface ProcessStatus {
  readonly id: string
  readonly host: string
  readonly pid: number
  readonly roles: ReadonlyArray<string>
  readonly projections: ReadonlyArray<string>
  readonly relays: ReadonlyArray<string>
  readonly started_ms: number
  readonly seen_ms: number
  /** Whether it was seen within the last 20 seconds. */
  readonly running: boolean
  /** What it tries again: what failed, why, and for how long. */
  readonly failing: ReadonlyArray<{ readonly what: string; readonly reason: string; readonly since_ms: number }>
}
/** How far a system has come, as `millrace status --json` prints it. */
export interface Status {
  /** Whether nothing is wrong. */
  readonly healthy: boolean
  /** What makes the system unhealthy. */
  readonly problems: ReadonlyArray<Finding>
  /** What a person should know although the system is healthy. */
  readonly notices: ReadonlyArray<Finding>
  /** A record or a message that waits for longer makes the system unhealthy. */
  readonly max_age_ms: number
  /** Each partition of each build: its position, how much waits, and why it is halted if it is. */
  readonly projections: ReadonlyArray<PartitionStatus>
  /** The builds of the projections that are not retired. */
  readonly builds: ReadonlyArray<BuildStatus>
  /** The projections whose live builds a person has paused, and for how long. */
  readonly paused: ReadonlyArray<{ readonly projection: string; readonly paused_ms: number }>
  /** Each stream of each relay: how much waits, and why it is halted if it is. */
  readonly relays: ReadonlyArray<RelayRow>
  /** How long the newest record of each projection waited for its rows, and the newest message of each relay for its target. */
  readonly delays: Delays
  /** Open dead letters of live builds. */
  readonly dead_letters: number
  /** Those of builds that follow a live one, which has dead letters of its own for the same events. */
  readonly follower_dead_letters: number
  /** Messages that relays parked because their target refuses them. */
  readonly parked_messages: number
  /** Timers and commands of policies that wait. */
  readonly timers: TimerStatus
  /** The durable subscriptions on PostgreSQL, with what waits for them. */
  readonly subscriptions: ReadonlyArray<SubscriptionRow>
  /** Processes that run, and those that died within the last hour. */
  readonly processes: ReadonlyArray<ProcessStatus>
}
/** What the status is read from. */
export interface StatusSources {
  readonly sql: Sql
  readonly log: Log["Service"]
  /** The names of the relays' targets. */
  readonly targets: ReadonlyArray<string>
  /** A record or a message that waits for longer makes the system unhealthy, in milliseconds. Default 60,000. */
  readonly maxAgeMs?: number
  /** The state directory if the database is the embedded one. Advice names it. */
  readonly embeddedDir?: string | undefined
}

/** How long a record or a message may wait, in milliseconds, unless an option says otherwise. */
export const defaultMaxAgeMs = 60_000
/** How many requests to the log run at once. */
const concurrency = 16
/** How many queries of what does not depend on one another run at once: one after the other they take longest where the process is busy. */
const queriesAtOnce = 3

/** The bounds of a topic, or the reason why it has none. */
const boundsOf = (log: Log["Service"], topic: string) =>
  Effect.catchTag(log.bounds(topic), "UnknownTopic", (error) => Effect.succeed(error.message))

/** When the log stored the oldest record that a partition has not processed; undefined if there is none, or it was deleted meanwhile. */
const oldestOf = (
  log: Log["Service"],
  { halted, lag, partition, position, topic }: Omit<PartitionStatus, "oldest_ms">
) =>
  lag === 0 || halted !== null
    ? Effect.undefined
    : log.read(topic, partition, position, { maxBytes: 1 }).pipe(
        Effect.map(({ records }) => records[0]?.appendedAt),
        // retention may have deleted it, or the topic, since the bounds were read: the next status says so
        Effect.catchTag(["OutOfRange", "UnknownTopic"], () => Effect.undefined)
      )

const partitionStatusOf = (
  row: PartitionRow,
  bounds: ReadonlyArray<PartitionBounds> | string,
  /** Where its build stops, which is then the end. */
  stop: number | undefined
): Omit<PartitionStatus, "oldest_ms"> => {
  const { halted, partition, position, topic } = row
  // no process goes on with it, so nothing is to be done about what a process noted before it saw that
  if (stop !== undefined && position >= stop)
    return { ...row, end: position, lag: 0, halted: null, waiting: null, waiting_ms: null }
  const haltedBecause = (reason: string) => ({ ...row, end: position, lag: 0, halted: halted ?? reason })
  if (typeof bounds === "string") return haltedBecause(bounds)
  const found = bounds.find((other) => other.partition === partition)
  if (found === undefined) return haltedBecause(`the log no longer has partition ${partition} of ${topic}`)
  const { end, start } = found
  const reason =
    position < start || position > end ? new OutOfRange({ topic, partition, position, start, end }).message : null
  const last = Math.min(end, stop ?? end)
  return { ...row, end: last, lag: Math.max(0, last - position), halted: halted ?? reason }
}

/**
 * The processes that run, and of those that died the ones that are missed: the last of those that had a role, a relay or a build that no process has
 * now, and those whose partitions no process has claimed since. `processes`: the one that was seen last first.
 */
export const missedOrRunning = (
  processes: ReadonlyArray<ProcessRow>,
  partitions: ReadonlyArray<Pick<PartitionRow, "name" | "version" | "claimed_by">>
): ReadonlyArray<ProcessRow> => {
  const builds = new Set(partitions.map(({ name, version }) => `${name}_v${version}`))
  const claimers = new Set(partitions.map(({ claimed_by }) => claimed_by))
  const done = new Set<string>()
  return processes.filter((one) => {
    const duties = [
      // a program beside the system that ended is not missed
      ...one.roles.filter((role) => role !== besideRole).map((role) => `role ${role}`),
      ...one.targets.map((target) => `relay ${target}`),
      ...one.projections.filter((build) => builds.has(build)).map((build) => `build ${build}`)
    ]
    const isMissed = duties.some((duty) => !done.has(duty))
    for (const duty of duties) done.add(duty)
    return isAlive(one) || isMissed || claimers.has(one.id)
  })
}

const processStatusOf = (row: ProcessRow): ProcessStatus => {
  const { failing, seenMs, startedMs, targets, ...same } = row
  return {
    ...same,
    relays: targets,
    started_ms: Math.round(startedMs),
    seen_ms: Math.round(seenMs),
    running: isAlive(row),
    failing: failing.map(({ reason, sinceMs, what }) => ({ what, reason, since_ms: Math.round(sinceMs) }))
  }
}

/** A partition with the age of the record that the log stored at `appendedAt`. */
const withAge = (one: Omit<PartitionStatus, "oldest_ms">, appendedAt: number | undefined, now: number) => ({
  ...one,
  oldest_ms: appendedAt === undefined ? null : Math.max(0, Math.round(now - appendedAt))
})

/** Reads the projections' partitions against the ends of the log. */
const readPositions = Effect.fnUntraced(function* (sql: Sql, log: Log["Service"]) {
  const rows = yield* readPartitions(sql)
  const topics = [...new Set(rows.map(({ topic }) => topic))]
  const bounds = new Map(
    yield* Effect.forEach(topics, (topic) => Effect.map(boundsOf(log, topic), (found) => [topic, found] as const), {
      concurrency
    })
  )
  const stops = yield* readStops(sql)
  return rows.map((row) => partitionStatusOf(row, bounds.get(row.topic)!, stops.get(stopKey(row))))
})
/** Reads the same with the ages of what waits, which are the difference of the database's clock and the log's times. */
const readProjections = Effect.fnUntraced(function* (
  sql: Sql,
  log: Log["Service"]
): Effect.fn.Return<ReadonlyArray<PartitionStatus>, SqlError | ReadError> {
  const partitions = yield* readPositions(sql, log)
  const stops = yield* readStops(sql)
  // the records that an investigation build has to process are as old as its question, which makes nothing late
  const oldest = yield* Effect.forEach(
    partitions,
    (one) => (stops.has(stopKey(one)) ? Effect.undefined : oldestOf(log, one)),
    { concurrency }
  )
  const now = yield* readClock(sql)
  return partitions.map((one, i) => withAge(one, oldest[i], now))
})

/** How far projections and relays have come, without ages and reasons: cheap enough to be read many times a second. */
export interface Progress {
  readonly projections: ReadonlyArray<Omit<PartitionStatus, "oldest_ms">>
  readonly relays: ReadonlyArray<RelayRow>
}
/** Reads the progress, in the order in which `readStatus` reads. */
export const readProgress = Effect.fnUntraced(function* ({
  log,
  sql,
  targets
}: StatusSources): Effect.fn.Return<Progress, SqlError | ReadError> {
  const projections = yield* readPositions(sql, log)
  return { projections, relays: yield* readRelays(sql, targets) }
})

/**
 * A relay without the halts of streams that are recorded, if every process that runs it now fails to do so: then the recorded ones are those of
 * an earlier run, and the failure is the newer reason.
 */
export const withoutOldHalts = (relay: RelayRow, processes: ReadonlyArray<ProcessRow>): RelayRow => {
  const running = processes.filter((one) => isAlive(one) && one.targets.includes(relay.target))
  const fails = ({ failing }: ProcessRow) => failing.some(({ what }) => what === relaySubject(relay.target))
  return running.length > 0 && running.every(fails) ? { ...relay, halted: null, halted_streams: 0 } : relay
}

/** What holds rebuilds back that a person limited or paused, by the build. */
const readHeld = Effect.fnUntraced(function* (sql: Sql, log: Log["Service"], builds: ReadonlyArray<BuildStatus>) {
  const followers = builds.filter(({ role }) => role !== "live")
  const held = new Map<string, string>()
  for (const { build, name } of followers) {
    const rebuild = yield* readRebuild(sql, { projection: name, version: build })
    const waits = rebuild && (yield* readWaits({ sql, log }, rebuild))
    const text = rebuild?.state === "paused" ? "is paused" : waits && `waits: ${waits}`
    if (text !== undefined) held.set(`${name}_v${build}`, text)
  }
  return held
})

/** Reads what does not depend on anything else. */
const readRest = (sql: Sql, log: Log["Service"], targets: StatusSources["targets"]) =>
  Effect.all(
    {
      letters: countDeadLetters(sql),
      processes: readProcesses(sql),
      subscriptions: readSubscriptions(sql),
      unpublished: readUnpublished(sql, targets),
      roles: readBuildRoles(sql),
      gates: readOpenGates(sql),
      pauses: readPauses(sql),
      timers: readTimers(sql),
      delays: readDelays(sql, log),
      listed: readBuilds(sql),
      warnings: readDefinitionWarnings(sql)
    },
    { concurrency: queriesAtOnce }
  )

/**
 * Reads the status. Positions are read before the ends of the log and before the relays, so a lag of 0 means that nothing was behind. No clock of
 * this process counts. Fails if the database or the log does not answer.
 */
export const readStatus = Effect.fnUntraced(function* ({
  embeddedDir,
  log,
  maxAgeMs = defaultMaxAgeMs,
  sql,
  targets
}: StatusSources): Effect.fn.Return<Status, SqlError | ReadError> {
  const stored = yield* readProjections(sql, log)
  const recorded = yield* readRelays(sql, targets)
  const rest = yield* readRest(sql, log, targets)
  const { delays, gates, letters, listed, pauses, processes, roles, subscriptions, timers, unpublished, warnings } =
    rest
  const { events, followed, messages } = letters
  // the process that started last may have another version than one that still runs this one
  const isRun = (name: string) => processes.some((one) => isAlive(one) && one.projections.includes(name))
  const projections = stored.map((one): PartitionStatus =>
    one.removed && isRun(`${one.name}_v${one.version}`) ? Object.assign({}, one, { removed: false }) : one
  )
  const relays = recorded.map((relay) => withoutOldHalts(relay, processes))
  const held = yield* readHeld(sql, log, roles)
  const judged: Findings = findingsOf({
    held,
    paused: new Map(pauses.map(({ pausedMs, projection }) => [projection, pausedMs])),
    maxAgeMs,
    partitions: projections,
    relays,
    configured: targets,
    processes,
    subscriptions,
    unpublished,
    gates,
    embeddedDir
  })
  const found = withBuilds(judged, {
    builds: listed,
    partitions: projections,
    processes,
    warnings,
    embeddedDir
  })
  const failing = timers.failing === 0 ? [] : yield* readFailingTimers(sql)
  const timed = withTimers(found, { timers, failing, maxAgeMs, embeddedDir })
  const { notices, problems } = withCommands(timed, processes)
  return {
    healthy: problems.length === 0,
    problems,
    notices,
    max_age_ms: maxAgeMs,
    projections,
    builds: roles,
    paused: pauses.map(({ pausedMs, projection }) => ({ projection, paused_ms: Math.round(pausedMs) })),
    relays,
    delays,
    dead_letters: events,
    follower_dead_letters: followed,
    parked_messages: messages,
    timers,
    subscriptions,
    processes: missedOrRunning(processes, projections).map(processStatusOf)
  }
})
