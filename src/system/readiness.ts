// Whether this process can do its roles now. What other processes do or fail to do makes no difference.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { topicsOf } from "../model/application.ts"
import { isCommandsSubject } from "../monitor/ongoing-failures.ts"
import { makeSharedReading, type Reading } from "./shared-reading.ts"
import { durationText } from "../text/duration.ts"
import { database } from "./presence.ts"
import type { System } from "./system.ts"

/** Whether a role can be done, and if not, why. */
export interface RoleReadiness {
  readonly ready: boolean
  readonly reason?: string
}
/** The response of `/readyz`. */
export interface ProcessReadiness {
  readonly ready: boolean
  /** By role. */
  readonly roles: Readonly<Record<string, RoleReadiness>>
  readonly [detail: string]: unknown
}

/** Failures that last longer make a process unready, in milliseconds. Shorter ones are normal, for example while a group redistributes partitions. */
const toleratedMs = 10_000
/** A database that did not answer for so long is away: it is written to every 5 seconds. */
const silentMs = 15_000
const ready: RoleReadiness = { ready: true }
const unready = (reason: string): RoleReadiness => ({ ready: false, reason })

/** What a process knows of itself. */
export interface ProcessFacts {
  readonly roles: ReadonlyArray<string>
  /** The roles whose loops run. */
  readonly running: ReadonlyArray<string>
  readonly failing: ReadonlyArray<{ readonly what: string; readonly reason: string; readonly sinceMs: number }>
  /** How long ago the database answered last, in milliseconds. */
  readonly databaseMs: number
  readonly log: Pick<Reading<unknown>, "failure">
}
const failureOf = ({ failing }: ProcessFacts, pattern: RegExp, olderMs: number) =>
  failing.find(({ sinceMs, what }) => pattern.test(what) && sinceMs >= olderMs)

/**
 * Readiness by role. A gateway and an api need the log, and a gateway the code of the inline projections; projections and relays need the database, and
 * that they do not fail.
 */
export const readinessOf = (facts: ProcessFacts): ProcessReadiness => {
  const { databaseMs, log, roles, running } = facts
  const overHttp = log.failure === undefined ? ready : unready(`the log does not answer: ${log.failure}`)
  const loop = (role: string, pattern: RegExp): RoleReadiness => {
    const away = failureOf(facts, new RegExp(`^${database}$`), 0)
    if (away !== undefined) return unready(`the database does not answer: ${away.reason}`)
    if (databaseMs > silentMs) return unready(`the database has not answered for ${durationText(databaseMs)}`)
    if (!running.includes(role)) return unready("it is starting or stopping")
    const failing = failureOf(facts, pattern, toleratedMs)
    if (failing === undefined) return ready
    return unready(`${failing.what} fails for ${durationText(failing.sinceMs)}: ${failing.reason}`)
  }
  const refused = facts.failing.find(({ what }) => isCommandsSubject(what))
  const gateway = refused === undefined ? overHttp : unready(refused.reason)
  const of: Readonly<Record<string, () => RoleReadiness>> = {
    projections: () => loop("projections", /^projection /),
    relay: () => loop("relay", /^relay to |^(waiting )?stream of the relay to /),
    gateway: () => (overHttp.ready ? gateway : overHttp)
  }
  const byRole = Object.fromEntries(roles.map((role) => [role, of[role]?.() ?? overHttp]))
  return { ready: Object.values(byRole).every((one) => one.ready), roles: byRole }
}

/** The readiness of this process in its roles. The log is asked at most once a second for all callers together. */
export const makeReadiness = Effect.fnUntraced(function* (
  { application, log, presence }: System,
  roles: ReadonlyArray<string>
): Effect.fn.Return<Effect.Effect<ProcessReadiness>, never, Scope.Scope> {
  const [topic] = topicsOf(application)
  const ask = topic === undefined ? Effect.void : Effect.asVoid(log.ends(topic.topic.name))
  const answers = yield* makeSharedReading(ask, { freshMs: 1_000, patienceMs: 3_000 })
  const needsLog = roles.includes("gateway") || roles.includes("api")
  return Effect.gen(function* () {
    const found = needsLog ? yield* answers : { failure: undefined }
    return readinessOf({
      roles,
      running: presence.roles,
      failing: presence.failures.list,
      databaseMs: presence.silentMs,
      log: found
    })
  })
})
