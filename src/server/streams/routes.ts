// The routes that stream the records of a topic as server-sent events, and what they share with the other routes of topics.
import type { IncomingMessage } from "node:http"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify"
import type { PartitionBounds, Log, LogRecord, Position, ReadError } from "../../log/log.ts"
import { isTimeMark } from "../../log/time-mark.ts"
import { isRetry } from "../../dead-letter/retry-record.ts"
import { tenantFor } from "../access/access.ts"
import type { Catalog } from "../http/catalog.ts"
import { Follower } from "./client.ts"
import { parseStreamId, type StreamPositions } from "./sse.ts"
import type { Limits } from "../http/limits.ts"
import type { Metrics } from "../http/metrics.ts"
import { single } from "../http/parameters.ts"
import { Problem, retryAfterSeconds } from "../http/problem.ts"
import { Tails, type RecordRange } from "./tail.ts"
import { traceFor } from "../http/request.ts"

/** What the routes of topics need. */
export interface StreamParts {
  readonly catalog: Catalog
  readonly log: Log["Service"]
  readonly context: Context.Context<never>
  readonly limits: Limits
  readonly metrics: Metrics
}

/** The topic of `/v1/alerts`. */
const alertsTopic = "alerts.v1"
const reading = { scope: "read" } as const
const contentType = "text/event-stream; charset=utf-8"
/** Bytes that a stream reads from the log at once when it is behind. */
const readBytes = 256 * 1024

/** The problem of a request whose read failed. */
export const readProblem = (error: ReadError): Problem => {
  if (error._tag === "UnknownTopic")
    return new Problem(503, "topic_not_ready", error.message, "run 'millrace migrate'", retryAfterSeconds)
  if (error._tag === "OutOfRange") return new Problem(410, "position_gone", error.message, "request from=earliest")
  return new Problem(
    503,
    "log_unavailable",
    error.message,
    "send the request again after Retry-After seconds",
    retryAfterSeconds
  )
}

/** Returns the name of a topic. Throws a `Problem` 404 if the application has no such topic. */
export const knownTopic = (catalog: Catalog, name: string): string => {
  if (catalog.topics.has(name)) return name
  const names = [...catalog.topics.keys()].join(", ")
  throw new Problem(404, "unknown_topic", `the application has no topic ${JSON.stringify(name)}`, `use one of ${names}`)
}

/** The bounds of every partition. Rejects with a `Problem`. */
export const boundsOf = async (
  { context, log }: StreamParts,
  topic: string
): Promise<ReadonlyArray<PartitionBounds>> => {
  const found = await Effect.runPromiseWith(context)(
    Effect.match(log.bounds(topic), { onSuccess: (bounds) => bounds, onFailure: (error) => error })
  )
  if ("_tag" in found) throw readProblem(found)
  return found
}

const beginning = (asked: string, bounds: ReadonlyArray<PartitionBounds>, topic: string): StreamPositions => {
  if (asked === "latest") return bounds.map(({ end }) => end)
  if (asked === "earliest") return bounds.map(({ start }) => start)
  const vector = parseStreamId(asked, bounds.length)
  if (vector === undefined) {
    const message = `${JSON.stringify(asked)} is not a position in ${topic}, which has ${bounds.length} partitions`
    throw new Problem(
      400,
      "invalid_parameter",
      message,
      "use from=latest, from=earliest, or the id of a record of this stream"
    )
  }
  for (const { end, partition, start } of bounds) {
    const position = vector[partition]!
    if (position >= start && position <= end) continue
    const message = `partition ${partition} of ${topic} has positions ${start} to ${end}, but the stream was at position ${position}`
    throw new Problem(
      410,
      "position_gone",
      message,
      "start again with from=earliest or from=latest, without Last-Event-ID"
    )
  }
  return vector
}

const reader =
  ({ context, log }: StreamParts, topic: string) =>
  (partition: number, position: Position): Promise<RecordRange | ReadError> =>
    Effect.runPromiseWith(context)(
      Effect.match(log.read(topic, partition, position, { maxBytes: readBytes }), {
        onSuccess: (batch): RecordRange | ReadError => batch,
        onFailure: (error): RecordRange | ReadError => error
      })
    )

/** Asks for the bounds of a topic once for all streams that open at the same time, so that clients that connect and disconnect ask little. */
const sharedBounds = (parts: StreamParts) => {
  const asked = new Map<string, ReturnType<typeof boundsOf>>()
  return (topic: string): ReturnType<typeof boundsOf> => {
    let bounds = asked.get(topic)
    if (bounds === undefined) {
      bounds = boundsOf(parts, topic).finally(() => asked.delete(topic))
      asked.set(topic, bounds)
    }
    return bounds
  }
}
/** Resolves to undefined when the client has disconnected. */
const disconnected = ({ raw }: FastifyReply): Promise<undefined> =>
  new Promise((resolve) => {
    if (raw.destroyed) resolve(undefined)
    else raw.once("close", () => resolve(undefined))
  })

/** Adds `GET /v1/alerts` and `GET /v1/topics/:topic/stream`. Open streams end when the server closes. */
export const streams = (app: FastifyInstance, parts: StreamParts): void => {
  const { catalog, limits, metrics } = parts
  const bounds = sharedBounds(parts)
  const tails = new Tails(parts.log, limits.recentBytes, parts.context)
  const open = new Set<Follower>()
  let opening = 0

  /** Streams until the client or the server ends the stream. A HEAD request gets the headers alone. */
  const stream = async (request: FastifyRequest, reply: FastifyReply, topic: string, event: string): Promise<void> => {
    const query = request.query as Readonly<Record<string, unknown>>
    const tenant = tenantFor(request, single(query["tenant"], "tenant"))
    const key = single(query["entity_id"], "entity_id")
    const asked = String(request.headers["last-event-id"] ?? single(query["from"], "from") ?? "latest")
    const found = await Promise.race([bounds(topic), disconnected(reply)])
    if (found === undefined) {
      reply.hijack()
      return
    }
    const vector = beginning(asked, found, topic)
    if (request.method === "HEAD") return reply.type(contentType).send()
    const { release, tail } = tails.use(topic, found)
    try {
      const wants = (record: LogRecord): boolean =>
        // a retry record is a copy of an earlier record, and a time mark is for projections alone
        !isRetry(record) &&
        !isTimeMark(record) &&
        (tenant === undefined || record.tenant === tenant) &&
        (key === undefined || record.key === key)
      const follower = begin(request, reply, { event, limits, read: reader(parts, topic), tail, vector, wants })
      open.add(follower)
      metrics.streams(open.size)
      metrics.streamEnded(await follower.run().finally(() => open.delete(follower)))
      metrics.streams(open.size)
    } finally {
      release()
    }
  }
  const bounded = async (request: FastifyRequest, reply: FastifyReply, topic: string, event: string): Promise<void> => {
    if (opening >= limits.streams) {
      throw new Problem(
        429,
        "overloaded",
        `${opening} streams are open, which is the limit of this server`,
        "connect again after Retry-After seconds",
        5
      )
    }
    opening++
    try {
      await stream(request, reply, knownTopic(catalog, topic), event)
    } finally {
      opening--
    }
  }
  app.get("/v1/alerts", { schema: streamSchema("Alerts as they are published"), config: reading }, (request, reply) =>
    bounded(request, reply, alertsTopic, "alert")
  )
  app.get(
    "/v1/topics/:topic/stream",
    { schema: streamSchema("Records of a topic as they arrive"), config: reading },
    (request, reply) => bounded(request, reply, (request.params as { readonly topic: string }).topic, "record")
  )
  app.addHook("preClose", async () => {
    for (const follower of open) follower.stop("shutdown", "the server is stopping", "connect again with Last-Event-ID")
  })
}

/** Takes the connection over from Fastify, and sends the headers. */
const begin = (
  request: FastifyRequest,
  reply: FastifyReply,
  follow: Omit<ConstructorParameters<typeof Follower>[0], "response">
): Follower => {
  reply.hijack()
  const { raw } = reply
  const headers = reply.getHeaders() as Record<string, string>
  raw.writeHead(200, {
    ...headers,
    traceparent: traceFor(request).traceparent,
    "content-type": contentType,
    "cache-control": "no-store",
    // without it nginx would buffer records
    "x-accel-buffering": "no"
  })
  // a client may keep its stream for days
  ;(request.raw as IncomingMessage).setTimeout(0)
  return new Follower({ ...follow, response: raw })
}

const streamSchema = (summary: string) => ({
  tags: ["streams"],
  summary,
  description:
    "Server-sent events. The id of a record is the stream's position in every partition: a client that sends it as Last-Event-ID continues " +
    "without a gap or a duplicate. An event `end`, without an id, has the reason why the server ends the stream.",
  querystring: {
    type: "object",
    properties: {
      from: { type: "string", description: "latest (default), earliest, or a record's id" },
      tenant: { type: "string" },
      entity_id: { type: "string", description: "the record's key" }
    }
  },
  headers: { type: "object", properties: { "last-event-id": { type: "string" } } },
  produces: ["text/event-stream"]
})
