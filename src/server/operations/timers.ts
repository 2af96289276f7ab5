// The routes of timers and commands of policies that wait or fail.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { FastifyInstance } from "fastify"
import { assertKnownNames } from "../../system/known-projection.ts"
import { discardTimers, listTimers, retryTimers, type TimerSelection } from "../../postgres/events/timer-decisions.ts"
import { readTimers } from "../../postgres/store/timer-status.ts"
import { jsonSchemaOf } from "../http/openapi.ts"
import { whole } from "../http/parameters.ts"
import { Problem } from "../http/problem.ts"
import { addRoute, answerOf, bodyOf, commandText, isTrue, type OperationParts, parametersOf } from "./parts.ts"
import { anyObject, described, flag, integer, list, nullable, object, oneOf, text, time } from "../http/json-schema.ts"
import { command, dryRun, responses } from "./schemas.ts"

const path = "/v1/operations/timers"
const most = { list: 50, lists: 1_000, preview: 10_000 }
const timer = object({
  id: text,
  state: oneOf("waiting", "due", "failing"),
  projection: text,
  timer: described(nullable(text), "null: the command was sent at once"),
  key: text,
  aggregate: text,
  stream: text,
  command: anyObject,
  due: time,
  next_try: time,
  failures: integer,
  reason: nullable(text)
})
const counts = described(
  object({ waiting: integer, due: integer, oldest_ms: nullable(integer), failing: integer }),
  "how many there are, whatever the filter: those that wait for their time, those that are due and for how long, and those of them that fail"
)
const Decision = Schema.Struct({
  ids: Schema.optional(Schema.Array(Schema.String)),
  projection: Schema.optional(Schema.String),
  aggregate: Schema.optional(Schema.String),
  all: Schema.optional(Schema.Boolean)
})

const listRoute = (app: FastifyInstance, { system }: OperationParts): void => {
  const { sql } = system.database
  addRoute(
    app,
    "GET",
    path,
    {
      summary: "Timers and sent commands that wait, are due, or fail, the next one first",
      querystring: {
        type: "object",
        properties: {
          projection: text,
          aggregate: text,
          failing: flag,
          limit: { type: "integer", default: most.list, maximum: most.lists }
        }
      },
      response: responses({ 200: object({ command, counts, timers: list(timer) }) }, 400, 404, 503)
    },
    async (request) => {
      const {
        aggregate,
        failing: asked,
        limit: given,
        projection
      } = parametersOf(request, ["projection", "aggregate", "failing", "limit"])
      const failing = isTrue(asked, "failing")
      const limit = whole(given, "limit", { least: 1, most: most.lists, otherwise: most.list })
      const found = await answerOf(
        Effect.gen(function* () {
          yield* assertKnownNames(sql, { projection, aggregate })
          const timers = yield* listTimers(sql, { ids: [], projection, aggregate, failing }, limit)
          return { counts: yield* readTimers(sql), timers }
        })
      )
      return { command: commandText(["timers", "list"], { projection, aggregate, failing, limit }), ...found }
    }
  )
}

/** Adds the routes of timers. */
export const timers = (app: FastifyInstance, parts: OperationParts): void => {
  const { limits, system } = parts
  const { sql } = system.database
  listRoute(app, parts)
  const decisions = [
    ["retry", "Try timers and commands that failed now", retryTimers],
    ["discard", "Delete timers and commands that wait or fail. They are never executed", discardTimers]
  ] as const
  for (const [verb, summary, change] of decisions)
    addRoute(
      app,
      "POST",
      `${path}/${verb}`,
      {
        summary,
        querystring: { type: "object", properties: { dryRun } },
        body: jsonSchemaOf(Decision),
        response: responses(
          { 200: object({ command, dry_run: flag, count: integer, ids: list(text) }) },
          400,
          404,
          409,
          422,
          503
        )
      },
      async (request) => {
        const isDryRun = isTrue(parametersOf(request, ["dryRun"]).dryRun, "dryRun")
        const { aggregate, all = false, ids = [], projection } = bodyOf(request, Decision, limits)
        if (!all && ids.length === 0 && projection === undefined && aggregate === undefined)
          throw new Problem(422, "invalid_operation", "no timers are named", 'send ids, a filter, or {"all": true}')
        const selection: TimerSelection = { ids, projection, aggregate, failing: isDryRun && verb === "retry" }
        await answerOf(assertKnownNames(sql, { projection, aggregate }))
        const done = await answerOf(
          isDryRun
            ? Effect.map(listTimers(sql, selection, most.preview), (found) => found.map(({ id }) => id))
            : change(sql, selection)
        )
        if (done.length === 0 && ids.length > 0)
          throw new Problem(
            409,
            "refused",
            verb === "retry"
              ? "no command that failed has one of these ids"
              : "no timer or command has one of these ids",
            "see GET /v1/operations/timers"
          )
        const words = ["timers", verb, ...(ids.length > 20 ? ["ID…"] : ids)]
        return {
          command: commandText(words, { projection, aggregate, all, "dry-run": isDryRun }),
          dry_run: isDryRun,
          count: done.length,
          ids: done
        }
      }
    )
}
