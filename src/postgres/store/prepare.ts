// Prepares projections in the database: finds the builds of what the code declares, creates those that are missing, and refuses what cannot run.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { buildOf } from "../../model/build.ts"
import { keyProblem } from "../../model/columns.ts"
import type { Writable } from "../../model/handler.ts"
import type { Projection } from "../../model/projection.ts"
import { definitionProblem } from "../../model/unsupported.ts"
import { Mismatch } from "../../runner/store.ts"
import { query, type Session, type Sql, type SqlError, transaction } from "../client/client.ts"
import {
  createBuild,
  createPositions,
  lockProjections,
  noteLive,
  readBuilds,
  type SourceTopics,
  type StoredBuild
} from "./builds.ts"
import { relationsOf } from "./ddl.ts"
import { lockTimeout, settleDefinitions } from "./definitions.ts"
import { takenReason } from "./views.ts"

/** Whether a projection writes topics, its dead-letter topics left out. */
export const publishes = (projection: Projection.Any): boolean =>
  (projection.writes as ReadonlyArray<Writable>).some(
    (target) => target.kind === "topic" || (target.kind === "window" && target.topic !== undefined)
  )

/**
 * Prepares projections, all or none, and returns the builds of them that are to run: all that are not retired. A declared version that has no
 * build gets one. Fails with `Mismatch` if a projection cannot run on this database.
 */
export const prepare = (
  sql: Sql,
  projections: ReadonlyArray<Projection.Any>,
  sources: SourceTopics
): Effect.Effect<ReadonlyArray<Projection.Any>, SqlError | Mismatch> =>
  transaction(
    sql,
    Effect.fnUntraced(function* (tx) {
      yield* lockProjections(tx)
      // the first build of a projection is the live one
      const byVersion = projections.toSorted((a, b) => a.version - b.version)
      return (yield* Effect.forEach(byVersion, (projection) => prepareOne(tx, projection, projections, sources))).flat()
    })
  ).pipe(
    Effect.retry({ schedule: lockRetry, while: (error) => error._tag === "SqlError" && error.code === lockTimeout })
  )
/** A column is added only if that waits briefly for the table, so it is tried again for some seconds. */
const lockRetry = Schedule.spaced("200 millis").pipe(Schedule.upTo({ times: 15 }))

const prepareOne = Effect.fnUntraced(function* (
  tx: Session,
  projection: Projection.Any,
  all: ReadonlyArray<Projection.Any>,
  sources: SourceTopics
) {
  const { name, version } = projection
  const what = `projection ${name}`
  const refused = definitionProblem(projection) ?? keyProblem(projection.writes)
  if (refused !== undefined) return yield* new Mismatch({ what, reason: refused })
  const known = yield* readBuilds(tx, name)
  const ofVersion = known.filter((build) => build.declared === version)
  // an investigation build is none that the version needs, and one that is where it stops is not run
  const declared = ofVersion.filter(({ untilMs }) => untilMs === null)
  const investigations = ofVersion.filter(({ ended, retired, untilMs }) => untilMs !== null && !retired && !ended)
  const next = Math.max(version, ...known.map((build) => build.declared)) + 1
  const running = declared.filter(({ retired }) => !retired)
  const last = declared.at(-1)
  const live = known.find((build) => build.live)
  // a version that was retired after a promotion does not keep a configuration from starting that has the live one, too
  if (
    running.length === 0 &&
    last !== undefined &&
    all.some((other) => other.name === name && other.version === live?.declared)
  ) {
    yield* Effect.logWarning(
      `${what}: version ${version} was retired and is not run; take it out of the configuration, which has the live version ${live!.declared}`
    )
    return []
  }
  if (running.length === 0 && last?.dropped === true) {
    const reason =
      live === undefined
        ? `version ${version} was retired and its tables were dropped; increase version to ${next}`
        : replacedText(version, live, next)
    return yield* new Mismatch({ what, reason })
  }
  const kept = running.length === 0 && last !== undefined ? [last] : running
  if (last === undefined) {
    yield* assertFree(tx, projection)
    return [yield* createBuild(tx, projection, sources)]
  }
  if (running.length === 0) yield* resume(tx, last, live, next)
  const numbers = [...kept, ...investigations].map(({ number }) => number).toSorted((a, b) => a - b)
  yield* settleDefinitions(tx, projection, numbers, next)
  yield* createPositions(tx, projection, numbers, sources)
  return numbers.map((number) => buildOf(projection, number))
})

/** Why a version that was retired cannot start beside a live build, and what to do. */
const replacedText = (version: number, live: StoredBuild, next: number) =>
  `version ${version} was retired, and build ${live.number} of version ${live.declared} is live; if this is old code, deploy version ${live.declared}; if it was changed, give it version ${next}`
/** Takes a retired build back, whose version the configuration has again: it goes on where it stopped. */
const resume = Effect.fnUntraced(function* (
  tx: Session,
  { declared, name, number }: StoredBuild,
  live: StoredBuild | undefined,
  next: number
) {
  if (live !== undefined) {
    const reason = replacedText(declared, live, next)
    return yield* new Mismatch({ what: `projection ${name}`, reason })
  }
  yield* query(
    "take a retired projection back",
    () =>
      tx`with again as (
        update millrace.projection set retired_at = null, removed_at = null where name = ${name} and version = ${number}
      )
      update millrace.progress g set mode = 'live', outbox_seq = (select max(o.outbox_seq) from millrace.progress o
        where (o.projection, o.topic, o.partition) = (g.projection, g.topic, g.partition))
      where projection = ${name} and version = ${number}`
  )
  yield* noteLive(tx, name, number)
})

/** Fails if the name of a view is taken: by a table of the user, or by another projection's read model. */
const assertFree = Effect.fnUntraced(function* (tx: Session, projection: Projection.Any) {
  for (const relation of relationsOf(projection)) {
    const reason = yield* takenReason(tx, projection.name, relation)
    if (reason !== undefined) return yield* new Mismatch({ what: `projection ${projection.name}`, reason })
  }
})
