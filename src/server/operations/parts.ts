// What the routes of operations share: the system, how effects are answered, and how parameters and bodies are read.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Cause from "effect/Cause"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify"
import { parseJson } from "../../log/json.ts"
import type { System } from "../../system/system.ts"
import { timeOf } from "../../text/moment.ts"
import { shown } from "../../text/text.ts"
import type { BodyMemory } from "../http/body.ts"
import { jsonFault } from "../http/json-fault.ts"
import type { Json } from "../http/json-schema.ts"
import type { Limits } from "../http/limits.ts"
import { single } from "../http/parameters.ts"
import { readJsonBodies } from "../http/json-body.ts"
import { fault, faultProblem, Problem } from "../http/problem.ts"
import { schemaFault } from "../http/schema-fault.ts"
import type { Jobs, NewJob } from "./jobs.ts"
import { operationProblem, unanswered } from "./problems.ts"

/** What the routes of operations need. */
export interface OperationParts {
  readonly system: System
  /** The status of the system, as `/status` has it. */
  readonly status: Effect.Effect<Readonly<Record<string, unknown>>>
  readonly jobs: Jobs
  readonly held: BodyMemory
  readonly limits: Limits
}

/** The media type of answers. */
export const jsonType = "application/json; charset=utf-8"

/** Adds a route for the scope `operate`. */
export const addRoute = (
  app: FastifyInstance,
  method: "GET" | "POST",
  url: string,
  schema: Json,
  handler: (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>
): void => {
  app.route({ method, url, config: { scope: "operate" }, schema: { tags: ["operations"], ...schema }, handler })
}

/** How long a route waits for the database and the log, in milliseconds. */
const answerMs = 30_000
/** The value of an effect. Rejects with the `Problem` of its error, or 503 if it takes too long. */
export const answerOf = async <A, E>(effect: Effect.Effect<A, E>): Promise<A> => {
  const exit = await Effect.runPromiseExit(Effect.timeoutOption(effect, answerMs))
  if (Exit.isFailure(exit)) throw operationProblem(Cause.squash(exit.cause))
  if (Option.isSome(exit.value)) return exit.value.value
  throw unanswered(`there was no answer within ${answerMs / 1000} s`)
}

/** The parameters that a request has: the schema of the route refuses others, as an ignored `dryRun` would be dangerous. Throws a `Problem` 400 for NUL. */
export const parametersOf = <Name extends string>(
  request: FastifyRequest,
  known: ReadonlyArray<Name>
): Readonly<Partial<Record<Name, string>>> => {
  const query = request.query as Readonly<Record<string, unknown>>
  const given = known.flatMap((name) => {
    const value = single(query[name], name)
    if (value?.includes("\0") === true)
      throw new Problem(
        400,
        "invalid_parameter",
        `the parameter ${name} has the character NUL, which nothing in the database has`,
        "leave the character out"
      )
    return value === undefined ? [] : [[name, value] as const]
  })
  return Object.fromEntries(given) as Readonly<Partial<Record<Name, string>>>
}
/** Whether a parameter says yes. Throws a `Problem` 400 if it is neither `true` nor `false`. */
export const isTrue = (value: string | undefined, name: string): boolean => {
  if (value === undefined || value === "false") return false
  if (value === "true" || value === "") return true
  throw new Problem(
    400,
    "invalid_parameter",
    `the parameter ${name} is ${JSON.stringify(value)}; it must be true or false`,
    `use ${name}=true`
  )
}
/** The names that commas separate. */
export const namesOf = (text: string | undefined): ReadonlyArray<string> | undefined =>
  text?.split(",").map((name) => name.trim())
/** The time that a text names, in epoch milliseconds. Throws a `Problem` 400 if it names none. */
export const momentOf = (text: string | undefined, name: string): number | undefined => {
  if (text === undefined) return undefined
  const time = /^-?\d{1,15}$/.test(text) ? Number(text) : timeOf(text, Date.now())
  if (time !== undefined) return Math.floor(time)
  throw new Problem(
    400,
    "invalid_parameter",
    `${name} is ${JSON.stringify(text)}, which is no time`,
    "use a date such as 2026-01-31T12:00:00Z, epoch milliseconds, or a duration before now such as 2 hours"
  )
}

/** Starts a job, and answers with it: 200 if it has ended, 202 if it runs. Rejects with a `Problem` 409 or 429. */
export const startJob = async (
  { jobs }: OperationParts,
  request: FastifyRequest,
  reply: FastifyReply,
  job: Omit<NewJob, "by">
): Promise<FastifyReply> => {
  const started = await jobs.start({ ...job, by: request.principal.name })
  return reply
    .code(started.status)
    .header("location", `/v1/operations/jobs/${started.id}`)
    .type(jsonType)
    .send(started.json)
}

/** The most bytes of a request's body, which is parsed in one go: the 100,000 keys of a rebuild fit if they have 20 characters. */
const bodyBytes = 2 * 1024 * 1024
/** Reads bodies as text, for `bodyOf`. */
export const readBodies = (app: FastifyInstance, parts: OperationParts): void => {
  readJsonBodies(app, parts, bodyBytes)
  app.addHook("onRequest", (request, reply, done) => {
    reply.raw.once("close", () => request.share?.release())
    reply.header("cache-control", "no-store")
    done()
  })
}
/** The JSON object of a body by its schema; an empty body has no fields. Throws a `Problem` if it is no such object. */
export const bodyOf = <S extends Schema.Top>(request: FastifyRequest, schema: S, { depth }: Limits): S["Type"] => {
  const text = typeof request.body === "string" ? request.body : ""
  let json: unknown
  try {
    json = text.trim() === "" ? {} : parseJson(text, depth)
  } catch (error) {
    const found = jsonFault(error, "command")
    throw faultProblem(found.code === "malformed_json" || found.code === "invalid_utf8" ? 400 : 422, found)
  }
  if (typeof json !== "object" || json === null || Array.isArray(json))
    throw faultProblem(
      422,
      fault("not_an_object", `the body must be a JSON object, but this is ${shown(json)}`, "send {} for no fields")
    )
  try {
    return Schema.decodeUnknownSync(schema as never, { onExcessProperty: "error" })(json) as S["Type"]
  } catch (error) {
    throw faultProblem(422, schemaFault(error, json, "the body"))
  }
}
/** Throws a `Problem` 422 if the body has a field, for a route without any: a `dryRun` that is ignored there would be dangerous. */
export const assertNoFields = (request: FastifyRequest, limits: Limits): void => {
  const [name] = Object.keys(bodyOf(request, Schema.Record(Schema.String, Schema.Unknown), limits))
  if (name === undefined) return
  const message = `the body has the field ${shown(name)}, and this route takes none`
  throw faultProblem(422, fault("schema_mismatch", message, "send no body; dryRun is a parameter: ?dryRun=true", name))
}
/** Throws a `Problem` 422 if a field of a body is not from 1 to the most that it may be. `noun`: what the advice calls its value. */
export const assertCount = (name: string, value: number, most: number, noun = "limit"): void => {
  if (value >= 1 && value <= most) return
  throw new Problem(422, "invalid_operation", `${name} is ${value}`, `use a ${noun} from 1 to ${most}`, undefined, name)
}

/** An argument of a command, quoted for a shell where needed. */
export const quoted = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
/** The text of the command that a request stands for. Options without a value are left out; `true` stands for the option alone. */
export const commandText = (
  words: ReadonlyArray<string>,
  options: Readonly<Record<string, string | number | boolean | null | undefined>> = {}
): string =>
  [
    "millrace",
    ...words.map(quoted),
    ...Object.entries(options).flatMap(([name, value]) =>
      value === undefined || value === null || value === false
        ? []
        : value === true
          ? [`--${name}`]
          : [`--${name}`, quoted(String(value))]
    )
  ].join(" ")
