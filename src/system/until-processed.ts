// Waits until a system has processed what its log has now, down to the last projection of a chain.
import * as Effect from "effect/Effect"
import { longestChain } from "../model/chains.ts"
import type { Projection } from "../model/projection.ts"
import { readChains } from "./chains.ts"
import type { Sql } from "../postgres/client/client.ts"
import { readBuilds } from "../postgres/store/builds.ts"
import { readPauses } from "../postgres/store/pauses.ts"
import { readAnnouncements } from "../postgres/store/status.ts"
import { SystemHalted } from "./errors.ts"
import { type PartitionStatus, type Progress, readProgress } from "./status.ts"
import type { System } from "./system.ts"
import { counted } from "../text/counted.ts"

/** How often the status is read, in milliseconds. */
const pollMs = 15
/** How often it is reported what is waited for, in milliseconds. */
const reportMs = 10_000
/** After so long without any progress it fails, in milliseconds. */
const stalledMs = 300_000

/** Options of the wait. */
export interface WaitOptions {
  /** Called every ten seconds with what is waited for. Default: it is logged. */
  readonly report?: (waitsFor: string) => Effect.Effect<void>
}

const placeOf = ({ name, partition, topic }: Pick<PartitionStatus, "name" | "topic" | "partition">) =>
  `${name} ${topic}/${partition}`

/** Why the system cannot go on; undefined if it can. What an earlier process noted counts once the partition was claimed again. */
const haltOf = (
  { projections, relays }: Progress,
  isNoted: (partition: Progress["projections"][number]) => boolean
): string | undefined => {
  const partition = projections.find((one) => one.halted !== null && isNoted(one))
  if (partition !== undefined) {
    const place = `${partition.topic}/${partition.partition}`
    return `projection ${partition.name} is halted at ${place}: ${partition.halted}`
  }
  const relay = relays.find(({ halted }) => halted !== null)
  return relay && `the relay to ${relay.target} is halted: ${relay.halted}`
}

/** How far a partition may go: a follower no further than the live build, which another process may have to run. */
const boundOf = (one: Progress["projections"][number], { projections }: Progress): number => {
  if (one.mode !== "follower") return Infinity
  const live = projections.find((other) => placeOf(other) === placeOf(one) && other.mode !== "follower")
  return live?.position ?? 0
}

/**
 * Says which halts count: those that this process noted, and those that were not there, under the same claim, when `untilProcessed` first
 * looked. The cause of an earlier one may be gone.
 */
const notedNow = (processId: string) => {
  let earlier: ReadonlyMap<string, number> | undefined
  return (partitions: Progress["projections"]) => {
    earlier ??= new Map(partitions.flatMap((one) => (one.halted === null ? [] : [[placeOf(one), one.epoch] as const])))
    return (one: Progress["projections"][number]) =>
      one.claimed_by === processId || earlier?.get(placeOf(one)) !== one.epoch
  }
}

/** Says which partitions belong to investigation builds, which are for people to look at: nothing waits for them. */
const readInvestigations = (sql: Sql) =>
  Effect.map(
    readBuilds(sql),
    (builds) =>
      ({ name, version }: Pick<PartitionStatus, "name" | "version">) =>
        builds.some((build) => build.name === name && build.number === version && build.untilMs !== null)
  )

/** Fails if what is waited for is paused: it would be waited for until a person resumes it. */
const assertNotPaused = Effect.fnUntraced(function* (sql: Sql, waitsFor: string) {
  const paused = (yield* readPauses(sql)).find(({ projection }) => ` ${waitsFor}`.includes(` ${projection} `))
  if (paused === undefined) return
  const { projection: name } = paused
  return yield* new SystemHalted({
    message: `projection ${name} is paused, while waiting for ${waitsFor}; let it go on with: millrace resume ${name}`
  })
})

/**
 * Waits until the application's projections have processed everything that the log has at the time of the call, the relays have published
 * the results, and projections that read these have processed them in their turn. Builds that follow a live one go as far as that. Fails with `SystemHalted` if a projection or a relay is
 * halted, or if nothing moves for five minutes.
 */
export const untilProcessed = Effect.fnUntraced(function* (system: System, options: WaitOptions = {}) {
  const { application, database, log, presence, targets } = system
  const { report = (waitsFor: string) => Effect.logInfo(`waiting for ${waitsFor}`) } = options
  const projections = application.projections.map(({ projection }) => projection as Projection.Any)
  const versions = new Set(projections.map(({ name, version }) => `${name} ${version}`))
  const isOurs = ({ declared, name }: Pick<PartitionStatus, "name" | "declared">) => versions.has(`${name} ${declared}`)
  const chains = yield* readChains(application, database.sql)
  const announcing = (name: string, topic: string) =>
    [...chains.feeds].flatMap(([target, feeds]) =>
      feeds.some(({ projection, source }) => projection === name && source === topic) ? [target] : []
    )
  // where the topics end that come from outside; what is appended to them meanwhile is not waited for
  const ends = new Map<string, number>()
  for (const name of new Set(projections.flatMap(({ sources }) => sources.map((source) => source.name)))) {
    if (chains.feeds.has(name)) continue
    for (const { end, partition } of yield* log.bounds(name)) ends.set(`${name}/${partition}`, end)
  }

  const isNoted = notedNow(presence.id)
  const look = Effect.gen(function* () {
    const announcements = chains.feeds.size === 0 ? [] : (yield* readAnnouncements(database.sql)).filter(isOurs)
    const status = yield* readProgress({ sql: database.sql, log, targets })
    const isInvestigation = yield* readInvestigations(database.sql)
    const ours = status.projections.filter((one) => isOurs(one) && !isInvestigation(one))
    const message = haltOf({ projections: ours, relays: status.relays }, isNoted(ours))
    if (message !== undefined) return yield* new SystemHalted({ message })
    const behind = ours.flatMap((one) => {
      const end = Math.min(ends.get(`${one.topic}/${one.partition}`) ?? one.end, boundOf(one, status))
      return end > one.position ? [`${placeOf(one)} (${counted(end - one.position, "record")})`] : []
    })
    const silent = announcements.flatMap((one) =>
      announcing(one.name, one.topic)
        .filter((target) => (one.announced?.[target]?.time ?? -Infinity) < one.stream_time)
        .map((target) => `${placeOf(one)}, which announces its stream time in ${target}`)
    )
    const unpublished = status.relays.flatMap(({ lag, target }) =>
      lag > 0 ? [`the relay to ${target} (${counted(lag, "message")})`] : []
    )
    const state = JSON.stringify([
      ours.map(({ position, stream_time }) => [position, stream_time]),
      unpublished,
      silent
    ])
    return { waitsFor: [...behind, ...unpublished, ...silent], state }
  })

  // a look reads positions before the relays: what a relay published in between is seen by the next look, one for each link of a chain
  const looks = 1 + longestChain(chains)
  let quiet = 0
  let state = ""
  let movedAt = performance.now()
  let reportAt = movedAt + reportMs
  while (true) {
    const found = yield* look
    quiet = found.waitsFor.length === 0 ? quiet + 1 : 0
    if (quiet === looks) return
    const now = performance.now()
    const more = found.waitsFor.length - 3
    const waitsFor = found.waitsFor.slice(0, 3).join("; ") + (more > 0 ? `; and ${more} more` : "")
    if (found.state !== state) movedAt = now
    state = found.state
    if (now - movedAt > stalledMs) {
      const message = `nothing moved for ${stalledMs / 60_000} minutes, while waiting for ${waitsFor}`
      return yield* new SystemHalted({ message })
    }
    if (now > reportAt && waitsFor !== "") {
      reportAt = now + reportMs
      yield* assertNotPaused(database.sql, waitsFor)
      yield* report(waitsFor)
    }
    if (quiet === 0) yield* Effect.sleep(pollMs)
  }
})
