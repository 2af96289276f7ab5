// JSON Schemas of requests and responses, for /openapi.json and /docs. They are documentation: the topics' own schemas decide.
import * as Schema from "effect/Schema"
import type { EventType } from "../../model/event.ts"
import type { Topic } from "../../model/topic.ts"
import type { Catalog } from "./catalog.ts"
import { described, integer, type Json, list, object, text } from "./json-schema.ts"

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

/** The body of an error of any route. Some have more members. */
export const problem = object(
  { error: object({ code: text, message: text, try: text }, { path: text }) },
  { trace_id: text }
)
/** Responses with a problem, by status, with when they come. */
export const refusals = (when: Readonly<Record<number, string>>): Json =>
  Object.fromEntries(Object.entries(when).map(([status, description]) => [status, { ...problem, description }]))
const result: Json = {
  oneOf: [
    object({ status: { const: "accepted" }, topic: text, partition: integer, position: integer }, { event_id: text }),
    object({
      status: { const: "rejected" },
      error: object(
        {
          index: described(integer, "index among the events of the request, from 0"),
          code: text,
          message: text,
          try: text
        },
        { line: described(integer, "line of the NDJSON body, from 1"), path: text }
      )
    })
  ]
}
const answer = (description: string): Json =>
  described(
    object(
      { trace_id: text, accepted: integer, rejected: integer, results: list(result) },
      { token: described(text, "for waitFor of views: what follows from the accepted events") }
    ),
    description
  )

/** The JSON Schemas of what a topic without event types takes: its values, and the deletion of a key of a compacted topic. */
const valueSchemas = ({ compacted, name, shapes }: Topic.Any): ReadonlyArray<Json> => {
  const fields = shapes?.at(-1)?.fields
  const own = fields && jsonSchemaOf(Schema.Struct(fields))
  const value = { title: name, description: `with ?topic=${name}`, ...(own ?? { type: "object" }) }
  const deletion = { title: `deletes a key of ${name}`, ...object({ key: text, value: { type: "null" } }) }
  return compacted === true ? [value, deletion] : [value]
}

/** The schema of `POST /v1/events`. */
export const postSchema = (catalog: Catalog): Json => {
  const types = new Map<string, EventType.Any>()
  const values: Array<Json> = []
  for (const { topic, versions, writtenBy } of catalog.topics.values()) {
    if (writtenBy.length > 0) continue
    for (const [type, { eventType }] of versions) types.set(type, eventType)
    if (versions.size === 0) values.push(...valueSchemas(topic))
  }
  const events = [...types.values()].map(eventSchema).concat(values)
  const event: Json = events.length === 0 ? { type: "object" } : { anyOf: events }
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
      ...refusals({
        413: "the body is too large; nothing of it was stored",
        415: "the content type or encoding is not supported"
      }),
      // of the events, or of the request as a whole
      400: {
        anyOf: [answer("none of the events is JSON in UTF-8"), problem],
        description: "the body is empty, or is no JSON in UTF-8"
      },
      429: {
        anyOf: [answer("too much is in work"), problem],
        description: "too many events or requests at once; send again after Retry-After seconds"
      },
      422: answer("no event is valid"),
      503: answer("the log is unavailable; send again after Retry-After seconds, with the same ids")
    }
  }
}
