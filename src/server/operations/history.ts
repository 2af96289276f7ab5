// The route of a key's history: what its events did to its rows, by a replay.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { FastifyInstance } from "fastify"
import { jsonText } from "../../system/explanation-json.ts"
import { keyHistory } from "../../system/key-history.ts"
import { keyHistoryJson } from "../../system/key-history-json.ts"
import { jsonSchemaOf } from "../http/openapi.ts"
import { addRoute, assertCount, bodyOf, type OperationParts, quoted, startJob } from "./parts.ts"
import { histories, jobAnswers, responses } from "./schemas.ts"

const path = "/v1/operations"
/** How much a history has by default, and at most. */
const usual = { limit: 200, records: 200_000 }
const most = { limit: 1_000, records: 10_000_000 }

const History = Schema.Struct({
  key: Schema.String,
  limit: Schema.optional(Schema.Int),
  records: Schema.optional(Schema.Int),
  partitions: Schema.optional(Schema.Literals(["key", "all"]))
})

/** Adds `POST /v1/operations/history`. */
export const history = (app: FastifyInstance, parts: OperationParts): void => {
  const { limits, system } = parts
  addRoute(
    app,
    "POST",
    `${path}/history`,
    {
      summary: "What the events of a key did to its rows, in each projection",
      description:
        "Replays the live builds in memory. The rows of a key are those that have it in a column of their primary key, and those that its events write. " +
        `limit: how many events of each projection the answer has, the last ones (${usual.limit}, at most ${most.limit}). records: how many records of each ` +
        `projection are replayed at most (${usual.records}, at most ${most.records}). partitions: key (default) replays those that the key's events are ` +
        "in, and all of them only if what that gives is not what the database has; all replays them in any case.",
      body: jsonSchemaOf(History),
      response: responses(jobAnswers(["history"], histories), 400, 409, 422, 429, 503)
    },
    async (request, reply) => {
      const body = bodyOf(request, History, limits)
      const { limit = usual.limit, records = usual.records } = body
      assertCount("limit", limit, most.limit, "number")
      assertCount("records", records, most.records, "number")
      const { application, database, log } = system
      return startJob(parts, request, reply, {
        kind: "history",
        subject: body.key,
        // the host is what the client wrote, which a shell must not read
        command: `curl -X POST ${quoted(`${request.protocol}://${request.host}${path}/history`)} -H 'content-type: application/json' -d ${quoted(JSON.stringify(body))}`,
        run: (progress) =>
          Effect.map(
            keyHistory(
              { application, sql: database.sql, log },
              {
                key: body.key,
                mostEvents: limit,
                mostRecords: records,
                isAll: body.partitions === "all",
                onProgress: (projection, done, total) => progress({ projection, replayed: done, total })
              }
            ),
            (found) => jsonText(keyHistoryJson(body.key, found))
          )
      })
    }
  )
}
