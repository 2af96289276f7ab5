// The routes of aggregates: `POST …/commands/COMMAND`, and `GET` of the streams, and of one's state and events.
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify"
import { Aggregate } from "../../aggregate/aggregate.ts"
import { VersionConflict } from "../../aggregate/errors.ts"
import type { EventStore } from "../../aggregate/event-store.ts"
import { loggedMessage } from "../../aggregate/logged-reason.ts"
import { encodedState } from "../../aggregate/state.ts"
import { positionToken } from "../../log/position-token.ts"
import type { Aggregate as Model } from "../../model/aggregate.ts"
import { hasPersonalData } from "../../model/erasures.ts"
import { tenantFor } from "../access/access.ts"
import type { BodyMemory } from "../http/body.ts"
import type { Limits } from "../http/limits.ts"
import { dateOf } from "../../text/moment.ts"
import { shown } from "../../text/text.ts"
import { single, whole } from "../http/parameters.ts"
import { readJsonBodies } from "../http/json-body.ts"
import { Problem, problemJson } from "../http/problem.ts"
import { traceFor } from "../http/request.ts"
import { Slots } from "../http/slots.ts"
import { isOwnFault, problemOf, rejectionDetails, rejectionOf, timedOut } from "./answers.ts"
import { knownAggregate, type Aggregates } from "./catalog.ts"
import { commandJson, commandOf } from "./command.ts"
import { eventsPage } from "./events.ts"
import { streamsPage } from "./streams.ts"
import { executeOwned, mayRead } from "./ownership.ts"
import { commandIdOf, contextOf, etagOf, expectedOf } from "./headers.ts"
import { type Wait, waitForEvents } from "./waiting.ts"

/** What the routes need. */
export interface AggregateParts {
  readonly aggregates: Aggregates
  readonly context: Context.Context<EventStore>
  readonly held: BodyMemory
  readonly limits: Limits
  readonly bounds: Wait["bounds"]
}

const jsonType = "application/json; charset=utf-8"
/** How many events a page has by default, and at most. */
const pageEvents = { usual: 100, most: 1_000 }
/** How many streams a list has by default, and at most. */
const pageStreams = { usual: 100, most: 1_000 }
const path = "/v1/aggregates/:name/:id"
// the routes are described for each aggregate and command by openapi.ts
const hidden = { schema: { hide: true }, helmet: false } as const
const reading = (...parameters: ReadonlyArray<string>) =>
  ({ ...hidden, config: { scope: "read", parameters } }) as const

/** The aggregate and the id in the path. Throws a `Problem` 404 or 400; of an id, the store refuses what it cannot have. */
const targetOf = (request: FastifyRequest, aggregates: Aggregates) => {
  const { command = "", id = "", name = "" } = request.params as Readonly<Record<string, string>>
  const aggregate = knownAggregate(aggregates, name)
  if (id === "")
    throw new Problem(400, "invalid_id", "the id in the path is empty", "send 1 to 1,000 characters, percent-encoded")
  return { aggregate, command, id }
}

/** The error of an effect that ran, to tell it from a value. */
class Failed<E> {
  readonly error: E
  constructor(error: E) {
    this.error = error
  }
}
/** Waits for an effect on the event store, at most `commandMs`. Rejects with a `Problem` if the store refuses or fails, or on time-out. */
const answerOf = async <A, E>(
  { aggregates, context, limits }: AggregateParts,
  effect: Effect.Effect<A, E, EventStore>
): Promise<A | Failed<E>> => {
  const outcome = await Effect.runPromiseWith(context)(
    effect.pipe(
      Effect.tapError((error) =>
        isOwnFault(error) ? Effect.logError(loggedMessage(error, aggregates.get(error.aggregate))) : Effect.void
      ),
      Effect.match({ onSuccess: (value): A | Failed<E> => value, onFailure: (error) => new Failed(error) }),
      Effect.timeoutOption(limits.commandMs)
    )
  )
  if (Option.isNone(outcome)) throw timedOut(limits.commandMs)
  return outcome.value
}
/** As `answerOf`, for what can fail by the store alone. */
const readOf = async <A, E>(parts: AggregateParts, effect: Effect.Effect<A, E, EventStore>): Promise<A> => {
  const found = await answerOf(parts, effect)
  if (found instanceof Failed) throw problemOf(found.error) ?? found.error
  return found
}

/** Adds `POST /v1/aggregates/NAME/ID/commands/COMMAND`. */
export const commands = (app: FastifyInstance, parts: AggregateParts): void => {
  const { aggregates, limits } = parts
  readJsonBodies(app, parts)
  const onRequest = (request: FastifyRequest, reply: FastifyReply, done: () => void): void => {
    reply.raw.once("close", () => request.share?.release())
    reply.header("x-content-type-options", "nosniff")
    done()
  }
  app.post(
    `${path}/commands/:command`,
    { ...hidden, onRequest, config: { scope: "ingest" } },
    async (request, reply) => {
      const { aggregate, command: name, id } = targetOf(request, aggregates)
      const expected = expectedOf(request.headers)
      const commandId = commandIdOf(request.headers)
      const trace = traceFor(request)
      const asked = contextOf(request.headers, trace.traceparent)
      const { tenant } = request.principal
      const context = { ...asked, tenant: tenantFor(request, asked.tenant) }
      const json = commandJson(typeof request.body === "string" ? request.body : "", limits)
      const command = commandOf(aggregate, id, name, json)
      const options = {
        context,
        ...(expected !== undefined && { expected }),
        ...(commandId !== undefined && { commandId })
      }
      const answer = await answerOf(
        parts,
        executeOwned(aggregate, id, tenant, options, (checked) => Aggregate.execute(aggregate, id, command, checked))
      )
      if (!(answer instanceof Failed)) {
        const { events, position, repeated, version } = answer
        const token = position && positionToken([{ ...position, position: position.position + 1 }])
        if (token !== undefined) reply.header("millrace-token", token)
        const isNew = events.length > 0 && events.length === version
        if (isNew) reply.header("location", `/v1/aggregates/${aggregate.name}/${encodeURIComponent(id)}`)
        return reply
          .code(isNew ? 201 : 200)
          .header("etag", etagOf(version))
          .type(jsonType)
          .send(JSON.stringify({ version, events: events.map((event) => aggregate.encode(event)), repeated, token }))
      }
      const { error } = answer
      if (error instanceof Problem) throw error
      const rejection = rejectionOf(error)
      if (rejection === undefined) {
        if (error instanceof VersionConflict) reply.header("etag", etagOf(error.actual))
        throw problemOf(error) ?? error
      }
      const details = rejectionDetails(rejection, trace.traceId)
      return reply.code(409).type(problemJson).send(JSON.stringify(details))
    }
  )
}

/** The version or the moment that a request asks for. Throws a `Problem` 400. */
const pastOf = (query: Readonly<Record<string, unknown>>): { readonly version?: number; readonly at?: number } => {
  const version = whole(query["version"], "version", { least: 1, most: 999_999_999_999_999, otherwise: undefined })
  const text = single(query["at"], "at")
  if (text === undefined) return version === undefined ? {} : { version }
  if (version !== undefined)
    throw new Problem(400, "invalid_parameter", "the request has both version and at", "send one of them")
  const at = /^-?\d{1,15}$/.test(text) ? Number(text) : dateOf(text)
  if (at === undefined)
    throw new Problem(
      400,
      "invalid_parameter",
      `the parameter at is ${JSON.stringify(text)}; it must be a time`,
      "use a date such as 2026-01-31T12:00:00Z, or epoch milliseconds"
    )
  return { at }
}

/** Which streams a request lists. Throws a `Problem` 400. */
const listedOf = (query: Readonly<Record<string, unknown>>) => {
  const order = single(query["order"], "order") ?? "id"
  if (order !== "id" && order !== "recent")
    throw new Problem(
      400,
      "invalid_parameter",
      `the parameter order is ${JSON.stringify(order)}`,
      "use order=id or order=recent"
    )
  const texts = { prefix: single(query["prefix"], "prefix"), after: single(query["after"], "after") }
  if (Object.values(texts).some((text) => text?.includes("\0")))
    throw new Problem(400, "invalid_parameter", "no id has the character NUL", "leave the character out")
  if (order === "recent" && texts.after !== undefined)
    throw new Problem(400, "invalid_parameter", "order=recent has no further pages", "use order=id with after")
  const limit = whole(query["limit"], "limit", { least: 1, most: pageStreams.most, otherwise: pageStreams.usual })
  return { order, limit, ...texts } as const
}

const noEvents = (aggregate: string, id: string, at?: number): Problem => {
  const none = at === undefined ? "has no events" : `had no events at ${new Date(at).toISOString()}`
  return new Problem(404, "unknown_stream", `${aggregate} ${shown(id)} ${none}`, "check the id")
}

/**
 * What caches may do with an answer. Its ETag is the version, for `If-Match`, and nothing to tell caches by: an erasure and another release of
 * `evolve` change the state of a version. So there is no 304, and personal data is not stored at all.
 */
const caching = (aggregate: Model.Any): string => (hasPersonalData(aggregate) ? "no-store" : "private, no-cache")

/** Adds `GET /v1/aggregates/NAME/ID` and `GET /v1/aggregates/NAME/ID/events`. */
export const reads = (app: FastifyInstance, parts: AggregateParts): void => {
  const { aggregates, bounds, limits } = parts
  const waiting = new Slots(limits.waiting)
  const waited = async (request: FastifyRequest, aggregate: string): Promise<void> => {
    const token = single((request.query as Readonly<Record<string, unknown>>)["waitFor"], "waitFor")
    if (token === undefined) return
    const release = waiting.take(request.principal, "requests wait for events")
    try {
      await waitForEvents(aggregate, token, { bounds, waitMs: limits.waitMs, isGone: () => request.raw.destroyed })
    } finally {
      release()
    }
  }
  app.get("/v1/aggregates/:name", reading("order", "limit", "prefix", "after"), async (request, reply) => {
    const { name = "" } = request.params as Readonly<Record<string, string>>
    const aggregate = knownAggregate(aggregates, name)
    const options = {
      ...listedOf(request.query as Readonly<Record<string, unknown>>),
      tenant: request.principal.tenant
    }
    const page = await readOf(parts, streamsPage(aggregate, options))
    return reply.header("cache-control", caching(aggregate)).type(jsonType).send(JSON.stringify(page))
  })
  app.get(path, reading("version", "at", "waitFor"), async (request, reply) => {
    const { aggregate, id } = targetOf(request, aggregates)
    const past = pastOf(request.query as Readonly<Record<string, unknown>>)
    await waited(request, aggregate.name)
    if (!(await readOf(parts, mayRead(aggregate, id, request.principal.tenant)))) throw noEvents(aggregate.name, id)
    const { state, version } = await readOf(parts, Aggregate.load(aggregate, id, past))
    if (version === 0) throw noEvents(aggregate.name, id, past.at)
    if (past.version !== undefined && version < past.version) {
      const message = `${aggregate.name} ${shown(id)} has version ${version}, not yet ${past.version}`
      throw new Problem(404, "unknown_version", message, `use a version from 1 to ${version}`)
    }
    const encoded = await readOf(parts, encodedState(aggregate, id, state))
    reply.header("etag", etagOf(version)).header("cache-control", caching(aggregate))
    return reply.type(jsonType).send(JSON.stringify({ version, state: encoded }))
  })
  app.get(`${path}/events`, reading("from", "limit", "waitFor"), async (request, reply) => {
    const { aggregate, id } = targetOf(request, aggregates)
    const query = request.query as Readonly<Record<string, unknown>>
    const from = whole(query["from"], "from", { least: 1, most: 999_999_999_999_999, otherwise: 1 })
    const limit = whole(query["limit"], "limit", { least: 1, most: pageEvents.most, otherwise: pageEvents.usual })
    await waited(request, aggregate.name)
    if (!(await readOf(parts, mayRead(aggregate, id, request.principal.tenant)))) throw noEvents(aggregate.name, id)
    const { closed, events, version } = await readOf(parts, eventsPage(aggregate, id, { from, limit }))
    if (version === 0) throw noEvents(aggregate.name, id)
    reply.header("etag", etagOf(version)).header("cache-control", caching(aggregate))
    const last = events.at(-1)?.version ?? from - 1
    const next = last < version && events.length > 0 ? last + 1 : null
    return reply.type(jsonType).send(JSON.stringify({ version, next, closed, events }))
  })
}
