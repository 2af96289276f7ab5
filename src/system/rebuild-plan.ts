// What a rebuild of a projection would do: what it replays, how long that takes, what it needs, and what it cannot reproduce. Changes nothing.
import * as Effect from "effect/Effect"
import type { Log } from "../log/log.ts"
import type { Application } from "../model/application.ts"
import { publishedBy } from "../model/application.ts"
import { buildOf } from "../model/build.ts"
import type { Projection } from "../model/projection.ts"
import type { Session, Sql } from "../postgres/client/client.ts"
import { candidateOf, readBuilds, type StoredBuild } from "../postgres/store/builds.ts"
import { readCopiedTables, readTypeNames } from "../postgres/store/copy-build.ts"
import { relationsOf } from "../postgres/store/ddl.ts"
import { readMeasuredRate, readRebuildPositions, readTableBytes } from "../postgres/store/rebuild.ts"
import { planViews, type ViewRefusal } from "../postgres/store/view-plan.ts"
import { readViewFacts } from "../postgres/store/views.ts"
import type { Claim } from "../runner/store.ts"
import type { BuildBegin } from "../postgres/store/build-scope.ts"
import type { BuildEnd } from "../postgres/store/rebuild-until.ts"
import { RebuildRefused } from "./errors.ts"
import {
  beginDifferences,
  changedSources,
  copyDifferences,
  lookupDifferences,
  notReproducedOf
} from "./rebuild-differences.ts"
import { investigationOf, momentText } from "./rebuild-until.ts"

/** What plans and rebuilds work on. */
export interface RebuildContext {
  readonly application: Application.Any
  readonly sql: Sql
  readonly log: Log["Service"]
}
/** Which build a rebuild makes. Default: one that replays the whole log, and sees of lookups what live processing saw. */
export interface RebuildRequest {
  /** Whether it begins as a copy of the live build, and replaces the candidate. */
  readonly isCopy?: boolean
  /** What its events see of lookups. */
  readonly lookups?: Claim["lookups"]
  /** Where it begins, if it has only what the log stored from a time on. */
  readonly begin?: BuildBegin | undefined
  /** Where it stops, if it is an investigation build. */
  readonly end?: BuildEnd | undefined
  /** The keys of events, if it is a copy of the live build in which a replay replaces their rows. */
  readonly keys?: KeySelection | undefined
}
/** Keys of events. */
export interface KeySelection {
  readonly keys: ReadonlyArray<string>
  /** SHA-256 of the sorted keys, in hex: it recognizes the rebuild that is continued. */
  readonly hash: string
}
/** What is replayed of a topic. */
export interface PlannedTopic {
  readonly topic: string
  readonly partitions: number
  /** Records from where the build is, or else from the start of the log, up to where the live build is. */
  readonly events: number
}
/** A plan, as `millrace rebuild --plan --json` prints it. */
export interface RebuildPlan {
  readonly projection: string
  /** The number of the build that is created, or continued. */
  readonly build: number
  /** The version that the code declares. */
  readonly version: number
  readonly live: { readonly build: number; readonly version: number }
  /** Whether the build is there, so that its rebuild is continued. */
  readonly continues: boolean
  /** Whether it begins as a copy of the live build, and nothing is replayed. */
  readonly copies: boolean
  /** Of a build that begins later than the log: it has only what the log stored at this time or later, as ISO 8601. Otherwise null. */
  readonly from: string | null
  /** Of an investigation build: it has what the log stored before this time, as ISO 8601. Otherwise null. */
  readonly until: string | null
  /** Of a rebuild of some keys: how many were given, how many events have, and the others, which are left as they are; and the events that have them. Otherwise null. */
  readonly keys: {
    readonly given: number
    readonly found: number
    readonly unknown: number
    readonly events: number
  } | null
  readonly topics: ReadonlyArray<PlannedTopic>
  readonly events: number
  readonly events_per_second: number
  /** Whether the rate is that of the projection's last rebuild, the one that is asked for, or a guess. */
  readonly rate_from: "measured" | "asked" | "assumed"
  readonly seconds: number
  /** The same at the best rate that is assumed; equal to `seconds` unless the rate is assumed. */
  readonly seconds_at_best: number
  /** What the tables and indexes of the live build take now; the new build's will be about as large. */
  readonly disk_bytes: number
  /** The topics in which nothing is published before the build is promoted. */
  readonly muted: ReadonlyArray<string>
  /** What the build will have otherwise than live processing had it, and why. */
  readonly not_reproduced: ReadonlyArray<string>
  /** The views that `millrace promote` could not change as things are, why, and what depends on them. Empty for an investigation build. */
  readonly refused_views: ReadonlyArray<ViewRefusal>
}

/** Rates between which a rebuild that was never measured is assumed to be, in events a second: handlers, rows and machines differ by as much. */
const assumedRates = { least: 2_500, most: 25_000 }

const refuse = (message: string, advice: string) => new RebuildRefused({ message, try: advice })

/** The projection of the configuration with this name; of several versions the newest. */
export const declaredProjection = ({ projections }: Pick<Application.Any, "projections">, name: string) => {
  const found = projections
    .map(({ projection }) => projection as Projection.Any)
    .filter((one) => one.name === name)
    .toSorted((a, b) => a.version - b.version)
    .at(-1)
  return found === undefined
    ? Effect.fail(
        refuse(
          `the configuration has no projection called '${name}'`,
          `one of ${projections.map(({ projection }) => projection.name).join(", ")}`
        )
      )
    : Effect.succeed(found)
}

/** What a candidate replays, for people, and the command that continues it. */
const replayOf = ({ fromMs, lookups, name, repair }: StoredBuild) => {
  const command = `millrace ${lookups === "today" ? "reenrich" : "rebuild"} ${name}`
  if (repair !== null)
    return {
      what: `has the rows of some keys from a replay, and all others from build ${repair.base}`,
      command: `${command} --keys FILE, with the same keys`
    }
  if (fromMs === null) return { what: "has the whole log", command }
  const from = momentText(fromMs)
  return { what: `has only what the log stored from ${from} on`, command: `${command} --from ${from}` }
}
/** The copy of the live build that waits for the rows of keys, if one was begun; undefined if there is none. */
const unfinishedRepair = (builds: ReadonlyArray<StoredBuild>) =>
  builds.find(({ repair, retired }) => repair !== null && repair.scratch !== null && !retired)

/** The build to continue: the candidate, or the investigation build that ends at the same time, if it is of the declared version. Undefined if a new one is to be created. */
export const buildToContinue = Effect.fnUntraced(function* (
  { name, version }: Pick<Projection.Any, "name" | "version">,
  builds: ReadonlyArray<StoredBuild>,
  { begin, end, isCopy = false, keys, lookups = "asSeen" }: RebuildRequest
): Effect.fn.Return<StoredBuild | undefined, RebuildRefused> {
  if (isCopy) return undefined
  const repair = keys && unfinishedRepair(builds)
  if (repair !== undefined) {
    const isSame = repair.repair?.keysHash === keys?.hash && repair.declared === version
    if (isSame && builds.some(({ live, number }) => live && number === repair.repair?.base)) return repair
    return yield* refuse(
      `build ${repair.number} of projection ${name}, a rebuild of some keys that is not finished, is of ${isSame ? "another live build" : "other keys or another version"}`,
      `finish it with the same keys, or delete it: millrace rebuild ${name} --cancel`
    )
  }
  if (end !== undefined) {
    const known = investigationOf(builds, end.untilMs)
    return known?.declared === version ? known : undefined
  }
  const candidate = candidateOf(builds)
  if (candidate === undefined || candidate.declared < version) return undefined
  const what = `build ${candidate.number} of projection ${name}, which is there to be promoted,`
  const known = replayOf(candidate)
  const advice = `continue it: ${known.command}; or promote it, or delete it: millrace rebuild ${name} --cancel`
  if (candidate.lookups !== lookups)
    return yield* refuse(
      `${what} sees ${candidate.lookups === "today" ? "today's values of lookups" : "what the live build saw of lookups"}`,
      advice
    )
  const hasSameKeys = (candidate.repair?.keysHash ?? null) === (keys?.hash ?? null)
  if (candidate.fromMs !== (begin?.fromMs ?? null) || !hasSameKeys)
    return yield* refuse(`${what} ${known.what}`, advice)
  if (candidate.declared === version) return candidate
  return yield* refuse(
    `${what} is of version ${candidate.declared}, and the configuration declares version ${version}`,
    `rebuild with the configuration that declares version ${candidate.declared}, or cancel it: millrace rebuild ${name} --cancel`
  )
})

/** Why a projection cannot be enriched again; undefined if it can. */
const lookupRefusal = ({ enrich, name }: Projection.Any, lookups: Claim["lookups"]): RebuildRefused | undefined =>
  lookups === "asSeen" || Object.keys(enrich).length > 0
    ? undefined
    : refuse(
        `projection ${name} has no lookups, so today's values change nothing`,
        `replay its log as it is: millrace rebuild ${name}`
      )

/** Why the read models of a projection cannot be rebuilt; undefined if they can. */
const definitionRefusal = ({ name, writes }: Projection.Any): RebuildRefused | undefined => {
  const models = writes.filter((target: { kind: string }) => target.kind !== "topic")
  const shared = models.filter((target) => "shared" in target && target.shared === true)
  if (models.length === 0)
    return refuse(
      `projection ${name} has no read models; a rebuild publishes nothing, so there is nothing to rebuild`,
      "give it a new name if it is to publish from the start of the log again"
    )
  if (shared.length < models.length) return undefined
  return refuse(
    `all read models of projection ${name} are shared with other projections (${shared.map((one) => one.name).join(", ")}), and a rebuild does not write shared ones`,
    "give the read models new names, or each projection its own"
  )
}

/** The tables of a copy of the live build, by the declared projection. Fails with `RebuildRefused` if it cannot be made. */
export const tablesToCopy = Effect.fnUntraced(function* (sql: Sql | Session, projection: Projection.Any, live: number) {
  const tables = yield* readCopiedTables(sql, projection, live)
  const topics = new Set((yield* readRebuildPositions(sql, projection.name, undefined)).map(({ topic }) => topic))
  const problem = tables.find((table) => table.problem !== undefined)?.problem
  const added = projection.sources.find(({ name }) => !topics.has(name))
  const reason = problem ?? (added && `${added.name} is a new source, of which no rows are known`)
  if (reason === undefined) return tables
  return yield* refuse(
    `the rows of build ${live} of projection ${projection.name} cannot be copied: ${reason}`,
    `replay the log instead: millrace rebuild ${projection.name}`
  )
})

/** How long so many events take, at the rate that was measured, is asked for or is assumed. */
const timeOf = (events: number, measured: number | undefined, asked: number | null | undefined) => {
  const reachable = measured ?? assumedRates.least
  const isLimited = typeof asked === "number" && asked < reachable
  const perSecond = isLimited ? asked : reachable
  const atBest = isLimited || measured !== undefined ? perSecond : Math.min(asked ?? Infinity, assumedRates.most)
  const from = isLimited ? "asked" : measured === undefined ? "assumed" : "measured"
  return {
    events_per_second: Math.round(perSecond),
    rate_from: from,
    seconds: Math.ceil(events / perSecond),
    seconds_at_best: Math.ceil(events / atBest)
  } satisfies Partial<RebuildPlan>
}

/** A position of a list of them, if it has the partition. */
const positionIn = (list: BuildEnd["stops"] | undefined, topic: string, partition: number) =>
  list?.find((one) => one.topic === topic && one.partition === partition)?.position
/** Where a build stops in a partition. */
const stopOf = (end: BuildEnd | undefined, topic: string, partition: number): number =>
  end === undefined ? Infinity : (positionIn(end.stops, topic, partition) ?? 0)

/** What is replayed of the log, and what it means for the result. */
const plannedReplay = Effect.fnUntraced(function* (
  { application, log, sql }: RebuildContext,
  projection: Projection.Any,
  candidate: StoredBuild | undefined,
  { begin, end, lookups = "asSeen" }: RebuildRequest
) {
  const replayed = candidate?.repair?.scratch ?? candidate?.number
  const positions = yield* readRebuildPositions(sql, projection.name, replayed)
  const topics: Array<PlannedTopic> = []
  const added: Array<string> = []
  const starts: Array<{ readonly topic: string; readonly partition: number; readonly start: number }> = []
  let leftOut = 0
  for (const { name: topic } of projection.sources) {
    let events = 0
    const bounds = yield* log.bounds(topic)
    const isAdded = !positions.some((one) => one.topic === topic && one.live !== null)
    if (isAdded) added.push(topic)
    for (const { end: last, partition, start } of bounds) {
      starts.push({ topic, partition, start })
      const at = positions.find((one) => one.topic === topic && one.partition === partition)
      // a partition that the live build has not begun is begun by both
      const first = at?.first ?? start
      if (candidate === undefined && begin === undefined && start > first)
        return yield* refuse(
          `the log has deleted the records of ${topic}/${partition} before ${start}, and the live build began at ${first}; a replay would lose what came of them`,
          `restore the records, or keep the live build; --from T begins with what the log stored at T or later`
        )
      const goal = Math.min(isAdded ? last : (at?.live ?? start), stopOf(end, topic, partition))
      const begins = Math.max(
        start,
        Math.min(positionIn(begin?.starts, topic, partition) ?? start, at?.live ?? Infinity)
      )
      leftOut += begins - start
      events += Math.max(0, goal - (at?.follower ?? begins))
    }
    topics.push({ topic, partitions: bounds.length, events })
  }
  return {
    topics,
    differs: [
      ...(begin === undefined ? [] : beginDifferences(projection, begin.fromMs, leftOut)),
      ...notReproducedOf(projection, application),
      ...(end === undefined ? changedSources(projection, added, positions) : []),
      ...(yield* lookupDifferences(sql, projection, starts, lookups))
    ]
  }
})
/** What is copied of the live build, and what it means for the result. */
const plannedCopy = Effect.fnUntraced(function* (
  { log, sql }: RebuildContext,
  projection: Projection.Any,
  live: number
) {
  const topics: Array<PlannedTopic> = []
  for (const { name: topic } of projection.sources)
    topics.push({ topic, partitions: (yield* log.bounds(topic)).length, events: 0 })
  return { topics, differs: copyDifferences(yield* tablesToCopy(sql, projection, live)) }
})

/** The views that could not show a build of the declared projection, as things are. */
const readRefusedViews = Effect.fnUntraced(function* (
  sql: Sql,
  projection: Projection.Any,
  live: number,
  build: number
) {
  const relations = relationsOf(projection).filter(({ shared }) => !shared)
  const types = yield* readTypeNames(sql, [
    ...new Set(relations.flatMap(({ columns }) => columns.map(({ type }) => type)))
  ])
  const facts = yield* readViewFacts(sql, projection.name)
  const tables = relations.map(({ columns, name }) => ({
    build,
    name,
    columns: columns.map((column) => ({ name: column.name, type: types.get(column.type)! }))
  }))
  const others = facts.tables.filter((table) => table.build !== build)
  return planViews({ ...facts, tables: [...others, ...tables] }, { build, other: live }).refusals
})

/** What a rebuild would do. `rate`: the limit that is asked for. Fails with `RebuildRefused` if it is not possible. */
export const planRebuild = Effect.fnUntraced(function* (
  context: RebuildContext,
  name: string,
  rate: number | null | undefined,
  request: RebuildRequest = {}
) {
  const { application, sql } = context
  const { begin, end, isCopy = false, keys, lookups = "asSeen" } = request
  const projection = yield* declaredProjection(application, name)
  const refused = definitionRefusal(projection) ?? lookupRefusal(projection, lookups)
  if (refused !== undefined) return yield* refused
  const builds = yield* readBuilds(sql, name)
  const live = builds.find((build) => build.live)
  if (live === undefined)
    return yield* refuse(
      `projection ${name} has no live build, so there is nothing to rebuild`,
      "start the application: its first build is live at once"
    )
  const candidate = yield* buildToContinue(projection, builds, request)
  if (keys !== undefined && candidate === undefined) yield* tablesToCopy(sql, projection, live.number)
  const { differs, topics } = isCopy
    ? yield* plannedCopy(context, projection, live.number)
    : yield* plannedReplay(context, projection, candidate, request)
  const build = candidate?.number ?? Math.max(projection.version, ...builds.map((one) => one.number + 1))
  const events = topics.reduce((sum, one) => sum + one.events, 0)
  const tables = relationsOf(buildOf(projection, live.number)).map(({ qualifiedName }) => qualifiedName)
  return {
    projection: name,
    build,
    version: projection.version,
    live: { build: live.number, version: live.declared },
    continues: candidate !== undefined,
    copies: isCopy,
    from: begin === undefined ? null : momentText(begin.fromMs),
    until: end === undefined ? null : momentText(end.untilMs),
    keys: null,
    topics,
    events,
    ...timeOf(events, yield* readMeasuredRate(sql, name), rate),
    // of keys: the copy, and until it is done the replay
    disk_bytes: (keys === undefined ? 1 : 2) * (yield* readTableBytes(sql, tables)),
    muted: publishedBy(projection).map((topic) => topic.name),
    not_reproduced: differs,
    refused_views: end === undefined ? yield* readRefusedViews(sql, projection, live.number, build) : []
  } satisfies RebuildPlan
})
