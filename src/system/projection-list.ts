// Lists the projections of a database with their builds and rebuilds, for a screen.
import * as Effect from "effect/Effect"
import type { Sql, SqlError } from "../postgres/client/client.ts"
import { type BuildStatus, readBuildRoles, readBuilds, type StoredBuild } from "../postgres/store/builds.ts"
import { readRebuild, readRebuildPositions, type RebuildPosition } from "../postgres/store/rebuild.ts"

/** A partition of a build: the position of the build, and that of the live one. Null: it does not have the partition. */
export interface BuildPosition {
  readonly topic: string
  readonly partition: number
  readonly position: number | null
  readonly live: number | null
  /** Where an investigation build stops; null for others. */
  readonly stop: number | null
  readonly halted: string | null
}
/** A build of a projection that is not retired. */
export interface ListedBuild extends Pick<BuildStatus, "build" | "version" | "role" | "from" | "until"> {
  /** The schema of its tables. */
  readonly schema: string
  /** Whether appends write its rows. */
  readonly inline: boolean
  /** What its events see of lookups while it follows. */
  readonly lookups: StoredBuild["lookups"]
  /** The build that it is a copy of. */
  readonly copyOf: number | null
  /** Its rebuild, if one was started; null otherwise. */
  readonly rebuild: {
    readonly state: string
    readonly rate: number | null
    readonly maxLiveLagMs: number | null
  } | null
  /** Records that it has to process until it is where the live build is, or where it stops. */
  readonly left: number
  readonly positions: ReadonlyArray<BuildPosition>
}
/** A projection, with its builds by number. */
export interface ListedProjection {
  readonly name: string
  /** The number of the live build; null if none is. */
  readonly live: number | null
  readonly builds: ReadonlyArray<ListedBuild>
}

const goalOf = ({ live, stop }: RebuildPosition) => Math.min(live ?? stop ?? 0, stop ?? Infinity)

/** The projections that have builds, or the one with this name, by name. */
export const readProjectionList = Effect.fnUntraced(function* (
  sql: Sql,
  name?: string
): Effect.fn.Return<ReadonlyArray<ListedProjection>, SqlError> {
  const stored = yield* readBuilds(sql, name)
  const roles = (yield* readBuildRoles(sql)).filter((one) => name === undefined || one.name === name)
  const listed: Array<ListedProjection> = []
  for (const [projection, some] of Map.groupBy(roles, (one) => one.name)) {
    const builds: Array<ListedBuild> = []
    for (const { build, from, role, until, version } of some) {
      const own = stored.find((one) => one.name === projection && one.number === build)
      if (own === undefined) continue
      const rebuild = yield* readRebuild(sql, { projection, version: build })
      const positions = yield* readRebuildPositions(sql, projection, build)
      builds.push({
        build,
        version,
        role,
        ...(from !== undefined && { from }),
        ...(until !== undefined && { until }),
        schema: `${projection}_v${build}`,
        inline: own.inline,
        lookups: own.lookups,
        copyOf: own.copyOf,
        rebuild:
          rebuild === undefined
            ? null
            : { state: rebuild.state, rate: rebuild.rate, maxLiveLagMs: rebuild.maxLiveLagMs },
        left: positions.reduce((sum, one) => sum + Math.max(0, goalOf(one) - (one.follower ?? 0)), 0),
        positions: positions.map(({ follower, halted, live, partition, stop, topic }) => ({
          topic,
          partition,
          position: follower,
          live,
          stop,
          halted
        }))
      })
    }
    listed.push({ name: projection, live: builds.find(({ role }) => role === "live")?.build ?? null, builds })
  }
  return listed
})
