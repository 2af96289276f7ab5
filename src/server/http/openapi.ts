// JSON Schemas of requests and responses, for /openapi.json and /docs. They are documentation: the topics' own schemas decide.
import * as Schema from "effect/Schema"
import type { EventType } from "../../model/event.ts"
import type { Catalog } from "./catalog.ts"

/** A JSON object, such as a JSON Schema. */
export type Json = Readonly<Record<string, unknown>>

/** The JSON Schema of a schema; undefined if it has none. */
export const jsonSchemaOf = (schema: Schema.Constraint): Json | undefined => {
  try {
    const { definitions, schema: own } = Schema.toJsonSchemaDocument(schema as Schema.Top)
    return { ...(own as Json), ...(Object.keys(definitions).length > 0 ? { $defs: definitions } : {}) }
  } catch {
    return undefined
  }
}

/** The JSON Schema of the newest version of an event type. */
export const eventSchema = (eventType: EventType.Any): Json => {
  const fields = eventType.versions.at(-1)?.fields ?? {}
  const own = jsonSchemaOf(Schema.Struct({ type: Schema.Literal(eventType.type), ...fields }))
  if (own !== undefined) return { title: eventType.type, description: `version ${eventType.versions.length}`, ...own }
  // the schema has no JSON Schema; events are still decoded by it
  return {
    title: eventType.type,
    type: "object",
    properties: { type: { const: eventType.type } },
    required: ["type"]
  }
}

/** A value that fits a JSON Schema, for the documentation. */
export const example = (schema: Json): unknown => {
  if (Array.isArray(schema["enum"])) return schema["enum"][0]
  if (schema["type"] === "string") return "text"
  if (schema["type"] === "integer") return 1_357_035_420_000
  if (schema["type"] === "number") return 1
  if (schema["type"] !== "object") return null
  const required = (schema["required"] ?? []) as ReadonlyArray<string>
  const properties = (schema["properties"] ?? {}) as Readonly<Record<string, Json>>
  return Object.fromEntries(required.map((name) => [name, example(properties[name] ?? {})]))
}

const problem: Json = {
  type: "object",
  properties: {
    error: {
      type: "object",
      properties: { code: { type: "string" }, message: { type: "string" }, try: { type: "string" } },
      required: ["code", "message", "try"]
    },
    trace_id: { type: "string" }
  }
}
const result: Json = {
  oneOf: [
    {
      type: "object",
      properties: {
        status: { const: "accepted" },
        topic: { type: "string" },
        partition: { type: "integer" },
        position: { type: "integer" },
        event_id: { type: "string" }
      }
    },
    {
      type: "object",
      properties: {
        status: { const: "rejected" },
        error: {
          type: "object",
          properties: {
            index: { type: "integer", description: "index among the events of the request, from 0" },
            line: { type: "integer", description: "line of the NDJSON body, from 1" },
            code: { type: "string" },
            message: { type: "string" },
            path: { type: "string" },
            try: { type: "string" }
          }
        }
      }
    }
  ]
}
const answer = (description: string): Json => ({
  description,
  type: "object",
  properties: {
    trace_id: { type: "string" },
    accepted: { type: "integer" },
    rejected: { type: "integer" },
    token: { type: "string", description: "for waitFor of views: what follows from the accepted events" },
    results: { type: "array", items: result }
  }
})

/** The schema of `POST /v1/events`. */
export const postSchema = (catalog: Catalog): Json => {
  const types = new Map<string, EventType.Any>()
  for (const entry of catalog.topics.values()) {
    if (entry.writtenBy.length > 0) continue
    for (const [type, { eventType }] of entry.versions) types.set(type, eventType)
  }
  const events = [...types.values()].map(eventSchema)
  const event: Json = events.length === 0 ? { type: "object" } : { oneOf: events }
  const examples = events.slice(0, 1).map(example)
  return {
    tags: ["events"],
    summary: "Append events to the log",
    description:
      "The body is one event, an array, or NDJSON (gzip allowed). 202 means that every event is stored durably in the log. An event may be " +
      "sent again with the same id: it counts once. Topics without event types must be named by ?topic=; in compacted topics " +
      '{"key":"K","value":null} deletes a key.',
    querystring: {
      type: "object",
      properties: {
        topic: { type: "string", description: "Default: the topic that declares the event's type" },
        results: {
          type: "string",
          enum: ["all", "errors"],
          description: "errors: the response lists rejected events only"
        }
      }
    },
    headers: {
      type: "object",
      properties: {
        traceparent: { type: "string", description: "W3C trace context, which every record continues" },
        "schema-version": { type: "integer", description: "The version of events without a field schema_version" }
      }
    },
    body: {
      content: {
        "application/json": { schema: { anyOf: [event, { type: "array", items: event }], examples } },
        "application/x-ndjson": { schema: { type: "string" } }
      }
    },
    response: {
      202: answer("all events are in the log"),
      207: answer("some events are in the log, some were rejected"),
      400: { ...problem, description: "the body is not JSON, not UTF-8, or empty" },
      413: { ...problem, description: "the body is too large; nothing of it was stored" },
      415: { ...problem, description: "the content type or encoding is not supported" },
      422: answer("no event is valid"),
      429: { ...problem, description: "too many events or requests at once; send again after Retry-After seconds" },
      503: answer("the log is unavailable; send again after Retry-After seconds, with the same ids")
    }
  }
}
