// The routes for inspecting the log: the application's topics, and a page of one partition.
import * as Effect from "effect/Effect"
import type { FastifyInstance } from "fastify"
import { isRetry } from "../../dead-letter/retry-record.ts"
import { traceIdOf } from "../../log/envelope.ts"
import type { LogRecord } from "../../log/log.ts"
import { withoutTimeMarks } from "../../log/time-mark.ts"
import { tenantFor } from "../access/access.ts"
import { described, flag, integer, list, nullable, object, text } from "../http/json-schema.ts"
import { refusals } from "../http/openapi.ts"
import { single, whole } from "../http/parameters.ts"
import { knownTopic, readProblem } from "./problems.ts"
import { boundsOf, type StreamParts } from "./routes.ts"

const reading = { scope: "read" } as const
const pageBytes = 1024 * 1024
const pageRecords = 1_000

/** The JSON text of a record. Its value is the text from the log, so that no digit of a number is lost. */
const recordJson = ({ value, ...record }: LogRecord): string => {
  const head = JSON.stringify({
    partition: record.partition,
    position: record.position,
    key: record.key,
    event_time: record.eventTime,
    appended_at: record.appendedAt,
    event_id: record.eventId,
    tenant: record.tenant,
    trace_id: traceIdOf(record.traceparent),
    traceparent: record.traceparent,
    schema_version: record.schemaVersion,
    headers: record.headers
  })
  return `${head.slice(0, -1)},"value":${value ?? "null"}}`
}

/** Adds `GET /v1/topics` and `GET /v1/topics/:topic/records`. */
export const records = (app: FastifyInstance, parts: StreamParts): void => {
  const { catalog, context, log } = parts
  app.get("/v1/topics", { schema: topicsSchema, config: reading }, async () => ({
    topics: [...catalog.topics.values()].map(({ readBy, topic, writtenBy }) => ({
      name: topic.name,
      compacted: topic.compacted === true,
      types: topic.types,
      read_by: readBy,
      written_by: writtenBy
    }))
  }))
  app.get("/v1/topics/:topic/records", { schema: pageSchema, config: reading }, async (request, reply) => {
    const topic = knownTopic(catalog, (request.params as { readonly topic: string }).topic)
    const query = request.query as Readonly<Record<string, unknown>>
    const bounds = await boundsOf(parts, topic)
    const { end, partition, start } =
      bounds[whole(query["partition"], "partition", { most: bounds.length - 1, otherwise: 0 })]!
    const from = whole(query["from"], "from", { most: end, otherwise: start })
    const limit = whole(query["limit"], "limit", { most: pageRecords, otherwise: 100 })
    const batch = await Effect.runPromiseWith(context)(
      Effect.match(log.read(topic, partition, from, { maxBytes: pageBytes }), {
        onSuccess: (batch) => batch,
        onFailure: (error) => error
      })
    )
    if ("_tag" in batch) throw readProblem(batch)
    const tenant = tenantFor(request, single(query["tenant"], "tenant"))
    // a retry record is a copy of an earlier record
    const records = withoutTimeMarks(batch.records).filter(
      (record) => !isRetry(record) && (tenant === undefined || record.tenant === tenant)
    )
    const page = records.slice(0, limit)
    // the position after the last record of the page, or after all that was read
    const next = page.length === records.length ? batch.next : records[page.length]!.position
    const head = JSON.stringify({ topic, partition, start, end: batch.end, next })
    const body = `${head.slice(0, -1)},"records":[${page.map(recordJson).join(",")}]}`
    return reply.type("application/json; charset=utf-8").send(body)
  })
}

const topicsSchema = {
  tags: ["streams"],
  summary: "The application's topics",
  response: {
    200: described(
      object({
        topics: list(
          object(
            {
              name: text,
              compacted: flag,
              read_by: described(list(text), "the projections that read it"),
              written_by: described(list(text), "the projections that publish to it")
            },
            { types: described(list(text), "the types of its events, if it has any") }
          )
        )
      }),
      "the topics"
    )
  }
}
const record = object(
  {
    partition: integer,
    position: integer,
    key: nullable(text),
    event_time: described(integer, "epoch milliseconds"),
    appended_at: described(integer, "when the log stored it, epoch milliseconds; not above 0 if that is not known"),
    headers: { type: "object", additionalProperties: text },
    value: described({}, "JSON; null deletes the key of a compacted topic")
  },
  { event_id: text, tenant: text, trace_id: text, traceparent: text, schema_version: integer }
)
const pageSchema = {
  tags: ["streams"],
  summary: "A page of records of one partition",
  querystring: {
    type: "object",
    properties: {
      partition: { type: "integer", default: 0 },
      from: { type: "integer", description: "Default: the first position that the partition still has" },
      tenant: { type: "string", description: "only records of this tenant; default: that of the credential" },
      limit: { type: "integer", default: 100, maximum: pageRecords }
    }
  },
  response: {
    200: described(
      object({
        topic: text,
        partition: integer,
        start: described(integer, "the first position that the partition still has"),
        end: described(integer, "the position that its next record gets"),
        next: described(integer, "`from` of the next page"),
        records: list(record)
      }),
      "a page"
    ),
    ...refusals({
      400: "a parameter that cannot be read",
      403: "the credential belongs to another tenant",
      404: "the application has no such topic",
      410: "the log no longer has the position",
      503: "the log does not answer, or does not have the topic yet"
    })
  }
}
