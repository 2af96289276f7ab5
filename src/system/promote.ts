// Promotes a build: it takes the place of the live one at the same positions, in one transaction that no reader notices. Every step can be the last one
// of this process: a freeze ends by itself, and other processes, or the next command, close the gate.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { buildName } from "../model/build.ts"
import { query, type Session, type Sql, SqlError } from "../postgres/client/client.ts"
import { candidateOf, readBuilds, readPrevious, type StoredBuild } from "../postgres/store/builds.ts"
import { retrying } from "../postgres/client/retrying.ts"
import { type GateHolder, type GateState, holdersText } from "../postgres/store/gate-holders.ts"
import { closeGate, GateBusy, openGate, PromotionUnderWay, promotionSession } from "../postgres/store/gate.ts"
import { readProcesses } from "../postgres/store/processes.ts"
import { flip, FlipRefused, type Promotion, readPromotion, storePause } from "../postgres/store/promotion.ts"
import { planViews } from "../postgres/store/view-plan.ts"
import { readViewFacts, ViewsRefused } from "../postgres/store/views.ts"
import { assertNotPaused, atEqualPositions, type BuildPair, type FollowerContext } from "./caught-up.ts"
import { NotPromoted, PromotionUnknown } from "./errors.ts"
import { dataFlag } from "./build-text.ts"
import { isAlive } from "./findings.ts"
import { followerDifferences } from "./rebuild-differences.ts"
import { momentText } from "./rebuild-until.ts"

/** What is promoted, and how. */
export interface PromoteRequest {
  /** The name of the projection. */
  readonly name: string
  /** The number of a build that follows the live one; undefined: the candidate. */
  readonly build?: number | undefined
  /** Whether the build that the last promotion replaced takes its place again. */
  readonly rollback: boolean
  /** Whether everything but the switch is done, to see whether it would succeed. */
  readonly dryRun: boolean
  /** After so long, and a second for the last attempt, it fails with nothing changed, in milliseconds. Closing the gate after the switch is not in it. */
  readonly timeoutMs: number
}
/** A step of a promotion that is done. */
export type PromotionStep = "checked" | "opened" | "drained" | "switched" | "closed"
/** What a promotion works on. */
export interface PromoteContext extends FollowerContext {
  /** The state directory if the database is the embedded one. Advice names it. */
  readonly embeddedDir?: string | undefined
  /** Is called after each step. */
  readonly onStep?: (step: PromotionStep) => Effect.Effect<void>
}
/** What was promoted. */
export interface Promoted {
  readonly projection: string
  /** The number of the build that was live. */
  readonly from: number
  /** The number of the build that replaces it. */
  readonly to: number
  /** `ready`: a dry run, which found nothing that would keep the build from being promoted. */
  readonly state: "promoted" | "ready"
  /** For how long the projection processed nothing, in milliseconds. */
  readonly pauseMs: number
  /** Whether the views show the new build alone. Otherwise `holders` may still read the old one. */
  readonly gate: "closed" | "open"
  readonly holders: ReadonlyArray<GateHolder>
  /** Materialized views over the read models, which show the old rows until they are refreshed. */
  readonly stale: ReadonlyArray<string>
  /** What the new build has otherwise than live processing had it, and why; empty after a rollback. */
  readonly notReproduced: ReadonlyArray<string>
  /** What to do next. */
  readonly next: ReadonlyArray<string>
}

const refuse = (message: string, advice: string) => new NotPromoted({ message, try: advice, timedOut: false })
const timedOut = (message: string, advice: string) =>
  new NotPromoted({ message: `${message}; nothing was changed`, try: advice, timedOut: true })
const moreTime = "try again, or allow more time with --timeout"

/** The live build, and the one that is to replace it. */
const pairOf = Effect.fnUntraced(function* (
  sql: Sql,
  { build, name, rollback }: PromoteRequest
): Effect.fn.Return<BuildPair, SqlError | NotPromoted> {
  const builds = yield* readBuilds(sql, name)
  const live = builds.find((one) => one.live)
  if (live === undefined)
    return yield* refuse(
      `projection ${name} has no live build`,
      "start the application with millrace dev or millrace start, which makes its build the live one"
    )
  const investigation = builds.find((one) => one.number === build && one.untilMs !== null && !one.retired)
  if (investigation !== undefined && investigation.repair !== null)
    return yield* refuse(
      `build ${build} of projection ${name} is a rebuild of some keys that is not finished`,
      `finish it: millrace rebuild ${name} --keys FILE, with the same keys; or delete it: millrace rebuild ${name} --cancel`
    )
  if (investigation !== undefined)
    return yield* refuse(
      `build ${build} of projection ${name} ends at ${momentText(investigation.untilMs!)}; it is for looking only`,
      `millrace rebuild ${name} creates a build that can be promoted`
    )
  const followers = builds.filter((one) => !one.live && !one.retired && one.untilMs === null)
  const list = followers.map(({ number }) => number).join(", ")
  const previous = rollback ? yield* readPrevious(sql, name) : undefined
  // repeated by mistake it would bring back the build that was to be left
  if (previous !== undefined && previous > live.number)
    return yield* refuse(
      `build ${live.number} of projection ${name} is live since a rollback of build ${previous}`,
      `to go forward again: millrace promote ${name} --build ${previous}`
    )
  const candidate = candidateOf(builds)?.number
  const number = build ?? (rollback ? previous : candidate)
  const follower = followers.find((one) => one.number === number)
  if (follower !== undefined) return { live, follower }
  if (build !== undefined)
    return yield* refuse(
      build === live.number
        ? `build ${build} of projection ${name} is the live one already`
        : `projection ${name} has no build ${build} that follows the live one, build ${live.number}`,
      list === "" ? `millrace rebuild ${name} builds one` : `one of ${list}`
    )
  if (rollback)
    return yield* refuse(
      `projection ${name} has no build to go back to: none was replaced by build ${live.number}, or it is retired`,
      list === "" ? `millrace rebuild ${name} builds one` : `millrace promote ${name} --build N with one of ${list}`
    )
  return yield* refuse(
    `projection ${name} has no candidate: no build is newer than the live one, build ${live.number}`,
    list === ""
      ? `millrace rebuild ${name} builds one`
      : `millrace promote ${name} --rollback, or --build N with one of ${list}`
  )
})

/** The right to promote, as soon as no other process has it. */
const lockedSession = (
  sql: Sql,
  name: string,
  deadline: number
): Effect.Effect<Session, SqlError | PromotionUnderWay, Scope.Scope> =>
  Effect.catchIf(
    promotionSession(sql, name),
    (error) => error instanceof PromotionUnderWay && performance.now() < deadline,
    () =>
      Effect.andThen(
        Effect.sleep(100),
        Effect.suspend(() => lockedSession(sql, name, deadline))
      )
  )

/** Does everything of the switch and takes it back. Fails as the switch would. */
const tryFlip = (own: Session, promotion: Promotion) =>
  Effect.acquireUseRelease(
    query("begin", () => own.unsafe("begin")),
    () => flip(own, promotion),
    () => Effect.ignore(query("roll back", () => own.unsafe("rollback")))
  )

/** How long it is asked whether a switch was made whose reply was lost, in milliseconds. */
const doubtMs = 30_000
/** The switch. If its reply is lost, waits until its session has ended, and looks whether it was made. */
const switched = (sql: Sql, own: Session, promotion: Promotion) =>
  Effect.catchIf(
    flip(own, promotion),
    (error) => error instanceof SqlError && error.inDoubt,
    Effect.fnUntraced(function* (error) {
      const { projection, token } = promotion
      // once the lock is free, its session has ended, and with it the switch
      const look = Effect.scoped(
        Effect.andThen(
          lockedSession(sql, projection, performance.now() + doubtMs),
          Effect.suspend(() => readPromotion(sql, token))
        )
      )
      const isMade = yield* retrying(look, { forMs: doubtMs }).pipe(
        Effect.mapError(
          ({ message }) =>
            new PromotionUnknown({
              message: `${error.message}; it is not known whether build ${promotion.follower} of projection ${projection} was promoted, because the database does not answer: ${message}`,
              try: "look with millrace status which build is live, before you promote again"
            })
        )
      )
      // nothing was changed, so it may be tried again
      if (!isMade) return yield* Effect.fail(new SqlError({ ...error, retryable: true, inDoubt: false }))
    })
  )

/** Freezes the live build, drains the other one and switches. */
const replace = Effect.fnUntraced(function* (
  context: PromoteContext,
  own: Session,
  pair: BuildPair,
  { dryRun, timeoutMs }: PromoteRequest
) {
  const { onStep = () => Effect.void, sql } = context
  let token = ""
  let refusal: FlipRefused | undefined
  const use = (given: string) => {
    const promotion = {
      projection: pair.live.name,
      live: pair.live.number,
      follower: pair.follower.number,
      token: (token = given)
    }
    return Effect.andThen(onStep("drained"), dryRun ? tryFlip(own, promotion) : switched(sql, own, promotion)).pipe(
      Effect.as(true as const),
      // the freeze took too long: it is tried again
      Effect.catchTag("FlipRefused", (error) => Effect.sync(() => void (refusal = error)))
    )
  }
  const { usedMs } = yield* atEqualPositions(context, pair, { timeoutMs }, { use }).pipe(
    Effect.mapError((error) =>
      error._tag === "NotCaughtUp"
        ? new NotPromoted({
            ...error,
            message: refusal === undefined ? error.message : `${error.message}: ${refusal.reason}`
          })
        : error
    )
  )
  return { pauseMs: Math.round(usedMs * 10) / 10, token }
})

/** What a person has to know and do after the switch. */
const nextSteps = Effect.fnUntraced(function* (
  { embeddedDir, sql }: PromoteContext,
  { follower, live }: BuildPair,
  stale: ReadonlyArray<string>,
  holders: ReadonlyArray<GateHolder> | undefined,
  isRollback: boolean
) {
  const running = (yield* readProcesses(sql)).filter(isAlive)
  // a process runs all builds of the versions that it declares, and soon one that it does not list yet
  const runs = ({ declared }: StoredBuild) =>
    [follower, live].some(
      (build) =>
        build.declared === declared &&
        running.some(({ projections }) => projections.includes(buildName({ name: build.name, version: build.number })))
    )
  const flag = dataFlag(embeddedDir)
  const { name } = live
  const [back, toGo, going] = isRollback
    ? [`millrace promote${flag} ${name} --build ${live.number}`, "go forward again", "going forward again"]
    : [`millrace promote${flag} ${name} --rollback`, "go back", "going back"]
  return [
    ...(runs(follower)
      ? []
      : [`no process runs build ${follower.number}: start one whose configuration has version ${follower.declared}`]),
    runs(live)
      ? `build ${live.number} follows build ${follower.number} from now on, so that you can ${toGo}: ${back}`
      : `no process runs build ${live.number}, so ${going} (${back}) first processes what it has missed`,
    `end it once you no longer need it: millrace retire${flag} ${name} ${live.number}`,
    ...stale.map((view) => `refresh materialized view ${view}`),
    ...(holders === undefined
      ? []
      : [
          `the views still show build ${live.number} to transactions that began before: ${holdersText(holders)}; running processes close the gate afterwards`
        ])
  ]
})

/** How long a promotion waits for old snapshots to end before it leaves the gate to other processes, in milliseconds. */
const closeMs = 2_000

/** How long the last attempt to change the views, and to say who uses them, may go on after the time is over, in milliseconds. */
const lastMs = 1_000

/**
 * Promotes a build. Runs it in this process until it is where the live one is, if no other process does. Fails with `NotPromoted` or `NotCaughtUp`
 * and nothing changed where that is not possible, or not in time.
 */
export const promote = Effect.fnUntraced(function* (context: PromoteContext, request: PromoteRequest) {
  const { onStep = () => Effect.void, sql } = context
  const { dryRun, name, timeoutMs } = request
  const deadline = performance.now() + timeoutMs
  const prepared = Effect.gen(function* () {
    const own = yield* lockedSession(sql, name, deadline)
    const pair = yield* pairOf(sql, request)
    yield* assertNotPaused(sql, pair.follower)
    const builds = { live: pair.live.number, next: pair.follower.number }
    const { refusals, stale } = planViews(yield* readViewFacts(sql, name), { build: builds.next, other: builds.live })
    if (refusals.length > 0) return yield* new ViewsRefused({ projection: name, refusals })
    // it is only said: a log that does not answer is noticed by what needs it
    const notReproduced = request.rollback
      ? []
      : yield* Effect.orElseSucceed(followerDifferences(context, pair.follower), (): ReadonlyArray<string> => [])
    yield* onStep("checked")
    if (!dryRun) {
      yield* openGate(sql, name, builds, deadline)
      yield* onStep("opened")
    }
    return { own, pair, stale, notReproduced }
  })
  const once = Effect.gen(function* () {
    const { notReproduced, own, pair, stale } = yield* Effect.timeoutOrElse(prepared, {
      duration: Math.max(1, deadline + lastMs - performance.now()),
      orElse: () => timedOut(`the views of projection ${name} could not be changed in time`, moreTime)
    })
    const { pauseMs, token } = yield* replace(context, own, pair, {
      ...request,
      timeoutMs: Math.max(1, deadline - performance.now())
    })
    return { notReproduced, pair, pauseMs, stale, token }
  }).pipe(Effect.scoped)
  // until the switch is made, all steps may be done again; where it is not known whether it was, `PromotionUnknown` ends it
  const steps = retrying(once, {
    forMs: timeoutMs,
    onRetry: ({ message }) =>
      performance.now() < deadline ? Effect.logWarning(`promote: ${message}; retrying`) : Effect.void
  }).pipe(
    Effect.mapError((error) => {
      if (error instanceof ViewsRefused) return refuse(error.message, "millrace promote again afterwards")
      if (error instanceof GateBusy) return timedOut(error.message, `end these transactions, or ${moreTime}`)
      return error instanceof PromotionUnderWay ? timedOut(error.message, moreTime) : error
    }),
    // another process closes the gate if this cannot
    Effect.onError(() =>
      dryRun ? Effect.void : Effect.ignore(Effect.timeout(closeGate(sql, name, performance.now()), lastMs))
    )
  )
  const { notReproduced, pair, pauseMs, stale, token } = yield* steps
  const result = { projection: name, from: pair.live.number, to: pair.follower.number, pauseMs, stale, notReproduced }
  if (dryRun) return { ...result, state: "ready", gate: "closed", holders: [], next: [] } satisfies Promoted
  yield* Effect.ignore(storePause(sql, token, pauseMs))
  yield* onStep("switched")
  const gate = yield* closeGate(sql, name, performance.now() + closeMs).pipe(
    // the promotion is made all the same, and other processes close the gate
    Effect.orElseSucceed((): GateState => ({ isClosed: false, holders: [] }))
  )
  yield* onStep("closed")
  const { holders, isClosed } = gate
  const next = yield* nextSteps(context, pair, stale, isClosed ? undefined : holders, request.rollback).pipe(
    Effect.orElseSucceed((): ReadonlyArray<string> => [])
  )
  return { ...result, state: "promoted", gate: isClosed ? "closed" : "open", holders, next } satisfies Promoted
})
