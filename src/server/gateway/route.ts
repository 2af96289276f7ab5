// The route of the gateway, `POST /v1/events`: reads the HTTP request, calls `ingest`, and writes the response.
import type { Readable } from "node:stream"
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify"
import { namedTenant, wrongTenant } from "../access/access.ts"
import type { Principal } from "../access/principal.ts"
import { textOf, type BodyMemory } from "../http/body.ts"
import type { Catalog, CatalogTopic } from "../http/catalog.ts"
import { ingest, type IngestParts, type Post } from "./ingest.ts"
import { commandAdvice } from "./validate.ts"
import { postSchema } from "../http/openapi.ts"
import { headerText, mediaTypeOf, single, tenantHeader } from "../http/parameters.ts"
import { adviceFor } from "../../text/similar-names.ts"
import { pressureProblem } from "../http/pressure.ts"
import { Problem } from "../http/problem.ts"
import { traceFor } from "../http/request.ts"

/** The media types of bodies, and how each is split into events. */
const forms: ReadonlyMap<string, Post["form"]> = new Map([
  ["application/json", "json"],
  ["application/x-ndjson", "ndjson"],
  ["application/ndjson", "ndjson"],
  ["application/jsonl", "ndjson"],
  ["application/x-jsonlines", "ndjson"]
])

const unsupported = (type: string | undefined): Problem =>
  new Problem(
    415,
    "unsupported_media_type",
    type === undefined ? "the request has no Content-Type" : `Content-Type ${type} is not supported`,
    "send application/json (one event, or an array) or application/x-ndjson (one event per line), in UTF-8"
  )

const formOf = (request: FastifyRequest): Post["form"] => {
  const type = request.headers["content-type"]
  const form = forms.get(mediaTypeOf(type) ?? "")
  if (form === undefined) throw unsupported(type)
  return form
}

/** The topic that a request names, if it names one. Throws a `Problem`: 404 if it does not exist, 403 if projections or commands write it. */
const namedTopic = (
  catalog: Catalog,
  name: string | undefined,
  { tenant }: Pick<Principal, "tenant">
): CatalogTopic | undefined => {
  if (name === undefined) return undefined
  const entry = catalog.topics.get(name)
  const writable = [...catalog.topics.values()]
    .filter(({ topic, writtenBy }) => writtenBy.length === 0 && (tenant === undefined || topic.compacted !== true))
    .map(({ topic }) => topic.name)
  if (entry === undefined) {
    throw new Problem(
      404,
      "unknown_topic",
      `the application has no topic ${JSON.stringify(name)}`,
      adviceFor(name, writable) ?? "declare a topic"
    )
  }
  if (entry.aggregate !== undefined)
    throw new Problem(
      403,
      "aggregate_topic",
      `topic ${name} has the events of an aggregate, which its commands append`,
      commandAdvice(entry.aggregate)
    )
  if (entry.writtenBy.length > 0) {
    const message = `topic ${name} is derived: only ${entry.writtenBy.join(" and ")} may write it`
    throw new Problem(
      403,
      "derived_topic",
      message,
      `send the events that it is derived from, to one of ${writable.join(", ")}`
    )
  }
  return entry
}

const versionOf = (header: string | undefined): number | undefined => {
  if (header === undefined) return undefined
  if (/^[1-9]\d{0,5}$/.test(header)) return Number(header)
  throw new Problem(
    400,
    "invalid_parameter",
    `the header schema-version is ${JSON.stringify(header)}; it must be a version`,
    "send a whole number, at least 1, or leave the header out"
  )
}

const isMinimal = (request: FastifyRequest, results: string | undefined): boolean => {
  if (results === undefined) return /(^|[,;\s])return\s*=\s*"?minimal/i.test(String(request.headers.prefer ?? ""))
  if (results === "errors" || results === "all") return results === "errors"
  throw new Problem(
    400,
    "invalid_parameter",
    `the parameter results is ${JSON.stringify(results)}`,
    "use results=all or results=errors"
  )
}

const logStalled = (ms: number): Problem =>
  pressureProblem({
    code: "log_unavailable",
    message: `the log has not answered for ${Math.floor(ms / 1_000)} s; nothing was appended`,
    try: "send the request again after Retry-After seconds"
  })

/** The problem of a request with the tenant header of commands, which sets no tenant of events; undefined if it names the tenant of the credential, or is missing. */
const tenantHeaderProblem = (request: FastifyRequest): Problem | undefined => {
  const named = namedTenant(request)
  if (named === undefined) return undefined
  if (request.principal.tenant !== undefined) return wrongTenant(request.principal, named)
  return new Problem(
    400,
    "invalid_parameter",
    `the header ${tenantHeader} is for commands, and events do not get their tenant from it`,
    "leave it out, and send the tenant in the field of each event that its topic declares as tenant"
  )
}

/** The longest token that is in a header, too. */
const mostTokenHeader = 2_048

/** Adds `POST /v1/events`. */
export const gateway = (
  app: FastifyInstance,
  parts: IngestParts & { readonly catalog: Catalog; readonly held: BodyMemory }
): void => {
  const { catalog, held, limits } = parts
  app.removeAllContentTypeParsers()
  app.addContentTypeParser("*", async (request: FastifyRequest, payload: Readable) => {
    const isLines = formOf(request) === "ndjson"
    request.share = held.share()
    return textOf(payload, request.headers, request.share, limits, isLines)
  })
  const onRequest = (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void): void => {
    const problem = tenantHeaderProblem(request)
    if (problem !== undefined) return done(problem)
    const { stalledMs } = parts.appender
    if (stalledMs !== undefined) return done(logStalled(stalledMs))
    // also if the client disconnects before its body is complete
    reply.raw.once("close", () => request.share?.release())
    reply.header("x-content-type-options", "nosniff")
    done()
  }
  // helmet's headers are for pages, and would take an eighth of the time of a small request
  app.post(
    "/v1/events",
    { schema: postSchema(catalog), config: { scope: "ingest" }, onRequest, helmet: false },
    async (request, reply) => {
      const query = request.query as Readonly<Record<string, unknown>>
      const minimal = isMinimal(request, single(query["results"], "results"))
      const trace = traceFor(request)
      const answer = await ingest(parts, {
        text: typeof request.body === "string" ? request.body : "",
        form: request.body === undefined ? "json" : formOf(request),
        traceId: trace.traceId,
        minimal,
        request: {
          entry: namedTopic(catalog, single(query["topic"], "topic"), request.principal),
          version: versionOf(headerText(request.headers, "schema-version")),
          traceparent: trace.traceparent,
          tenant: request.principal.tenant,
          now: Date.now()
        }
      })
      if (answer.retryAfter !== undefined) reply.header("retry-after", answer.retryAfter)
      // proxies limit the size of headers; the body has it in any case
      if (answer.token !== undefined && answer.token.length < mostTokenHeader)
        reply.header("millrace-token", answer.token)
      if (minimal && request.headers.prefer !== undefined) reply.header("preference-applied", "return=minimal")
      return reply.code(answer.status).type("application/json; charset=utf-8").send(answer.body)
    }
  )
}
