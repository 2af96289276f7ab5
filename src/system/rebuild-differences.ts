// What a build has otherwise than live processing had it, and why, as sentences for people.
import * as Effect from "effect/Effect"
import type { Log } from "../log/log.ts"
import type { Application } from "../model/application.ts"
import { declaredVersion } from "../model/build.ts"
import type { Projection } from "../model/projection.ts"
import type { Topic } from "../model/topic.ts"
import type { Sql } from "../postgres/client/client.ts"
import type { StoredBuild } from "../postgres/store/builds.ts"
import type { CopiedTable } from "../postgres/store/copy-build.ts"
import { readUnjournalled } from "../postgres/store/lookups.ts"
import type { RebuildPosition } from "../postgres/store/rebuild.ts"
import type { Claim } from "../runner/store.ts"
import { momentText } from "./rebuild-until.ts"
import { counted, countedLarge } from "../text/counted.ts"

/** What a replay gives otherwise, by the declaration alone. */
export const notReproducedOf = (
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
    return `lookups in ${lookup}: ${counted(events, "event")} ${events === 1 ? "was" : "were"} processed before lookups were journalled, or without this one, and ${events === 1 ? "sees" : "see"} today's values`
  })
})

/** What it means that the sources are not those of the live build. */
export const changedSources = (
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

/** What a copy of the live build has otherwise. */
export const copyDifferences = (tables: ReadonlyArray<CopiedTable>): ReadonlyArray<string> => [
  "rows that are there stay as the code made them that processed their events",
  ...tables.flatMap(({ columns, name }) => (columns.length === 0 ? [`${name}: new, so it begins empty`] : []))
]

/** What a build does not have that begins with what the log stored at a time or later. `leftOut`: how many records before that time the log has. */
export const beginDifferences = (
  { dedupe, writes }: Projection.Any,
  fromMs: number,
  leftOut: number
): ReadonlyArray<string> => {
  const from = momentText(fromMs)
  if (leftOut === 0)
    return [`the log has no records from before ${from}, so it begins with the first record that the log has`]
  const canBeLate = writes.some((target) => target.kind === "window" && target.shape.type !== "global")
  return [
    `${countedLarge(leftOut, "record")} from before ${from} ${leftOut === 1 ? "is" : "are"} left out. Its tables begin empty: rows that only events from before ${from} made are not in them, and counts, sums and all that earlier events add to a row begin there`,
    ...(canBeLate ? [`events count as late only by events from ${from} on`] : []),
    ...(dedupe === undefined ? [] : [`duplicates of events from before ${from} count as new events`])
  ]
}

/** What a build that follows has otherwise than live processing had it, as its plan said. Empty if the configuration does not have its version. */
export const followerDifferences = Effect.fnUntraced(function* (
  { application, log, sql }: { readonly application: Application.Any; readonly log: Log["Service"]; readonly sql: Sql },
  { copyOf, declared: version, fromMs, lookups, name, repair }: StoredBuild
) {
  const projection = declaredVersion(application, name, version)
  if (projection === undefined) return []
  if (copyOf !== null && repair === null) return copyDifferences([])
  const starts = yield* Effect.forEach(projection.sources as ReadonlyArray<Topic.Any>, ({ name: topic }) =>
    Effect.map(log.bounds(topic), (bounds) => bounds.map(({ partition, start }) => ({ topic, partition, start })))
  )
  return [
    ...(repair === null
      ? []
      : [`only rows of some keys are of a replay; all others are those of build ${repair.base}`]),
    ...(fromMs === null
      ? []
      : [
          `it has only what the log stored from ${momentText(fromMs)} on: rows that only earlier events made are not in it, and counts and sums begin there`
        ]),
    ...notReproducedOf(projection, application),
    ...(yield* lookupDifferences(sql, projection, starts.flat(), lookups))
  ]
})
