// The routes that stream the records of a topic, by server-sent events or a WebSocket.
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { FastifyRequest } from "fastify"
import type { PartitionBounds, Log, LogRecord, Position, ReadError } from "../../log/log.ts"
import { isForReaders } from "../../dead-letter/retry-record.ts"
import { shown } from "../../text/text.ts"
import { tenantFor } from "../access/access.ts"
import { invalidParameter } from "../http/filters.ts"
import { refusals } from "../http/openapi.ts"
import type { StreamAdder } from "../connection/routes.ts"
import type { Catalog } from "../http/catalog.ts"
import { Follower } from "./client.ts"
import { fieldsOf, type ValueFields, wantsOf } from "./filter.ts"
import { beginning, type StreamPositions } from "./position.ts"
import { answerOf, knownTopic, readProblem } from "./problems.ts"
import type { Limits } from "../http/limits.ts"
import type { Metrics } from "../http/metrics.ts"
import { headerText, single } from "../http/parameters.ts"
import { Tails, type RecordRange } from "./tail.ts"

/** What the routes of topics need. */
export interface StreamParts {
  readonly catalog: Catalog
  readonly log: Log["Service"]
  readonly context: Context.Context<never>
  readonly limits: Limits
  readonly metrics: Metrics
}

/** The topic of `/v1/alerts`. */
export const alertsTopic = "alerts.v1"
/** Bytes that a stream reads from the log at once when it is behind. */
const readBytes = 256 * 1024

/** The bounds of every partition. Rejects with a `Problem`. */
export const boundsOf = async (
  { context, log }: Pick<StreamParts, "context" | "log">,
  topic: string
): Promise<ReadonlyArray<PartitionBounds>> => answerOf(context, log.bounds(topic), readProblem)

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

/** What a request asks of a topic. */
interface Opened {
  readonly topic: string
  readonly bounds: ReadonlyArray<PartitionBounds>
  readonly vector: StreamPositions
  readonly wants: (record: LogRecord) => boolean
  readonly isWhole: boolean
}

/** Whether messages have whole records. Throws a `Problem` 400 for another text than `value` or `record`. */
const isEnvelope = (asked: string | undefined): boolean => {
  if (asked === undefined || asked === "value") return false
  if (asked === "record") return true
  throw invalidParameter(
    `the parameter envelope is ${shown(asked)}`,
    "use envelope=record, or value, which is the default"
  )
}

/** Adds `GET /v1/topics/:topic/stream`, and `GET /v1/alerts` if the application has that topic. Open streams end when the server closes. */
export const streams = (add: StreamAdder, parts: StreamParts): void => {
  const { catalog, context, limits, log } = parts
  const tails = new Tails(log, limits.recentBytes, context)
  const bounds = sharedBounds(parts)
  const fields = new Map<string, ValueFields>()
  const fieldsFor = (topic: string): ValueFields => {
    if (!fields.has(topic)) fields.set(topic, fieldsOf(catalog.topics.get(topic)!.topic))
    return fields.get(topic)
  }
  const open = async (request: FastifyRequest, topic: string): Promise<Opened> => {
    const query = request.query as Readonly<Record<string, unknown>>
    const tenant = tenantFor(request, single(query["tenant"], "tenant"))
    const matches = wantsOf(query, topic, fieldsFor(topic))
    const isWhole = isEnvelope(single(query["envelope"], "envelope"))
    const last = headerText(request.headers, "last-event-id") ?? ""
    const asked = last === "" ? (single(query["from"], "from") ?? "latest") : last
    const found = await bounds(topic)
    const vector = await beginning(asked, found, topic, {
      context,
      log,
      derivedFrom: catalog.topics.get(topic)!.derivedFrom,
      waitMs: limits.waitMs,
      isGone: () => request.raw.destroyed || request.raw.socket.destroyed
    })
    const wants = (record: LogRecord): boolean =>
      isForReaders(record) && (tenant === undefined || record.tenant === tenant) && matches(record)
    return { topic, bounds: found, vector, wants, isWhole }
  }
  const route = (url: string, summary: string, event: string, topicOf: (request: FastifyRequest) => string) =>
    add({
      url,
      schema: streamSchema(summary),
      open: async (request) => open(request, knownTopic(catalog, topicOf(request))),
      stream: ({ topic, bounds: found, isWhole, vector, wants }, connection) =>
        new Follower({
          connection,
          event,
          isWhole,
          limits,
          read: reader(parts, topic),
          use: () => tails.use(topic, found),
          vector,
          wants
        })
    })
  if (catalog.topics.has(alertsTopic)) route("/v1/alerts", "Alerts as they are published", "alert", () => alertsTopic)
  route(
    "/v1/topics/:topic/stream",
    "Records of a topic as they arrive",
    "record",
    (request) => (request.params as { readonly topic: string }).topic
  )
}

const streamSchema = (summary: string) => ({
  tags: ["streams"],
  summary,
  description:
    "Server-sent events, or a WebSocket for a request with Upgrade: websocket. The id of a record is the stream's position in every partition: " +
    "a client that sends it as Last-Event-ID, or as from, continues without a gap or a duplicate. The first message has an id, too. The last " +
    "one, `end`, has the reason why the server ends the stream, and the position. Fields of the value are filtered by value.FIELD=X, and by " +
    "value.FIELD.OPERATOR=X with ne, gt, gte, lt, lte, in, prefix and null.",
  querystring: {
    type: "object",
    properties: {
      from: {
        type: "string",
        description:
          "latest (default), earliest, an id, the token of an answer to events or commands: what follows that write, or a time such as 2026-01-31T12:00:00Z: what the log stored since then"
      },
      tenant: { type: "string", description: "only records of this tenant; default: that of the credential" },
      key: { type: "string", description: "only records with this key" },
      entity_id: { type: "string", description: "the same as key" },
      envelope: {
        type: "string",
        enum: ["value", "record"],
        default: "value",
        description:
          "record: the data of each message is the record as pages have it (key, partition, position, times, headers, tenant, value), and " +
          "waiting, how many positions of the topic the stream has not come to yet; value (default): the value alone"
      }
    }
  },
  headers: { type: "object", properties: { "last-event-id": { type: "string" } } },
  produces: ["text/event-stream"],
  response: {
    200: { type: "string", description: "server-sent events, without an end" },
    ...refusals({
      400: "a parameter that cannot be read",
      403: "the credential belongs to another tenant",
      404: "the application has no such topic",
      410: "the log no longer has the position",
      429: "too many streams are open; connect again after Retry-After seconds",
      503: "the log does not answer, or does not have the topic yet",
      504: "the log does not have yet what the token names"
    })
  }
})
