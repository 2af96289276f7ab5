// The routes of dead letters: groups by error, pages, one with its payload, and retry and discard with a dry run.
import * as Effect from "effect/Effect"
import type { FastifyInstance } from "fastify"
import * as DeadLetters from "../../system/dead-letters/dead-letters.ts"
import { groups, page, type PageEnd } from "../../system/dead-letters/pages.ts"
import { assertKnownProjection } from "../../system/known-projection.ts"
import { whole } from "../http/parameters.ts"
import { Problem } from "../http/problem.ts"
import { deadLetterDecisions } from "./dead-letter-decisions.ts"
import { type Filters, filterNames, filterProperties, leftOut, requestOf } from "./dead-letter-filters.ts"
import { addRoute, answerOf, commandText, namesOf, type OperationParts, parametersOf } from "./parts.ts"
import { anyObject, described, flag, integer, list, nullable, object, oneOf, text, time } from "../http/json-schema.ts"
import { unanswered } from "./problems.ts"
import { command, responses } from "./schemas.ts"

const path = "/v1/operations/dead-letters"
/** How many dead letters a page has by default and at most. */
const most = { page: 50, pages: 500 }

const statusParameter = described(
  text,
  `separated by commas: ${DeadLetters.deadLetterStatuses.join(", ")}; default: the open ones`
)

/** The command that lists the same: its own default leaves out those that a policy skipped. */
const listCommand = (options: Parameters<typeof commandText>[1]) =>
  commandText(["dlq", "list"], { ...options, status: options?.["status"] ?? DeadLetters.openStatuses.join(",") })
/** What a request that lists dead letters asks for. */
const listed = Effect.fnUntraced(function* (
  { system }: OperationParts,
  { status, ...filters }: Filters & { readonly status?: string },
  limit: number
) {
  const statuses = namesOf(status)
  const selection = yield* DeadLetters.selectionOf({
    ...requestOf(filters),
    ...(statuses !== undefined && { statuses }),
    limit
  })
  if (filters.projection !== undefined) yield* assertKnownProjection(system.database.sql, filters.projection)
  return selection
})

const encodeEnd = ({ failedMs, id, kind }: PageEnd) =>
  Buffer.from(JSON.stringify([failedMs, kind, id])).toString("base64url")
const endOf = (given: string | undefined): PageEnd | undefined => {
  if (given === undefined) return undefined
  try {
    const [failedMs, kind, id] = JSON.parse(Buffer.from(given, "base64url").toString()) as ReadonlyArray<unknown>
    const known = DeadLetters.kindNames.find((name) => name === kind)
    if (typeof failedMs === "number" && known !== undefined && typeof id === "string")
      return { failedMs, kind: known, id }
  } catch {
    // answered below
  }
  throw new Problem(
    400,
    "invalid_parameter",
    "the parameter after is not the next of a page",
    "send the next of the page before as it is, or leave after out for the first page"
  )
}

const deadLetter = described(
  object(
    { id: { anyOf: [integer, text] }, kind: oneOf(...DeadLetters.kindNames), status: text, error: text, message: text },
    {
      projection: text,
      version: described(integer, "the number of the build"),
      declared: described(integer, "the version that the code of the build declares"),
      live: described(flag, "whether the build is the live one"),
      topic: text,
      partition: integer,
      position: integer,
      key: nullable(text),
      thrown_at: described(nullable(text), "the place in the application's code where the error comes from"),
      attempts: integer,
      value: { description: "the payload, as text" },
      headers: anyObject,
      event_id: nullable(text),
      tenant: nullable(text),
      trace_id: nullable(text),
      event_time: nullable(time),
      failed_at: nullable(time),
      decided_by: nullable(text),
      decided_at: nullable(time)
    }
  ),
  "as millrace dlq list --json prints it; each kind has fields of its own"
)
const errorsRoute = (app: FastifyInstance, parts: OperationParts, context: DeadLetters.DeadLettersContext): void => {
  addRoute(
    app,
    "GET",
    `${path}/errors`,
    {
      summary: "Dead letters grouped by what failed and the error, root causes first",
      querystring: { type: "object", properties: { ...filterProperties, status: statusParameter } },
      response: responses(
        {
          200: object({
            command,
            groups: list(
              object({
                kind: oneOf(...DeadLetters.kindNames),
                failed_in: text,
                projection: nullable(text),
                build: described(nullable(integer), "the number of the projection's build"),
                live: described(nullable(flag), "whether it is the live build"),
                error: text,
                count: integer,
                keys: described(integer, "how many keys they have"),
                first_failed_at: time,
                last_failed_at: time,
                sample: object({ id: { anyOf: [integer, text] }, message: text }),
                waiting: described(integer, "how many others wait behind them because they have the same key"),
                waits: described(flag, "whether they wait behind others of their key; retry those")
              })
            ),
            partial: described(
              flag,
              "whether a kind has more than 200 groups, or 200,000 keys, so that counts are too low"
            ),
            left_out: leftOut
          })
        },
        400,
        404,
        409,
        503
      )
    },
    async (request) => {
      const parameters = parametersOf(request, [...filterNames, "status"])
      const found = await answerOf(
        Effect.flatMap(listed(parts, parameters, 1), (selection) => groups(context, selection))
      )
      return {
        command: listCommand(parameters),
        groups: found.groups.map((group) => ({
          kind: group.kind,
          failed_in: group.failedIn,
          projection: group.projection ?? null,
          build: group.build ?? null,
          live: group.live ?? null,
          error: group.error,
          count: group.count,
          keys: group.keys,
          first_failed_at: new Date(group.firstFailedAt).toISOString(),
          last_failed_at: new Date(group.lastFailedAt).toISOString(),
          sample: group.sample,
          waiting: group.waiting,
          waits: group.waits
        })),
        partial: found.isPartial,
        left_out: found.leftOut
      }
    }
  )
}
const pageRoute = (app: FastifyInstance, parts: OperationParts, context: DeadLetters.DeadLettersContext): void => {
  addRoute(
    app,
    "GET",
    path,
    {
      summary: "Dead letters, the newest first, in pages",
      querystring: {
        type: "object",
        properties: {
          ...filterProperties,
          status: statusParameter,
          limit: { type: "integer", default: most.page, maximum: most.pages },
          after: described(text, "the next of the page before")
        }
      },
      response: responses(
        { 200: object({ command, dead_letters: list(deadLetter), next: nullable(text), left_out: leftOut }) },
        400,
        404,
        409,
        422,
        503
      )
    },
    async (request) => {
      const { after, limit: given, ...filters } = parametersOf(request, [...filterNames, "status", "limit", "after"])
      const limit = whole(given, "limit", { least: 1, most: most.pages, otherwise: most.page })
      const end = endOf(after)
      const found = await answerOf(
        Effect.flatMap(listed(parts, filters, limit), (selection) => page(context, selection, end))
      )
      return {
        command: listCommand({ ...filters, limit }),
        dead_letters: found.deadLetters.map(({ details }) => details),
        next: found.next === undefined ? null : encodeEnd(found.next),
        left_out: found.leftOut
      }
    }
  )
}
const oneRoute = (app: FastifyInstance, _: OperationParts, context: DeadLetters.DeadLettersContext): void => {
  addRoute(
    app,
    "GET",
    `${path}/:id`,
    {
      summary: "All that is known of one dead letter: payload, headers, error, position and trace",
      response: responses({ 200: object({ command, dead_letter: deadLetter }) }, 404, 409, 422, 503)
    },
    async (request) => {
      const { id } = request.params as { readonly id: string }
      const asked = { ids: [id], statuses: DeadLetters.deadLetterStatuses, limit: 1 }
      const { deadLetters, leftOut } = await answerOf(
        Effect.flatMap(DeadLetters.selectionOf(asked), (selection) => DeadLetters.list(context, selection))
      )
      const [found] = deadLetters
      if (found !== undefined) return { command: commandText(["dlq", "show", id]), dead_letter: found.details }
      const [away] = leftOut
      if (away !== undefined) throw unanswered(away.reason)
      throw new Problem(
        404,
        "unknown_name",
        `there is no dead letter ${JSON.stringify(id)}`,
        "use an id of GET /v1/operations/dead-letters"
      )
    }
  )
}

/** Adds the routes of dead letters. */
export const deadLetters = (app: FastifyInstance, parts: OperationParts): void => {
  const { system } = parts
  const context: DeadLetters.DeadLettersContext = {
    sql: system.database.sql,
    openLog: Effect.succeed(system.log),
    bridgeRules: undefined
  }
  errorsRoute(app, parts, context)
  pageRoute(app, parts, context)
  oneRoute(app, parts, context)
  deadLetterDecisions(app, parts, context)
}
