// What the routes of projections that start jobs have in common.
import type * as Schema from "effect/Schema"
import type { FastifyReply, FastifyRequest } from "fastify"
import { assertKnownProjection } from "../../system/known-projection.ts"
import { jsonSchemaOf } from "../http/openapi.ts"
import type { NewJob } from "./jobs.ts"
import { answerOf, type OperationParts, startJob } from "./parts.ts"
import { nameOf } from "./projection-requests.ts"
import { dryRun, jobAnswers, responses } from "./schemas.ts"

/** Fails with a `Problem` 404 if the database has no such projection. */
export const known = ({ system }: OperationParts, name: string) =>
  answerOf(assertKnownProjection(system.database.sql, name))
/** Starts a job about the projection in the path, and answers with it. */
export const begin = (
  parts: OperationParts,
  request: FastifyRequest,
  reply: FastifyReply,
  job: Omit<NewJob, "by" | "subject">
) => startJob(parts, request, reply, { ...job, subject: nameOf(request) })
/** The schema of a route that starts a job. */
export const jobSchema = (
  summary: string,
  kinds: ReadonlyArray<string>,
  body: Schema.Top,
  result: Parameters<typeof jobAnswers>[1],
  isDry = true
) => ({
  summary,
  ...(isDry && { querystring: { type: "object", properties: { dryRun } } }),
  body: jsonSchemaOf(body),
  response: responses(jobAnswers(kinds, result), 400, 404, 409, 422, 429, 503, 504)
})
