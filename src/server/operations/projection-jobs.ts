// What the routes of projections that start jobs have in common.
import type * as Schema from "effect/Schema"
import type { FastifyReply, FastifyRequest } from "fastify"
import { assertKnownProjection } from "../../system/known-projection.ts"
import { jsonSchemaOf } from "../http/openapi.ts"
import type { NewJob } from "./jobs.ts"
import { answerOf, jsonType, type OperationParts } from "./parts.ts"
import { nameOf } from "./projection-requests.ts"
import { described, oneOf } from "../http/json-schema.ts"
import { dryRun, jobOf, responses } from "./schemas.ts"

/** Fails with a `Problem` 404 if the database has no such projection. */
export const known = ({ system }: OperationParts, name: string) =>
  answerOf(assertKnownProjection(system.database.sql, name))
/** Starts a job, and answers with it. */
export const begin = async (
  { jobs }: OperationParts,
  request: FastifyRequest,
  reply: FastifyReply,
  job: Omit<NewJob, "by" | "subject">
) => {
  const started = await jobs.start({ ...job, subject: nameOf(request), by: request.principal.name })
  return reply
    .code(started.status)
    .header("location", `/v1/operations/jobs/${started.id}`)
    .type(jsonType)
    .send(started.json)
}
/** The schema of a route that starts a job. */
export const jobSchema = (
  summary: string,
  kinds: ReadonlyArray<string>,
  body: Schema.Top,
  result: Parameters<typeof jobOf>[1],
  isDry = true
) => ({
  summary,
  ...(isDry && { querystring: { type: "object", properties: { dryRun } } }),
  body: jsonSchemaOf(body),
  response: responses(
    {
      200: described(jobOf(oneOf(...kinds), result), "it has ended"),
      202: described(jobOf(oneOf(...kinds), result), "it runs; poll it at Location")
    },
    400,
    404,
    409,
    422,
    429,
    503,
    504
  )
})
