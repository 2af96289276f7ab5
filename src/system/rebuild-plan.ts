// What a rebuild of a projection would do: what it replays, how long that takes, what it needs, and what it cannot reproduce. Changes nothing.
import * as Effect from "effect/Effect"
import type { Log } from "../log/log.ts"
import type { Application } from "../model/application.ts"
import { publishedBy } from "../model/application.ts"
import { buildOf } from "../model/build.ts"
import type { Projection } from "../model/projection.ts"
import type { Session, Sql } from "../postgres/client/client.ts"
import { candidateOf, readBuilds, type StoredBuild } from "../postgres/store/builds.ts"
import { type CopiedTable, readCopiedTables } from "../postgres/store/copy-build.ts"
import { relationsOf } from "../postgres/store/ddl.ts"
import { readUnjournalled } from "../postgres/store/lookups.ts"
import {
  readMeasuredRate,
  type RebuildPosition,
  readRebuildPositions,
  readTableBytes
} from "../postgres/store/rebuild.ts"
import type { Claim } from "../runner/store.ts"
import type { BuildEnd } from "../postgres/store/rebuild-until.ts"
import { RebuildRefused } from "./errors.ts"
import { investigationOf, momentText } from "./rebuild-until.ts"

/** What plans and rebuilds work on. */
export interface RebuildContext {
  readonly application: Application.Any
  readonly sql: Sql
  readonly log: Log["Service"]
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
  /** Of an investigation build: it has what the log stored before this time, as ISO 8601. Otherwise null. */
  readonly until: string | null
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

/** The build to continue: the candidate, or the investigation build that ends at `untilMs`, if it is of the declared version. Undefined if a new one is to be created. */
export const buildToContinue = Effect.fnUntraced(function* (
  { name, version }: Pick<Projection.Any, "name" | "version">,
  builds: ReadonlyArray<StoredBuild>,
  lookups: Claim["lookups"] = "asSeen",
  untilMs?: number
): Effect.fn.Return<StoredBuild | undefined, RebuildRefused> {
  if (untilMs !== undefined) {
    const known = investigationOf(builds, untilMs)
    return known?.declared === version ? known : undefined
  }
  const candidate = candidateOf(builds)
  if (candidate === undefined || candidate.declared < version) return undefined
  if (candidate.lookups !== lookups)
    return yield* refuse(
      `build ${candidate.number} of projection ${name}, which is there to be promoted, sees ${candidate.lookups === "today" ? "today's values of lookups" : "what the live build saw of lookups"}`,
      `continue it: millrace ${candidate.lookups === "today" ? "reenrich" : "rebuild"} ${name}; or promote it, or delete it: millrace rebuild ${name} --cancel`
    )
  if (candidate.declared === version) return candidate
  return yield* refuse(
    `build ${candidate.number} of projection ${name}, which is there to be promoted, is of version ${candidate.declared}, and the configuration declares version ${version}`,
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

/** What a replay gives otherwise, by the declaration alone. */
const notReproducedOf = (
  { sources, writes }: Projection.Any,
  { services }: Pick<Application.Any, "services">
): ReadonlyArray<string> => {
  const found: Array<string> = []
  const shared = writes.filter((target) => "shared" in target && target.shared === true)
  if (shared.length > 0)
    found.push(`${shared.map(({ name }) => name).join(", ")}: shared with other projections, so not rebuilt`)
  for (const { compacted, name } of sources as ReadonlyArray<{ readonly name: string; readonly compacted?: boolean }>)
    if (compacted === true) found.push(`${name} is compacted: earlier values of a key are no longer in the log`)
  if (services !== undefined)
    found.push(
      "Effects of handlers run again, and read what their services have today; a handler can leave its side effects out by `replaying`"
    )
  return found
}

/** The lookups whose values at the time are not known for all events, with the number of these events. */
const unjournalledOf = Effect.fnUntraced(function* (
  sql: Sql,
  { enrich, name }: Projection.Any,
  starts: Parameters<typeof readUnjournalled>[3]
) {
  const lookups = [...new Set(Object.values(enrich).map(({ topic }) => topic.name))]
  if (lookups.length === 0) return []
  const found = Map.groupBy(yield* readUnjournalled(sql, name, lookups, starts), ({ lookup }) => lookup)
  return [...found].map(([lookup, some]) => {
    const events = some.reduce((sum, { from, to }) => sum + to - from, 0)
    return `lookups in ${lookup}: ${events} events were processed before lookups were journalled, or without this one, and see today's values`
  })
})

/** What it means that the sources are not those of the live build. */
const changedSources = (
  { sources }: Projection.Any,
  added: ReadonlyArray<string>,
  positions: ReadonlyArray<RebuildPosition>
): ReadonlyArray<string> => {
  const removed = new Set(positions.flatMap(({ live, topic }) => (live === null ? [] : [topic])))
  for (const { name } of sources) removed.delete(name)
  return [
    ...added.map(
      (topic) =>
        `${topic} is a source that the live build does not have: what comes of its events is published from the promotion on`
    ),
    ...[...removed].map(
      (topic) =>
        `${topic} is no source any more: nothing of it is in the new build, and nothing of it is published after the promotion`
    )
  ]
}

/** What a replay sees of lookups otherwise than live processing did, as sentences. `starts`: where the log begins, or what matters of it. */
export const lookupDifferences = (
  sql: Sql,
  projection: Projection.Any,
  starts: Parameters<typeof readUnjournalled>[3],
  lookups: Claim["lookups"]
) =>
  lookups === "today"
    ? Effect.succeed(["all events see today's values of lookups, also those that were appended after them"])
    : unjournalledOf(sql, projection, starts)

const copyDifferences = (tables: ReadonlyArray<CopiedTable>): ReadonlyArray<string> => [
  "rows that are there stay as the code made them that processed their events",
  ...tables.flatMap(({ columns, name }) => (columns.length === 0 ? [`${name}: new, so it begins empty`] : []))
]
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

/** Where a build stops in a partition. */
const stopOf = (end: BuildEnd | undefined, topic: string, partition: number): number =>
  end === undefined
    ? Infinity
    : (end.stops.find((one) => one.topic === topic && one.partition === partition)?.position ?? 0)

/** What a rebuild would do. `isCopy`: nothing is replayed. `rate`: the limit that is asked for. `end`: where an investigation build stops. Fails with `RebuildRefused` if it is not possible. */
export const planRebuild = Effect.fnUntraced(function* (
  { application, log, sql }: RebuildContext,
  name: string,
  rate: number | null | undefined,
  isCopy = false,
  lookups: Claim["lookups"] = "asSeen",
  end?: BuildEnd
) {
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
  const candidate = isCopy ? undefined : yield* buildToContinue(projection, builds, lookups, end?.untilMs)
  const positions = yield* readRebuildPositions(sql, name, candidate?.number)
  const topics: Array<PlannedTopic> = []
  const added: Array<string> = []
  const starts: Array<{ readonly topic: string; readonly partition: number; readonly start: number }> = []
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
      if (candidate === undefined && !isCopy && start > first)
        return yield* refuse(
          `the log has deleted the records of ${topic}/${partition} before ${start}, and the live build began at ${first}; a replay would lose what came of them`,
          "restore the records, or keep the live build"
        )
      const goal = Math.min(isAdded ? last : (at?.live ?? start), stopOf(end, topic, partition))
      if (!isCopy) events += Math.max(0, goal - (at?.follower ?? start))
    }
    topics.push({ topic, partitions: bounds.length, events })
  }
  const events = topics.reduce((sum, one) => sum + one.events, 0)
  const differs = isCopy
    ? copyDifferences(yield* tablesToCopy(sql, projection, live.number))
    : [
        ...notReproducedOf(projection, application),
        ...(end === undefined ? changedSources(projection, added, positions) : []),
        ...(yield* lookupDifferences(sql, projection, starts, lookups))
      ]
  const tables = relationsOf(buildOf(projection, live.number)).map(({ qualifiedName }) => qualifiedName)
  return {
    projection: name,
    build: candidate?.number ?? Math.max(projection.version, ...builds.map((build) => build.number + 1)),
    version: projection.version,
    live: { build: live.number, version: live.declared },
    continues: candidate !== undefined,
    copies: isCopy,
    until: end === undefined ? null : momentText(end.untilMs),
    topics,
    events,
    ...timeOf(events, yield* readMeasuredRate(sql, name), rate),
    disk_bytes: yield* readTableBytes(sql, tables),
    muted: publishedBy(projection).map((topic) => topic.name),
    not_reproduced: differs
  } satisfies RebuildPlan
})
