// The routes of projections: their builds, and diff, promote and retire.
import * as Effect from "effect/Effect"
import type { FastifyInstance } from "fastify"
import { diff } from "../../system/diff.ts"
import { diffJson } from "../../system/diff-json.ts"
import { readProjectionList } from "../../system/projection-list.ts"
import { promote } from "../../system/promote.ts"
import { promoteAndCorrect, promotedJson } from "../../system/promote-and-correct.ts"
import { retire } from "../../system/retire.ts"
import { jsonSchemaOf } from "../http/openapi.ts"
import { begin, jobSchema, known } from "./projection-jobs.ts"
import { rebuilds } from "./rebuilds.ts"
import { addRoute, answerOf, bodyOf, commandText, isTrue, type OperationParts, parametersOf } from "./parts.ts"
import { DiffBody, exclude, nameOf, projection, Promote, Retire, timeoutOf, times } from "./projection-requests.ts"
import { described, flag, integer, list, object } from "../http/json-schema.ts"
import { command, difference, dryRun, promoted, responses } from "./schemas.ts"

const path = "/v1/operations/projections"

const listed = async ({ jobs, system }: OperationParts, name?: string) =>
  (await answerOf(readProjectionList(system.database.sql, name))).map((one) => ({
    name: one.name,
    live: one.live,
    job: jobs.runningFor(one.name),
    builds: one.builds.map(({ copyOf, rebuild, ...build }) => ({
      ...build,
      copy_of: copyOf,
      rebuild: rebuild && {
        state: rebuild.state,
        rate: rebuild.rate,
        max_live_lag: rebuild.maxLiveLagMs === null ? null : rebuild.maxLiveLagMs / 1000
      }
    }))
  }))
const listRoute = (app: FastifyInstance, parts: OperationParts): void => {
  addRoute(
    app,
    "GET",
    path,
    {
      summary: "The projections with their builds, and how far each is",
      response: responses({ 200: object({ projections: list(projection) }) }, 503)
    },
    async () => ({ projections: await listed(parts) })
  )
}
const oneRoute = (app: FastifyInstance, parts: OperationParts): void => {
  const { jobs } = parts
  addRoute(
    app,
    "GET",
    `${path}/:name`,
    { summary: "One projection with its builds", response: responses({ 200: projection }, 404, 503) },
    async (request) => {
      await known(parts, nameOf(request))
      const [found] = await listed(parts, nameOf(request))
      return found ?? { name: nameOf(request), live: null, job: jobs.runningFor(nameOf(request)), builds: [] }
    }
  )
}
const diffRoute = (app: FastifyInstance, parts: OperationParts): void => {
  const { limits, system } = parts
  const { application, database, log, on } = system
  addRoute(
    app,
    "POST",
    `${path}/:name/diff`,
    jobSchema("Compare a build with the live one, row by row", ["diff"], DiffBody, difference, false),
    async (request, reply) => {
      const name = nameOf(request)
      const { exact = false, samples = 5, timeoutMs: given, with: build } = bodyOf(request, DiffBody, limits)
      const timeoutMs = await answerOf(timeoutOf(given, times.diff))
      await answerOf(exclude(samples < 0 || samples > 100, true, `samples is ${samples}; it must be from 0 to 100`))
      await known(parts, name)
      const options = {
        with: build,
        exact,
        samples: samples === 5 ? undefined : samples,
        timeout: given && `${given}ms`
      }
      return begin(parts, request, reply, {
        kind: "diff",
        command: commandText(["diff", name], options),
        run: () =>
          Effect.map(
            diff({ application, sql: database.sql, log, on }, { name, with: build, exact, samples, timeoutMs }),
            diffJson
          )
      })
    }
  )
}
const promoteRoute = (app: FastifyInstance, parts: OperationParts): void => {
  const { limits, system } = parts
  const { application, database, log, on } = system
  addRoute(
    app,
    "POST",
    `${path}/:name/promote`,
    jobSchema(
      "Put the candidate, or another build, in the place of the live one; rollback: the build before",
      ["promote"],
      Promote,
      promoted
    ),
    async (request, reply) => {
      const name = nameOf(request)
      const isDryRun = isTrue(parametersOf(request, ["dryRun"]).dryRun, "dryRun")
      const { build, publish, rollback = false, timeoutMs: given } = bodyOf(request, Promote, limits)
      const timeoutMs = await answerOf(timeoutOf(given, times.promote))
      await answerOf(exclude(rollback, build, "rollback and build exclude each other"))
      await answerOf(exclude(publish, isDryRun, "publish and dryRun exclude each other"))
      await known(parts, name)
      const options = { build, rollback, "dry-run": isDryRun, publish, timeout: given && `${given}ms` }
      return begin(parts, request, reply, {
        kind: "promote",
        command: commandText(["promote", name], options),
        run: (progress) => {
          const onStep = (step: string) => Effect.sync(() => progress({ step }))
          const context = { application, sql: database.sql, log, on, embeddedDir: database.embeddedDir, onStep }
          const asked = { name, build, rollback, dryRun: isDryRun, timeoutMs }
          return Effect.map(promoteAndCorrect(context, asked, publish !== undefined, promote), (result) =>
            JSON.stringify(promotedJson(name, result))
          )
        }
      })
    }
  )
}
const retireRoute = (app: FastifyInstance, parts: OperationParts): void => {
  const { limits, system } = parts
  addRoute(
    app,
    "POST",
    `${path}/:name/retire`,
    {
      summary: "Retire a build, or all builds whose version the configuration does not have",
      querystring: { type: "object", properties: { dryRun } },
      body: jsonSchemaOf(Retire),
      response: responses(
        {
          200: object(
            { command, dry_run: flag, builds: list(integer), dropped: flag, published: flag },
            { timers: described(integer, "timers and commands of it that waited and are deleted") }
          )
        },
        400,
        404,
        409,
        422,
        503
      )
    },
    async (request) => {
      const name = nameOf(request)
      const isDryRun = isTrue(parametersOf(request, ["dryRun"]).dryRun, "dryRun")
      const { build, drop = false } = bodyOf(request, Retire, limits)
      await known(parts, name)
      const asked = { name, version: build, drop, dryRun: isDryRun }
      const { versions, ...retired } = await answerOf(
        retire({ application: system.application, sql: system.database.sql, targets: system.targets }, asked)
      )
      const words = ["retire", name, ...(build === undefined ? [] : [String(build)])]
      return {
        command: commandText(words, { drop, "dry-run": isDryRun }),
        dry_run: isDryRun,
        builds: versions,
        ...retired
      }
    }
  )
}

/** Adds the routes of projections. */
export const projections = (app: FastifyInstance, parts: OperationParts): void => {
  const routes = [listRoute, oneRoute, rebuilds, diffRoute, promoteRoute, retireRoute]
  for (const add of routes) add(app, parts)
}
