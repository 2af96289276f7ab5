// The route that archives a stream of an aggregate.
import * as Effect from "effect/Effect"
import type { FastifyInstance } from "fastify"
import { EventStore } from "../../aggregate/event-store.ts"
import { shown } from "../../text/text.ts"
import { problemOf } from "../aggregates/answers.ts"
import { archiveKnown } from "../aggregates/archive.ts"
import { aggregatesByName, knownAggregate } from "../aggregates/catalog.ts"
import { described, flag, integer, object } from "../http/json-schema.ts"
import { Problem } from "../http/problem.ts"
import { addRoute, answerOf, assertNoFields, commandText, isTrue, type OperationParts, parametersOf } from "./parts.ts"
import { command, dryRun, responses } from "./schemas.ts"

/** Adds `POST /v1/operations/aggregates/NAME/ID/archive`. */
export const aggregates = (app: FastifyInstance, { limits, system }: OperationParts): void =>
  addRoute(
    app,
    "POST",
    "/v1/operations/aggregates/:name/:id/archive",
    {
      summary: "Archive a stream of an aggregate: it takes no more events, and its events stay. It cannot be undone",
      querystring: { type: "object", properties: { dryRun } },
      response: responses(
        {
          200: object({
            command,
            dry_run: flag,
            version: described(integer, "the stream's version, which is its last"),
            repeated: described(flag, "whether it took no more events before")
          })
        },
        400,
        404,
        422,
        503
      )
    },
    async (request) => {
      const isDryRun = isTrue(parametersOf(request, ["dryRun"]).dryRun, "dryRun")
      assertNoFields(request, limits)
      const { id = "", name = "" } = request.params as Readonly<Record<string, string>>
      const aggregate = knownAggregate(aggregatesByName(system.application), name)
      const archived = await answerOf(
        archiveKnown(aggregate, id, isDryRun).pipe(
          Effect.provideService(EventStore, system.eventStore),
          Effect.mapError((error) => problemOf(error) ?? error)
        )
      )
      if (archived === undefined)
        throw new Problem(404, "unknown_stream", `${aggregate.name} ${shown(id)} has no events`, "check the id")
      const words = ["aggregate", "archive", aggregate.name, id]
      return { command: commandText(words, { "dry-run": isDryRun }), dry_run: isDryRun, ...archived }
    }
  )
