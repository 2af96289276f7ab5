// The routes for inspecting the log: the application's topics, and a page of one partition.
import type { FastifyInstance, FastifyRequest } from "fastify"
import type { LogRecord } from "../../log/log.ts"
import { partitionOf } from "../../model/partitioner.ts"
import { adviceFor } from "../../text/similar-names.ts"
import { shown } from "../../text/text.ts"
import { tenantFor } from "../access/access.ts"
import type { CatalogTopic } from "../http/catalog.ts"
import { invalidParameter } from "../http/filters.ts"
import { described, flag, integer, list, nullable, object, text } from "../http/json-schema.ts"
import { refusals } from "../http/openapi.ts"
import { single, whole } from "../http/parameters.ts"
import { knownTopic } from "./problems.ts"
import { storedSince, timeOf } from "./position.ts"
import { mostSearched, readPage } from "./record-pages.ts"
import { recordJson, recordSchema } from "./record-json.ts"
import { boundsOf, type StreamParts } from "./routes.ts"
import { jsonOf } from "./values.ts"

const reading = { scope: "read" } as const
const pageRecords = 1_000

/** Whether records are of an event type. Throws a `Problem` 400 if no record of the topic ever is. */
const isOfType = ({ topic }: CatalogTopic, type: string): ((record: LogRecord) => boolean) => {
  if (topic.types?.includes(type) !== true)
    throw invalidParameter(
      topic.types === undefined
        ? `the parameter type is ${shown(type)}, and the values of ${topic.name} have no event types`
        : `the parameter type is ${shown(type)}, which no event of ${topic.name} has`,
      (topic.types && adviceFor(type, topic.types)) ?? "leave it out"
    )
  return (record) => {
    const value = jsonOf(record)
    return typeof value === "object" && value !== null && "type" in value && value.type === type
  }
}
/** Which records a request wants; undefined: all. Throws a `Problem` for a parameter that cannot be read. */
const wantsOf = (request: FastifyRequest, topic: CatalogTopic, key: string | undefined) => {
  const query = request.query as Readonly<Record<string, unknown>>
  const tenant = tenantFor(request, single(query["tenant"], "tenant"))
  const type = single(query["type"], "type")
  const filters: Array<(record: LogRecord) => boolean> = []
  if (tenant !== undefined) filters.push((record) => record.tenant === tenant)
  if (key !== undefined) filters.push((record) => record.key === key)
  if (type !== undefined) filters.push(isOfType(topic, type))
  return filters.length === 0 ? undefined : (record: LogRecord) => filters.every((wants) => wants(record))
}
/** Whether a page has the newest records first. Throws a `Problem` 400. */
const isNewestFirst = (order: string | undefined): boolean => {
  if (order === undefined || order === "asc") return false
  if (order === "desc") return true
  throw invalidParameter(`the parameter order is ${shown(order)}`, "use asc or desc")
}

/** Adds `GET /v1/topics` and `GET /v1/topics/:topic/records`. */
export const records = (app: FastifyInstance, parts: StreamParts): void => {
  const { catalog } = parts
  app.get("/v1/topics", { schema: topicsSchema, config: reading }, async () => ({
    topics: [...catalog.topics.values()].map(({ aggregate, readBy, topic, writtenBy }) => ({
      name: topic.name,
      compacted: topic.compacted === true,
      aggregate: aggregate !== undefined,
      key: topic.keyField ?? null,
      types: topic.types,
      read_by: readBy,
      written_by: writtenBy
    }))
  }))
  app.get("/v1/topics/:topic/records", { schema: pageSchema, config: reading }, async (request, reply) => {
    const topic = knownTopic(catalog, (request.params as { readonly topic: string }).topic)
    const query = request.query as Readonly<Record<string, unknown>>
    const key = single(query["key"], "key")
    const wants = wantsOf(request, catalog.topics.get(topic)!, key)
    const isBackwards = isNewestFirst(single(query["order"], "order"))
    const limit = whole(query["limit"], "limit", { most: pageRecords, otherwise: 100 })
    const all = await boundsOf(parts, topic)
    const usual = key === undefined ? 0 : partitionOf(key, all.length)
    const bounds = all[whole(query["partition"], "partition", { most: all.length - 1, otherwise: usual })]!
    const { end, partition, start } = bounds
    const time = timeOf(single(query["from"], "from") ?? "")
    const from =
      time !== undefined
        ? (await storedSince(time, [bounds], topic, parts))[0]!
        : whole(query["from"], "from", { most: end, otherwise: isBackwards ? end : start })
    const page = await readPage(parts, { topic, bounds, from, isBackwards, limit, wants })
    const { next, searched } = page
    const head = JSON.stringify({ topic, partition, partitions: all.length, start, end: page.end, next, searched })
    const body = `${head.slice(0, -1)},"records":[${page.records.map(recordJson).join(",")}]}`
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
              aggregate: described(flag, "whether it has the events of an aggregate, which commands append"),
              key: described(nullable(text), "the field of its values that is the key of a record; null if none is"),
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
const pageSchema = {
  tags: ["streams"],
  summary: "A page of records of one partition, or the search for records of a key, a type or a tenant",
  description:
    `With key, type or tenant, one request looks at no more than ${mostSearched.positions} positions, ${mostSearched.bytes / 1024 / 1024} MiB of values or ` +
    `${mostSearched.ms / 1_000} seconds: searched says at which positions, and next goes on.`,
  querystring: {
    type: "object",
    properties: {
      partition: { type: "integer", description: "Default: 0; with key, the partition of the key" },
      from: {
        type: "string",
        description:
          "a position, or a time such as 2026-01-31T12:00:00Z: what the log stored since then. With order=desc, what is before. Default: the first " +
          "position that the partition still has; with order=desc its end"
      },
      order: { type: "string", enum: ["asc", "desc"], default: "asc", description: "desc: the newest records first" },
      key: { type: "string", description: "only records with this key" },
      type: { type: "string", description: "only events of this type" },
      tenant: { type: "string", description: "only records of this tenant; default: that of the credential" },
      limit: { type: "integer", default: 100, maximum: pageRecords }
    }
  },
  response: {
    200: described(
      object({
        topic: text,
        partition: integer,
        partitions: described(integer, "how many the topic has"),
        start: described(integer, "the first position that the partition still has"),
        end: described(integer, "the position that its next record gets"),
        next: described(integer, "`from` of the next page; end if this is the last, or start with order=desc"),
        searched: described(
          object({ from: integer, to: integer }),
          "the positions that were looked at: the first, and the one after the last"
        ),
        records: list(recordSchema)
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
