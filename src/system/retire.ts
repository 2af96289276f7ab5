// Retires projections, and versions of them, that the configuration no longer has, and refuses where something would be lost.
import * as Effect from "effect/Effect"
import type { Application } from "../model/application.ts"
import { buildOf } from "../model/build.ts"
import type { Projection } from "../model/projection.ts"
import { type Sql, transaction } from "../postgres/client/client.ts"
import { readProcesses } from "../postgres/store/processes.ts"
import { showBuild } from "../postgres/store/views.ts"
import { lockProjections } from "../postgres/store/builds.ts"
import { publishes } from "../postgres/store/prepare.ts"
import { deleteBuild } from "../postgres/store/delete-build.ts"
import {
  freeze,
  makeLive,
  readUnpublishedOf,
  readVersionPositions,
  readVersions,
  type StoredVersion
} from "../postgres/store/retire.ts"
import { NotRetired } from "./errors.ts"
import { isAlive } from "./findings.ts"
import type { Log } from "../log/log.ts"

/** What is retired, and how. */
export interface RetireRequest {
  readonly name: string
  /** Undefined: all versions that the configuration does not have. */
  readonly version: number | undefined
  /** Whether the tables and their views are dropped. */
  readonly drop: boolean
  /** Whether nothing is changed. */
  readonly dryRun: boolean
}
/** What was retired. */
export interface Retired {
  readonly versions: ReadonlyArray<number>
  /** The version that took the place of the retired one; undefined if none did. */
  readonly promoted: number | undefined
  readonly dropped: boolean
  /** Whether messages were published, which stay in their topics. */
  readonly published: boolean
}
/** What `retire` works on. */
export interface RetireContext {
  readonly application: Application.Any
  readonly sql: Sql
  readonly log: Log["Service"]
  /** The relay targets that the environment configures. */
  readonly targets: ReadonlyArray<string>
}

const refuse = (message: string, advice: string) => new NotRetired({ message, try: advice })

/** The versions that are asked for, each of which the configuration must not have. */
const chosen = (
  { application }: RetireContext,
  { name, version }: RetireRequest,
  stored: ReadonlyArray<StoredVersion>
) => {
  const configured = new Set(
    application.projections
      .map(({ projection }) => projection as Projection.Any)
      .flatMap((one) => (one.name === name ? [one.version] : []))
  )
  const asked = stored.filter((one) =>
    version === undefined ? !configured.has(one.declared) : one.version === version
  )
  if (version !== undefined && asked.length === 0)
    return refuse(
      `projection ${name} has no version ${version}`,
      `one of ${stored.map((one) => one.version).join(", ")}`
    )
  if (asked.length === 0 || configured.has(asked[0]!.declared)) {
    const which = version ?? [...configured].join(", ")
    return refuse(
      `projection ${name} v${which} is in the configuration`,
      "take it out of the configuration, or give it a higher version, restart the processes, and then retire it"
    )
  }
  return asked
}

/** Fails if a process runs one of the versions, or if dead letters of them are open. */
const assertIdle = Effect.fnUntraced(function* (sql: Sql, name: string, asked: ReadonlyArray<StoredVersion>) {
  const names = new Set(asked.map(({ version }) => `${name}_v${version}`))
  const running = (yield* readProcesses(sql)).find(
    (one) => isAlive(one) && one.projections.some((other) => names.has(other))
  )
  if (running !== undefined)
    return yield* refuse(
      `process ${running.pid} on ${running.host} runs projection ${name}`,
      "stop it, or restart it with a configuration without the projection"
    )
  const open = asked.reduce((sum, one) => sum + one.open, 0)
  if (open > 0)
    return yield* refuse(
      `${open} dead letter${open === 1 ? "" : "s"} of projection ${name} ${open === 1 ? "is" : "are"} open, and nothing could process ${open === 1 ? "it" : "them"} afterwards`,
      `put the projection back and retry them, or: millrace dlq discard --projection ${name}`
    )
})

/** The version that takes the live one's place: the follower that the configuration has. Undefined if there is none. */
const successorOf = Effect.fnUntraced(function* (
  { application, log, sql }: RetireContext,
  name: string,
  asked: ReadonlyArray<StoredVersion>,
  stored: ReadonlyArray<StoredVersion>
) {
  const live = asked.find((one) => one.live)
  const follower = stored.findLast((one) => !asked.includes(one) && !one.retired && !one.live)
  if (live === undefined || follower === undefined) return undefined
  const projection = application.projections
    .map((one) => one.projection as Projection.Any)
    .find((one) => one.name === name && one.version === follower.declared)
  if (projection === undefined) return undefined
  if (live.published > 0 || publishes(projection))
    return yield* refuse(
      `projection ${name} publishes, and version ${follower.version}, which follows version ${live.version} without publishing, cannot continue its streams`,
      `take version ${follower.version} out of the configuration and give the changed projection, its read models and what it publishes new names; then: millrace retire ${name}`
    )
  const positions = yield* readVersionPositions(sql, name)
  for (const one of positions.filter(({ version }) => version === follower.version)) {
    const before = positions.find(
      (other) => other.version === live.version && other.topic === one.topic && other.partition === one.partition
    )
    const end = (yield* log.bounds(one.topic)).find(({ partition }) => partition === one.partition)?.end ?? 0
    const needed = Math.min(before?.position ?? 0, end)
    if (one.position < needed)
      return yield* refuse(
        `version ${follower.version} has ${needed - one.position} records of ${one.topic}/${one.partition} to go until it is where version ${live.version} is`,
        "wait until millrace status shows that it has caught up, with a process that runs it"
      )
  }
  return buildOf(projection, follower.version)
})

/**
 * Retires versions of a projection that the configuration does not have: they are not counted any more, and no process can commit for them. What they
 * published stays published. If the configuration has a newer version that follows the live one and publishes nothing, that version takes its place.
 * Fails with `NotRetired` where something would be lost or is still running.
 */
export const retire = Effect.fnUntraced(function* (context: RetireContext, request: RetireRequest) {
  const { sql, targets } = context
  const { drop, dryRun, name } = request
  const stored = yield* readVersions(sql, name)
  const some = chosen(context, request, stored)
  if (some instanceof NotRetired) return yield* some
  const asked = some.filter((one) => !one.retired || (drop && !one.dropped))
  if (asked.length === 0)
    return yield* refuse(`projection ${name} is retired already`, "millrace retire NAME --drop drops its tables")
  yield* assertIdle(sql, name, asked)
  // another version goes on with the streams otherwise
  const [missing] = asked.some(({ live }) => live) ? yield* readUnpublishedOf(sql, name, targets) : []
  if (missing !== undefined)
    return yield* refuse(
      `${missing.messages} message${missing.messages === 1 ? "" : "s"} of projection ${name} ${missing.messages === 1 ? "is" : "are"} not published to ${missing.target} yet`,
      "run a relay until millrace status shows that none waits: millrace start --roles relay"
    )
  const successor = yield* successorOf(context, name, asked, stored)
  const result = {
    versions: asked.map(({ version }) => version),
    promoted: successor?.version,
    dropped: drop,
    published: asked.some(({ published }) => published > 0)
  } satisfies Retired
  if (dryRun) return result
  yield* transaction(
    sql,
    Effect.fnUntraced(function* (tx) {
      yield* lockProjections(tx)
      for (const { retired, version } of asked) if (!retired) yield* freeze(tx, name, version)
      if (successor !== undefined) {
        yield* makeLive(tx, name, successor.version)
        yield* showBuild(tx, name, { build: successor.version }).pipe(
          Effect.catchTag("ViewsRefused", ({ message }) =>
            refuse(message, "drop what depends on the views, and create it again afterwards")
          )
        )
      }
      if (drop) for (const { version } of asked) yield* deleteBuild(tx, name, version)
    })
  )
  return result
})
