// Retires builds that are not live, and projections that the configuration no longer has; refuses where something would be lost.
import * as Effect from "effect/Effect"
import type { Application } from "../model/application.ts"
import type { Projection } from "../model/projection.ts"
import { type Sql, transaction } from "../postgres/client/client.ts"
import { retrying, wasUndone } from "../postgres/client/retrying.ts"
import { readProcesses } from "../postgres/store/processes.ts"
import { lockProjections } from "../postgres/store/builds.ts"
import { holdersText } from "../postgres/store/gate-holders.ts"
import { closeGate, readOpenGates } from "../postgres/store/gate.ts"
import { deleteBuild, lockBuild } from "../postgres/store/delete-build.ts"
import { countTimersOf, deleteTimersOf } from "../postgres/events/timer-decisions.ts"
import { discardOpen, freeze, readUnpublishedOf, readVersions, type StoredVersion } from "../postgres/store/retire.ts"
import { NotRetired } from "./errors.ts"
import { isAlive } from "./findings.ts"
import { counted } from "../text/counted.ts"

/** What is retired, and how. */
export interface RetireRequest {
  readonly name: string
  /** The number of a build; undefined: all whose version the configuration does not have. */
  readonly version: number | undefined
  /** Whether the tables and their views are dropped. */
  readonly drop: boolean
  /** Whether nothing is changed. */
  readonly dryRun: boolean
}
/** What was retired. */
export interface Retired {
  readonly versions: ReadonlyArray<number>
  readonly dropped: boolean
  /** Whether messages were published that no other build continues; they stay in their topics. */
  readonly published: boolean
  /** How many timers and commands of it waited and are deleted; left out if none was. They stay while another build of the projection is live. */
  readonly timers?: number
}
/** What `retire` works on. */
export interface RetireContext {
  readonly application: Application.Any
  readonly sql: Sql
  /** The relay targets that the environment configures. */
  readonly targets: ReadonlyArray<string>
}

const refuse = (message: string, advice: string) => new NotRetired({ message, try: advice })

/** The builds that are asked for. The configuration must not have the version of a live one: without a process that runs it, nothing would be processed. */
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
  const isDone = ({ dropped, retired }: StoredVersion) => retired && dropped
  const asked = stored.filter((one) =>
    version === undefined ? !configured.has(one.declared) && !isDone(one) : one.version === version
  )
  // what is left is only what the configuration has; if nothing is, the projection is retired
  if (asked.length === 0 && stored.every(isDone)) return stored
  if (version !== undefined && asked.length === 0)
    return refuse(`projection ${name} has no build ${version}`, `one of ${stored.map((one) => one.version).join(", ")}`)
  const live = asked.find((one) => one.live)
  const followers = stored.filter((one) => !asked.includes(one) && !one.retired && !one.live)
  const follower = followers.findLast(({ investigation }) => !investigation) ?? followers.at(-1)
  if (live !== undefined && follower !== undefined)
    return refuse(
      `build ${live.version} of projection ${name} is the live one, and build ${follower.version} follows it`,
      follower.investigation
        ? `millrace retire ${name} ${follower.version} --drop, and then millrace retire ${name} ${live.version}`
        : `millrace promote ${name}, and then millrace retire ${name} ${live.version}`
    )
  const isConfigured = live !== undefined && configured.has(live.declared)
  if (asked.length === 0 || isConfigured) {
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
      `${counted(open, "dead letter")} of projection ${name} ${open === 1 ? "is" : "are"} open, and nothing could process ${open === 1 ? "it" : "them"} afterwards`,
      `put the projection back and retry them, or: millrace dlq discard --projection ${name}`
    )
})

/** Fails if readers may still see a build that is to be dropped, through the gate of its promotion. */
const assertGateClosed = Effect.fnUntraced(function* (sql: Sql, name: string, dryRun: boolean) {
  const holders = dryRun
    ? (yield* readOpenGates(sql)).find(({ projection }) => projection === name)?.holders
    : yield* Effect.map(closeGate(sql, name, performance.now() + closeMs), (gate) =>
        gate.isClosed ? undefined : gate.holders
      )
  if (holders === undefined) return
  return yield* refuse(
    `transactions that began before the last promotion of projection ${name} may still read its tables: ${holdersText(holders)}`,
    "end them, or try again later; without --drop the build is retired and its tables stay"
  )
})
/** How long dropping waits for such transactions, in milliseconds. */
const closeMs = 1_000
/** For how long a retirement is tried again that PostgreSQL rolled back, in milliseconds. */
const deadlockMs = 30_000

/**
 * Retires builds of a projection: no process can commit for them, running processes stop them, and they are not counted any more. What they published
 * stays published. Timers that wait are deleted with the last build. This is final while another build of the projection is live. A build that is not live may be retired at any time; its open
 * dead letters are discarded, because the live build has its own. The live one may be retired if the configuration does not have it, no other build
 * follows it, and nothing would be lost. Fails with `NotRetired` otherwise.
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
  // another build goes on with the events and the streams otherwise
  const isEnd = !stored.some((one) => one.live && !asked.includes(one))
  if (isEnd) yield* assertIdle(sql, name, asked)
  const [missing] = isEnd ? yield* readUnpublishedOf(sql, name, targets) : []
  if (missing !== undefined)
    return yield* refuse(
      `${counted(missing.messages, "message")} of projection ${name} ${missing.messages === 1 ? "is" : "are"} not published to ${missing.target} yet`,
      "run a relay until millrace status shows that none waits: millrace start --roles relay"
    )
  if (drop) yield* assertGateClosed(sql, name, dryRun)
  const result = {
    versions: asked.map(({ version }) => version),
    dropped: drop,
    published: isEnd && asked.some(({ published }) => published > 0)
  } satisfies Retired
  const withTimers = (timers: number): Retired => (timers === 0 ? result : { ...result, timers })
  if (dryRun) return withTimers(isEnd ? yield* countTimersOf(sql, name) : 0)
  const change = transaction(
    sql,
    Effect.fnUntraced(function* (tx) {
      yield* lockProjections(tx)
      const live = (yield* readVersions(tx, name)).filter(
        (one) => one.live && asked.some(({ version }) => version === one.version)
      )
      if (!isEnd && live.length > 0)
        return yield* refuse(
          `build ${live[0]!.version} of projection ${name} has become the live one`,
          "look at millrace status, and try again"
        )
      if (drop) for (const { version } of asked) yield* lockBuild(tx, name, version)
      for (const { retired, version } of asked) {
        if (retired) continue
        yield* freeze(tx, name, version)
        if (!isEnd) yield* discardOpen(tx, name, version)
      }
      // after the freeze, so that no commit can set another one
      const timers = isEnd ? yield* deleteTimersOf(tx, name) : 0
      if (drop) for (const { version } of asked) yield* deleteBuild(tx, name, version)
      return timers
    })
  )
  // a commit of a process that runs the build may still make it wait in a circle
  return withTimers(yield* retrying(change, { forMs: deadlockMs, while: wasUndone }))
})
