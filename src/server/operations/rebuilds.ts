// The routes of rebuilds: start or continue, plan, pause, resume and cancel.
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type { FastifyInstance } from "fastify"
import { migrate } from "../../postgres/client/migrate.ts"
import { selectionOf } from "../../system/key-selection.ts"
import { cancelRebuild, pauseRebuild, resumeRebuild } from "../../system/rebuild.ts"
import { planKeys } from "../../system/rebuild-keys.ts"
import { type KeySelection, planRebuild, type RebuildRequest } from "../../system/rebuild-plan.ts"
import { rebuiltJson, replayedPart, runRebuild } from "../../system/run-rebuild.ts"
import { openSystem } from "../../system/system.ts"
import { jsonSchemaOf } from "../http/openapi.ts"
import type { NewJob } from "./jobs.ts"
import { begin, jobSchema, known } from "./projection-jobs.ts"
import {
  addRoute,
  answerOf,
  bodyOf,
  commandText,
  isTrue,
  momentOf,
  type OperationParts,
  parametersOf
} from "./parts.ts"
import {
  exclude,
  limitOptions,
  limitsOf,
  mostKeys,
  nameOf,
  pastOf,
  Rebuild,
  Resume,
  Until
} from "./projection-requests.ts"
import { flag, integer, type Json, nullable, object, text } from "../http/json-schema.ts"
import { command, dryRun, rebuildPlan, rebuilt, responses } from "./schemas.ts"

const path = "/v1/operations/projections"

const rebuildSchema = (summary: string, body: Schema.Top, more: Json = {}) => ({
  summary,
  body: jsonSchemaOf(body),
  response: responses(
    { 200: object({ command, projection: text, build: nullable(integer), state: text, ...more }) },
    400,
    404,
    409,
    422,
    503
  )
})
/** What a rebuild is asked to do. */
interface AskedRebuild {
  readonly name: string
  readonly body: typeof Rebuild.Type
  readonly keys: KeySelection | undefined
  readonly fromMs: "now" | number | undefined
  readonly untilMs: number | undefined
  readonly isDryRun: boolean
}
/** Runs a rebuild as `millrace rebuild` does: plans it, and processes it in this process beside all others. */
const rebuilding = (
  { system }: OperationParts,
  { body, fromMs, isDryRun, keys, name, untilMs }: AskedRebuild
): NewJob["run"] => {
  const { application, database, log } = system
  const { sql } = database
  const { lookups = "asSeen", rate } = body
  return Effect.fnUntraced(function* (progress) {
    const context = { application, sql, log }
    const onScanned = (scanned: number, total: number) => Effect.sync(() => progress({ scanned, total }))
    const ofKeys = keys && (yield* planKeys(context, name, rate, keys, onScanned))
    const replayed: RebuildRequest = keys === undefined ? yield* replayedPart(context, name, fromMs, untilMs) : { keys }
    const asked: RebuildRequest = { lookups, ...replayed }
    const plan = ofKeys?.plan ?? (yield* planRebuild(context, name, rate, asked))
    if (isDryRun) return JSON.stringify(plan)
    // an older release may have created the database
    yield* migrate(sql)
    const own = yield* openSystem(application, database, { relaysHere: false })
    let build: number | undefined
    const result = yield* runRebuild(
      own,
      name,
      limitsOf(body),
      { request: asked, scanned: ofKeys?.scanned },
      {
        onBuild: (number) => Effect.sync(() => void (build = number)),
        onRetry: ({ message }) => Effect.sync(() => progress({ build, retrying: message })),
        report: ({ left, perSecond, processed, secondsLeft, state, waits }) =>
          Effect.sync(() =>
            progress({
              build,
              state,
              waits: waits ?? null,
              processed,
              left,
              per_second: Math.round(perSecond),
              seconds_left: secondsLeft === undefined ? null : Math.ceil(secondsLeft)
            })
          )
      }
    )
    return JSON.stringify(rebuiltJson(plan, result))
  })
}
const rebuildRoute = (app: FastifyInstance, parts: OperationParts): void => {
  const { limits } = parts
  addRoute(
    app,
    "POST",
    `${path}/:name/rebuild`,
    jobSchema(
      "Replay the log into the next build of a projection, or continue its rebuild; dryRun: the plan",
      ["plan", "rebuild"],
      Rebuild,
      { anyOf: [rebuilt, rebuildPlan] }
    ),
    async (request, reply) => {
      const name = nameOf(request)
      const isDryRun = isTrue(parametersOf(request, ["dryRun"]).dryRun, "dryRun")
      const body = bodyOf(request, Rebuild, limits)
      const { from, keys: given, lookups = "asSeen", until } = body
      const untilMs = await answerOf(pastOf(until, "until"))
      const fromMs = from === "now" ? from : await answerOf(pastOf(from, "from"))
      await answerOf(exclude(from, until, "from and until exclude each other"))
      await answerOf(exclude(given, from ?? until, "keys excludes from and until"))
      await known(parts, name)
      const isBadKeys = given !== undefined && (given.length === 0 || given.length > mostKeys || given.includes(""))
      await answerOf(exclude(isBadKeys, true, `keys must be 1 to ${mostKeys} texts that are not empty`))
      const keys = given && selectionOf(given)
      const words = [lookups === "today" ? "reenrich" : "rebuild", name]
      const shown = { from, until, ...limitOptions(body), keys: keys && "FILE", plan: isDryRun }
      return begin(parts, request, reply, {
        kind: isDryRun ? "plan" : "rebuild",
        command: commandText(words, shown),
        run: rebuilding(parts, { name, body, keys, fromMs, untilMs, isDryRun })
      })
    }
  )
}
const pauseRoute = (app: FastifyInstance, parts: OperationParts): void => {
  const { limits, system } = parts
  addRoute(
    app,
    "POST",
    `${path}/:name/rebuild/pause`,
    rebuildSchema("Pause a rebuild, in all processes", Until),
    async (request) => {
      const name = nameOf(request)
      const { until } = bodyOf(request, Until, limits)
      await known(parts, name)
      const build = await answerOf(pauseRebuild(system.database.sql, name, momentOf(until, "until")))
      return {
        command: commandText(["rebuild", name], { until, pause: true }),
        projection: name,
        build,
        state: "paused"
      }
    }
  )
}
const resumeRoute = (app: FastifyInstance, parts: OperationParts): void => {
  const { limits, system } = parts
  addRoute(
    app,
    "POST",
    `${path}/:name/rebuild/resume`,
    rebuildSchema("Let a paused rebuild go on in the processes that run it", Resume),
    async (request) => {
      const name = nameOf(request)
      const body = bodyOf(request, Resume, limits)
      await known(parts, name)
      const build = await answerOf(
        resumeRebuild(system.database.sql, name, limitsOf(body), momentOf(body.until, "until"))
      )
      const options = { until: body.until, ...limitOptions(body), resume: true }
      return { command: commandText(["rebuild", name], options), projection: name, build, state: "running" }
    }
  )
}
const cancelRoute = (app: FastifyInstance, parts: OperationParts): void => {
  const { limits, system } = parts
  addRoute(
    app,
    "POST",
    `${path}/:name/rebuild/cancel`,
    {
      ...rebuildSchema("Give a rebuild up and delete its build; build is null if there is none", Until, {
        dry_run: flag
      }),
      querystring: { type: "object", properties: { dryRun } }
    },
    async (request) => {
      const name = nameOf(request)
      const isDryRun = isTrue(parametersOf(request, ["dryRun"]).dryRun, "dryRun")
      const { until } = bodyOf(request, Until, limits)
      await known(parts, name)
      const untilMs = momentOf(until, "until")
      const build = (await answerOf(cancelRebuild(system.database.sql, name, untilMs, isDryRun))) ?? null
      const command = commandText(["rebuild", name], { until, cancel: true, plan: isDryRun })
      return { command, projection: name, build, state: isDryRun ? "unchanged" : "cancelled", dry_run: isDryRun }
    }
  )
}

/** Adds the routes of rebuilds. */
export const rebuilds = (app: FastifyInstance, parts: OperationParts): void => {
  for (const add of [rebuildRoute, pauseRoute, resumeRoute, cancelRoute]) add(app, parts)
}
