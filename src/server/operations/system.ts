// The routes about the system as a whole: status, processes, topics, consumers, jobs, and the explanation of a row.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { FastifyInstance } from "fastify"
import type { Status } from "../../system/status.ts"
import { explainedRow, explainTableRow } from "../../system/explain-table.ts"
import { explanationJson, jsonText } from "../../system/explanation-json.ts"
import { loadRulesIfAny } from "../../system/bridge-rules.ts"
import { describeApplication } from "../../system/description.ts"
import { readTopicStates } from "../../system/topic-states.ts"
import { jsonSchemaOf } from "../http/openapi.ts"
import {
  addRoute,
  answerOf,
  assertCount,
  bodyOf,
  commandText,
  jsonType,
  momentOf,
  type OperationParts,
  startJob
} from "./parts.ts"
import { unanswered } from "./problems.ts"
import * as Schemas from "./schemas.ts"
import { described, flag, integer, list, nullable, object, oneOf, text } from "../http/json-schema.ts"
import { anyJob, command, jobAnswers, responses } from "./schemas.ts"

const path = "/v1/operations"
/** How many events an explanation has by default, and at most. */
const most = { events: 100, mostEvents: 1_000 }

const Explain = Schema.Struct({
  table: Schema.String,
  key: Schema.Union([Schema.String, Schema.Record(Schema.String, Schema.Unknown)]),
  from: Schema.optional(Schema.String),
  until: Schema.optional(Schema.String),
  limit: Schema.optional(Schema.Int)
})

const partition = object(
  { topic: text, partition: integer, position: integer, end: integer, lag: integer },
  { oldest_ms: nullable(integer), halted: nullable(text) }
)

/** The status of the system. Rejects with a `Problem` 503 if it cannot be read. */
const statusOf = async ({ status }: OperationParts): Promise<Status> => {
  const found = await Effect.runPromise(status)
  if ("projections" in found) return found as unknown as Status
  throw unanswered(String(found["reason"] ?? found["error"] ?? "the status cannot be read"))
}

const statusRoute = (app: FastifyInstance, parts: OperationParts): void => {
  addRoute(
    app,
    "GET",
    `${path}/status`,
    {
      summary:
        "The status of the system with reasons, as millrace status --json prints it; 200 also if it is unhealthy",
      response: responses({ 200: Schemas.status }, 503)
    },
    () => statusOf(parts)
  )
}
const applicationRoute = (app: FastifyInstance, { system }: OperationParts): void => {
  addRoute(
    app,
    "GET",
    `${path}/application`,
    {
      summary: "What the application declares: topics, aggregates, projections with what each reads and writes, relays",
      response: responses({ 200: Schemas.application })
    },
    async () => {
      const bridge = await answerOf(Effect.orElseSucceed(loadRulesIfAny(undefined), () => undefined))
      const rules = bridge?.rules.map(({ from, name, to }) => ({ name, from, to })) ?? []
      return { ...describeApplication(system.application, system.targets), bridge_rules: rules }
    }
  )
}
const processesRoute = (app: FastifyInstance, parts: OperationParts): void => {
  addRoute(
    app,
    "GET",
    `${path}/processes`,
    {
      summary: "The processes that run, and those that died and are missed",
      response: responses({ 200: Schemas.processes }, 503)
    },
    async () => ({ processes: (await statusOf(parts)).processes })
  )
}
const topicsRoute = (app: FastifyInstance, parts: OperationParts): void => {
  const { system } = parts
  addRoute(
    app,
    "GET",
    `${path}/topics`,
    {
      summary:
        "The declared topics: their partitions with first position and end, and what differs from the declaration",
      response: responses(
        {
          200: object({
            command,
            log: oneOf("Kafka", "PostgreSQL"),
            topics: list(
              object({
                name: text,
                declared: object({ partitions: integer, compacted: flag, retention_ms: nullable(integer) }),
                partitions: list(object({ partition: integer, start: integer, end: integer })),
                written_by: list(text),
                read_by: list(text),
                differs: flag,
                action: oneOf("create", "change", "nothing", "refused"),
                settings: list(object({ name: text, to: text }, { from: text })),
                notes: list(text)
              })
            )
          })
        },
        503
      )
    },
    async () => {
      const topics = await answerOf(readTopicStates(system))
      return {
        command: commandText(["topics", "check"]),
        log: system.on,
        topics: topics.map(({ declared, differs, name, partitions, plan, readBy, writtenBy }) => ({
          name,
          declared: {
            partitions: declared.partitions,
            compacted: declared.compacted,
            retention_ms: declared.retentionMs
          },
          partitions: partitions.map(({ end, partition, start }) => ({ partition, start, end })),
          written_by: writtenBy,
          read_by: readBy,
          differs,
          action: plan.action,
          settings: plan.settings,
          notes: plan.notes
        }))
      }
    }
  )
}
const consumersRoute = (app: FastifyInstance, parts: OperationParts): void => {
  addRoute(
    app,
    "GET",
    `${path}/consumers`,
    {
      summary: "What reads topics: builds of projections with their positions, subscriptions and relays with their lag",
      response: responses(
        {
          200: object({
            projections: list(object({ projection: text, build: integer, lag: integer, partitions: list(partition) })),
            subscriptions: list(
              object({
                topic: text,
                subscription: text,
                undelivered: integer,
                unacknowledged: integer,
                consumed: described(flag, "whether a consumer is connected")
              })
            ),
            relays: list(
              object({
                target: text,
                lag: integer,
                oldest_ms: nullable(integer),
                halted: nullable(text),
                halted_streams: integer
              })
            )
          })
        },
        503
      )
    },
    async () => {
      const { projections, relays, subscriptions } = await statusOf(parts)
      const groups = Map.groupBy(projections, ({ name, version }) => `${name}/${version}`)
      return {
        projections: [...groups.values()].map((some) => ({
          projection: some[0]!.name,
          build: some[0]!.version,
          lag: some.reduce((sum, { lag }) => sum + lag, 0),
          partitions: some.map(({ end, halted, lag, oldest_ms, partition, position, topic }) => ({
            topic,
            partition,
            position,
            end,
            lag,
            oldest_ms,
            halted
          }))
        })),
        subscriptions,
        relays
      }
    }
  )
}
const jobsRoute = (app: FastifyInstance, parts: OperationParts): void => {
  const { jobs } = parts
  addRoute(
    app,
    "GET",
    `${path}/jobs`,
    {
      summary: "The jobs of this process, the newest first, without their results",
      response: responses({ 200: object({ jobs: list(anyJob) }) })
    },
    async (_, reply) => reply.type(jsonType).send(jobs.list())
  )
}
const jobRoute = (app: FastifyInstance, parts: OperationParts): void => {
  const { jobs } = parts
  addRoute(
    app,
    "GET",
    `${path}/jobs/:id`,
    {
      summary: "A job: how far it is, or its result",
      response: responses({ 200: anyJob }, 404)
    },
    async (request, reply) => reply.type(jsonType).send(jobs.find((request.params as { readonly id: string }).id).json)
  )
}
const explainRoute = (app: FastifyInstance, parts: OperationParts): void => {
  const { limits, system } = parts
  addRoute(
    app,
    "POST",
    `${path}/explain`,
    {
      summary: "The events that made a row, in each projection that writes it",
      description:
        "key is the value, if the key has one column, or an object with all its columns. from and until are dates, epoch milliseconds or durations before now.",
      body: jsonSchemaOf(Explain),
      response: responses(jobAnswers(["explain"], Schemas.explanations), 400, 404, 409, 422, 429, 503)
    },
    async (request, reply) => {
      const body = bodyOf(request, Explain, limits)
      const { key, limit = most.events, table } = body
      assertCount("limit", limit, most.mostEvents)
      const from = momentOf(body.from, "from")
      const until = momentOf(body.until, "until")
      const keyText = typeof key === "string" ? key : jsonText(key)
      const { application, database, log } = system
      const row = await answerOf(explainedRow(application, table, [keyText]))
      const options = { from: body.from, until: body.until, limit: body.limit }
      return startJob(parts, request, reply, {
        kind: "explain",
        subject: table,
        command: commandText(["explain", table, keyText], options),
        run: (progress) =>
          Effect.map(
            explainTableRow({ application, sql: database.sql, log }, row, {
              from,
              until,
              mostEvents: limit,
              keyText: (_, shown) => JSON.stringify(shown),
              onProgress: (projection) => (done, total) => progress({ projection, replayed: done, total })
            }),
            (found) => jsonText(found.map(explanationJson))
          )
      })
    }
  )
}

/** Adds these routes. */
export const system = (app: FastifyInstance, parts: OperationParts): void => {
  for (const add of [
    statusRoute,
    applicationRoute,
    processesRoute,
    topicsRoute,
    consumersRoute,
    jobsRoute,
    jobRoute,
    explainRoute
  ])
    add(app, parts)
}
