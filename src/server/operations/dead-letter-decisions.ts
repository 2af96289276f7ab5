// The routes that retry and discard dead letters, one or many, with a dry run.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { FastifyInstance, FastifyRequest } from "fastify"
import * as DeadLetters from "../../system/dead-letters/dead-letters.ts"
import { assertKnownProjection } from "../../system/known-projection.ts"
import { jsonSchemaOf } from "../http/openapi.ts"
import { Problem } from "../http/problem.ts"
import { type Filters, leftOut, requestOf } from "./dead-letter-filters.ts"
import {
  addRoute,
  answerOf,
  assertCount,
  bodyOf,
  commandText,
  isTrue,
  namesOf,
  type OperationParts,
  parametersOf
} from "./parts.ts"
import { anyObject, described, flag, integer, list, object, text } from "../http/json-schema.ts"
import { command, dryRun, responses } from "./schemas.ts"

const path = "/v1/operations/dead-letters"
/** How many dead letters of each kind a request decides about by default, and at most. */
const most = { bulk: 1_000, bulks: 100_000 }
/** How long a retry waits for running processes to process what it sent, in milliseconds. */
const outcomeMs = 5_000
const bulkProperties = { command, dry_run: flag, left_out: leftOut }
/** What a dry run answers. */
const dryRunProperties = {
  count: described(integer, "of a dry run: how many it is about"),
  ids: list({ anyOf: [integer, text] }),
  more: described(integer, "of a dry run: how many others fit, because of the limit")
}

const Bulk = Schema.Struct({
  ids: Schema.optional(Schema.Array(Schema.Union([Schema.String, Schema.Int]))),
  kind: Schema.optional(Schema.String),
  projection: Schema.optional(Schema.String),
  build: Schema.optional(Schema.Int),
  subscription: Schema.optional(Schema.String),
  target: Schema.optional(Schema.String),
  bridge: Schema.optional(Schema.String),
  rule: Schema.optional(Schema.String),
  topic: Schema.optional(Schema.String),
  key: Schema.optional(Schema.String),
  error: Schema.optional(Schema.String),
  since: Schema.optional(Schema.String),
  status: Schema.optional(Schema.String),
  all: Schema.optional(Schema.Boolean),
  limit: Schema.optional(Schema.Int)
})

const Outcome = Schema.Struct({ ids: Schema.Array(Schema.Int) })
/** What became of dead letters of projections that were retried. */
const outcomeProperties = {
  processed: described(integer, "of those of projections, how many were processed within 5 seconds"),
  behind: described(
    integer,
    "how many that waited behind these, for their keys, were processed after them; of a dry run: how many would follow"
  ),
  failed_again: integer,
  failed: described(list(anyObject), "some of those that failed again: id, error, message"),
  late: integer,
  pending: described(
    list(integer),
    "the ids of those that are not processed yet: POST /v1/operations/dead-letters/outcome says later what became of them"
  ),
  not_run: described(
    list(object({ build: text, count: integer, try: text })),
    "builds that no process runs: the retries of so many dead letters wait in the log until one does"
  )
}
const outcomeFields = ({ behind, failed, failedAgain, late, pending, processed }: DeadLetters.RetryOutcome) => ({
  processed,
  behind,
  failed_again: failedAgain,
  failed,
  late,
  pending
})

/** What a request that decides about dead letters asks for. */
const bulkOf = ({ limits, system }: OperationParts, request: FastifyRequest, verb: "retry" | "discard") => {
  const parameters = parametersOf(request, ["dryRun"])
  const isDryRun = isTrue(parameters.dryRun, "dryRun")
  const { all = false, build, ids = [], limit = most.bulk, status, ...filters } = bodyOf(request, Bulk, limits)
  assertCount("limit", limit, most.bulks)
  const given = Object.fromEntries(
    Object.entries({ ...filters, build: build?.toString() }).filter(([, value]) => value !== undefined)
  ) as Filters
  const texts = ids.map(String)
  const words = ["dlq", verb, ...(texts.length > 20 ? ["ID…"] : texts)]
  const statuses = namesOf(status)
  const shown = {
    ...given,
    ...(status !== undefined && { status }),
    all,
    ...(limit !== most.bulk && { limit }),
    "dry-run": isDryRun
  }
  const selection = Effect.gen(function* () {
    const selection = yield* DeadLetters.bulkSelectionOf({ ...requestOf(given), ids: texts, statuses, all, limit })
    if (given.projection !== undefined) yield* assertKnownProjection(system.database.sql, given.projection)
    return selection
  })
  return { isDryRun, ids: texts, selection, command: commandText(words, shown) }
}
const preview = async (
  context: DeadLetters.DeadLettersContext,
  verb: "retry" | "discard",
  { command, selection }: ReturnType<typeof bulkOf>
) => {
  const { behind, found } = await answerOf(
    Effect.gen(function* () {
      const found = yield* DeadLetters.preview(context, yield* selection, verb)
      return { found, behind: verb === "retry" ? yield* DeadLetters.countBehind(context, found) : undefined }
    })
  )
  return {
    command,
    dry_run: true,
    count: found.deadLetters.length,
    ids: found.deadLetters.map(({ id }) => id),
    more: found.beyondLimit,
    ...(behind !== undefined && { behind }),
    left_out: found.leftOut
  }
}
const assertDone = (done: number, refused: number, ids: ReadonlyArray<string>, verb: string) => {
  if (done > 0 || refused > 0 || ids.length === 0) return
  throw new Problem(
    409,
    "refused",
    `none of these dead letters is open and can be ${verb}`,
    `see GET /v1/operations/dead-letters/${encodeURIComponent(ids[0]!)}`
  )
}
const bulkSchema = (summary: string, properties: Parameters<typeof object>[1]) => ({
  summary,
  querystring: { type: "object", properties: { dryRun } },
  body: jsonSchemaOf(Bulk),
  response: responses({ 200: object(bulkProperties, { ...dryRunProperties, ...properties }) }, 400, 404, 409, 422, 503)
})
const retryRoute = (app: FastifyInstance, parts: OperationParts, context: DeadLetters.DeadLettersContext): void => {
  addRoute(
    app,
    "POST",
    `${path}/retry`,
    bulkSchema("Process dead letters again: those with ids, those that fit a filter, or all open ones", {
      retried: described(integer, "how many were sent again"),
      refused: described(list(anyObject), "those that are still refused, and stay as they are"),
      ...outcomeProperties,
      not_tried: described(integer, "how many others fit that were not tried, because of the limit"),
      failures: described(list(text), "what ended the retry of a kind before its last one")
    }),
    async (request) => {
      const asked = bulkOf(parts, request, "retry")
      if (asked.isDryRun) return preview(context, "retry", asked)
      const ids: Array<number> = []
      const { outcome, result, waiting } = await answerOf(
        Effect.gen(function* () {
          const selection = yield* asked.selection
          const result = yield* DeadLetters.retry(context, selection, request.principal.name, (kind, sent) => {
            if (kind === "projection") ids.push(...sent.map(({ id }) => Number(id)))
          })
          const outcome = yield* DeadLetters.awaitOutcome(context, ids, outcomeMs)
          return { result, outcome, waiting: yield* DeadLetters.waitingRetries(context, ids) }
        })
      )
      assertDone(result.retried, result.refused.length, asked.ids, "retried")
      return {
        command: asked.command,
        dry_run: false,
        retried: result.retried,
        refused: result.refused,
        // without an outcome nothing was processed yet
        ...(outcome ? outcomeFields(outcome) : ids.length > 0 && { pending: ids }),
        ...(waiting.length > 0 && { not_run: waiting }),
        not_tried: result.notTried,
        left_out: result.leftOut,
        failures: result.failures.map(({ message }) => message)
      }
    }
  )
}
const outcomeRoute = (app: FastifyInstance, parts: OperationParts, context: DeadLetters.DeadLettersContext): void => {
  addRoute(
    app,
    "POST",
    `${path}/outcome`,
    {
      summary: "What became of dead letters of projections that were retried, by their ids. It changes nothing",
      body: jsonSchemaOf(Outcome),
      response: responses(
        {
          200: object({
            waiting: described(integer, "how many of the pending ones a running process is about to process"),
            ...outcomeProperties
          })
        },
        400,
        422,
        503
      )
    },
    async (request) => {
      parametersOf(request, [])
      const { ids } = bodyOf(request, Outcome, parts.limits)
      const { outcome, waiting } = await answerOf(
        Effect.gen(function* () {
          const outcome = yield* DeadLetters.retryOutcome(context, ids)
          return { outcome, waiting: yield* DeadLetters.waitingRetries(context, outcome.pending) }
        })
      )
      return { waiting: outcome.waiting, ...outcomeFields(outcome), not_run: waiting }
    }
  )
}
const discardRoute = (app: FastifyInstance, parts: OperationParts, context: DeadLetters.DeadLettersContext): void => {
  addRoute(
    app,
    "POST",
    `${path}/discard`,
    bulkSchema("Decide that dead letters will not be processed. They are kept", {
      discarded: integer,
      not_discarded: described(integer, "how many others fit, because of the limit")
    }),
    async (request) => {
      const asked = bulkOf(parts, request, "discard")
      if (asked.isDryRun) return preview(context, "discard", asked)
      const { discarded, leftOut, notDiscarded } = await answerOf(
        Effect.flatMap(asked.selection, (selection) => DeadLetters.discard(context, selection, request.principal.name))
      )
      assertDone(discarded, 0, asked.ids, "discarded")
      return {
        command: asked.command,
        dry_run: false,
        discarded,
        not_discarded: notDiscarded,
        left_out: leftOut
      }
    }
  )
}

/** Adds the routes that decide about dead letters. */
export const deadLetterDecisions = (
  app: FastifyInstance,
  parts: OperationParts,
  context: DeadLetters.DeadLettersContext
): void => {
  retryRoute(app, parts, context)
  outcomeRoute(app, parts, context)
  discardRoute(app, parts, context)
}
