// The OpenAPI description of the routes of aggregates: a path for each command of each aggregate, with the schemas of the application. Pure.
import * as Schema from "effect/Schema"
import type { Aggregate } from "../../model/aggregate.ts"
import { eventSchema, example, jsonSchemaOf } from "../http/openapi.ts"
import { described, integer, type Json, list, nullable, object, oneOf } from "../http/json-schema.ts"
import type { Aggregates } from "./catalog.ts"
import { contextHeaders } from "./headers.ts"

/** A part of an OpenAPI document. */
export interface Described {
  readonly paths: Json
  readonly components: { readonly parameters: Json; readonly responses: Json; readonly schemas: Json }
}

const tags = ["aggregates"]
const text = { type: "string" }
const version = { type: "integer", minimum: 1 }
const header = (name: string, description: string) => ({ name, in: "header", description, schema: text })
const query = (name: string, description: string, schema: Json) => ({ name, in: "query", description, schema })

const parameters: Json = {
  AggregateId: {
    name: "id",
    in: "path",
    required: true,
    description: "The stream's id, percent-encoded: 1 to 1,000 characters",
    schema: text
  },
  IdempotencyKey: header(
    "Idempotency-Key",
    "The id of the command, 1 to 200 characters. The same id gets the same answer, with `repeated`, whenever it is sent again. Without it, a request that is sent again is another command"
  ),
  ExpectedVersion: header(
    "If-Match",
    'The version that the stream must have, as its ETag: `"7"`; `"0"`: no events, `*`: any'
  ),
  NoEvents: header("If-None-Match", "`*`: the stream must have no events"),
  Traceparent: header("traceparent", "W3C trace context, which the events continue"),
  ...Object.fromEntries(
    Object.entries(contextHeaders).map(([field, name]) => [field, header(name, `Goes on the events as their ${field}`)])
  )
}
const use = (...names: ReadonlyArray<string>) => names.map((name) => ({ $ref: `#/components/parameters/${name}` }))
const waitFor = query(
  "waitFor",
  "A token of an answer to events or commands: waits until the store has the events of this aggregate that it names",
  text
)
const sent = use("AggregateId", "IdempotencyKey", "ExpectedVersion", "NoEvents", "Traceparent").concat(
  use(...Object.keys(contextHeaders))
)

const problem: Json = {
  type: "object",
  description: "A problem in the form of RFC 9457. A rejection has its fields as members",
  properties: {
    type: text,
    title: text,
    status: { type: "integer" },
    detail: text,
    error: {
      type: "object",
      properties: { code: text, message: text, path: text, try: text },
      required: ["code", "message", "try"]
    },
    trace_id: text
  },
  required: ["type", "title", "status", "detail", "error", "trace_id"]
}
const refused: ReadonlyArray<readonly [status: number, description: string]> = [
  [400, "the id, a header, a parameter or the JSON cannot be read, or the body names another id"],
  [401, "the credential is missing or not valid"],
  [403, "the credential has not the scope that the route needs, or belongs to another tenant"],
  [404, "the aggregate or the command does not exist, or the stream has no events"],
  [409, "the aggregate rejected the command; the title is the rejection's tag, and its fields are members"],
  [410, "the stream takes no more events, or the personal data was erased"],
  [412, "the stream does not have the expected version; the ETag has the version it has"],
  [413, "the body is too large, or the command led to more events than one append takes"],
  [415, "the content type or encoding is not supported"],
  [422, "a field is missing or does not fit, or the Idempotency-Key was used for another command"],
  [429, "too many requests at once; send again after Retry-After seconds"],
  [500, "the store refuses, or the code of the aggregate or of an inline projection failed; see the log of the server"],
  [503, "the store is not available; send again after Retry-After seconds, with the same Idempotency-Key"],
  [504, "the store does not have the events that waitFor names"]
]
const refusals = (...statuses: ReadonlyArray<number>): Json =>
  Object.fromEntries(statuses.map((status) => [status, { $ref: `#/components/responses/Refused${status}` }]))
const responses: Json = Object.fromEntries(
  refused.map(([status, description]) => [
    `Refused${status}`,
    { description, content: { "application/problem+json": { schema: { $ref: "#/components/schemas/Problem" } } } }
  ])
)
const ok = (description: string, schema: Json) => ({
  description,
  headers: { etag: { description: "The version", schema: text } },
  content: { "application/json": { schema } }
})

/** The schema of a command's body, in which the id may be left out. */
const bodySchema = ({ commands, id }: Aggregate.Any, name: string): Json => {
  const found = jsonSchemaOf(Schema.Struct(commands[name]!)) ?? { type: "object" }
  const required = ((found["required"] ?? []) as ReadonlyArray<string>).filter((field) => field !== id)
  const { required: _, ...schema } = found
  return { title: name, ...schema, ...(required.length > 0 && { required }) }
}

const commandPath = (aggregate: Aggregate.Any, name: string) => {
  const schema = bodySchema(aggregate, name)
  const answer = (description: string) =>
    ok(description, {
      type: "object",
      properties: {
        version: { type: "integer" },
        events: { type: "array", items: { $ref: `#/components/schemas/${aggregate.name}.event` } },
        repeated: { type: "boolean", description: "whether the same Idempotency-Key was answered before" },
        token: {
          type: "string",
          description: "for waitFor of views and aggregates: what follows from the events"
        }
      },
      required: ["version", "events", "repeated"]
    })
  return {
    post: {
      tags,
      summary: `${name}: a command to ${aggregate.name}`,
      parameters: sent,
      requestBody: { content: { "application/json": { schema, example: example(schema) } } },
      responses: {
        200: answer("the command was decided and its events are stored; there are none if nothing was to be done"),
        201: answer("the same, and they are the first events of the stream"),
        ...refusals(400, 401, 403, 404, 409, 410, 412, 413, 415, 422, 429, 500, 503)
      }
    }
  }
}

const statePath = (aggregate: Aggregate.Any) => ({
  get: {
    tags,
    summary: `The state of ${aggregate.name}`,
    parameters: [
      ...use("AggregateId"),
      query("version", "The state as it was at this version", version),
      query("at", "The state as it was then: a date, or epoch milliseconds", text),
      waitFor
    ],
    responses: {
      200: ok("the state", {
        type: "object",
        properties: { version, state: jsonSchemaOf(aggregate.state) ?? {} },
        required: ["version", "state"]
      }),
      ...refusals(400, 401, 403, 404, 429, 500, 503, 504)
    }
  }
})
const streamsPath = (aggregate: Aggregate.Any) => ({
  get: {
    tags,
    summary: `The streams of ${aggregate.name} that have events`,
    parameters: [
      query("order", "`recent`: those that were appended to last, the newest first, without further pages", {
        type: "string",
        enum: ["id", "recent"],
        default: "id"
      }),
      query("limit", "How many are listed at most", { ...version, default: 100, maximum: 1000 }),
      query("prefix", "Only ids that begin so", text),
      query("after", "The next of the page before", text)
    ],
    responses: {
      200: {
        description: "a page, which of a tenant's streams may have fewer than the limit without being the last",
        content: {
          "application/json": {
            schema: object({
              streams: list(
                object({
                  id: text,
                  version,
                  appended_at: described(integer, "when the last event was appended, in epoch milliseconds"),
                  tenant: nullable(text),
                  closed: nullable(oneOf("archived"))
                })
              ),
              next: described(nullable(text), "`after` of the next page; null: this is the last")
            })
          }
        }
      },
      ...refusals(400, 401, 403, 404, 500, 503)
    }
  }
})
const eventsPath = (aggregate: Aggregate.Any) => ({
  get: {
    tags,
    summary: `The events of ${aggregate.name}, in pages`,
    parameters: [
      ...use("AggregateId"),
      query("from", "The first version of the page", { ...version, default: 1 }),
      query("limit", "How many events the page has at most", { ...version, default: 100, maximum: 1000 }),
      waitFor
    ],
    responses: {
      200: ok("a page", {
        type: "object",
        properties: {
          version,
          next: { anyOf: [version, { type: "null" }], description: "`from` of the next page; null: this is the last" },
          closed: described(oneOf("archived"), "why the stream takes no more events; left out if it does"),
          events: {
            type: "array",
            items: {
              type: "object",
              properties: {
                version,
                event: { $ref: `#/components/schemas/${aggregate.name}.event` },
                event_time: { type: "integer" },
                appended_at: { type: "integer" },
                trace_id: text,
                headers: { type: "object" }
              }
            }
          }
        }
      }),
      ...refusals(400, 401, 403, 404, 429, 500, 503, 504)
    }
  }
})

/** Which routes a server has: those for commands, and those for reading. */
export interface DescribedRoutes {
  readonly commands: boolean
  readonly reads: boolean
}
/** Describes the routes of all aggregates. */
export const describe = (aggregates: Aggregates, routes: DescribedRoutes): Described => {
  const paths: Record<string, unknown> = {}
  const schemas: Record<string, unknown> = { Problem: problem }
  for (const aggregate of aggregates.values()) {
    const path = `/v1/aggregates/${aggregate.name}/{id}`
    const events = aggregate.events.map(eventSchema)
    schemas[`${aggregate.name}.event`] = events.length === 1 ? events[0] : { oneOf: events }
    if (routes.reads)
      Object.assign(paths, {
        [`/v1/aggregates/${aggregate.name}`]: streamsPath(aggregate),
        [path]: statePath(aggregate),
        [`${path}/events`]: eventsPath(aggregate)
      })
    if (!routes.commands) continue
    for (const name of Object.keys(aggregate.commands)) paths[`${path}/commands/${name}`] = commandPath(aggregate, name)
  }
  return { paths, components: { parameters, responses, schemas } }
}
