// Reads a command from JSON: the id and the name are given beside it, and may be among its fields. Pure.
import { parseJson } from "../../log/json.ts"
import type { Aggregate } from "../../model/aggregate.ts"
import { shown } from "../../text/text.ts"
import { jsonFault } from "../http/json-fault.ts"
import type { Limits } from "../http/limits.ts"
import { fault, faultProblem, Problem } from "../http/problem.ts"
import { schemaFault } from "../http/schema-fault.ts"
import { assertCommand } from "./catalog.ts"

type Json = Readonly<Record<string, unknown>>

/** The JSON object of a command's text; an empty text has no fields. Throws a `Problem` if it is no acceptable object. */
export const commandJson = (text: string, { depth, eventBytes }: Pick<Limits, "depth" | "eventBytes">): Json => {
  if (text.trim() === "") return {}
  const bytes = Buffer.byteLength(text)
  if (bytes > eventBytes)
    throw new Problem(
      413,
      "body_too_large",
      `the command has ${bytes} bytes; the limit is ${eventBytes}`,
      "store large parts elsewhere, and send a reference"
    )
  let json: unknown
  try {
    json = parseJson(text, depth)
  } catch (error) {
    const found = jsonFault(error, "command")
    throw faultProblem(found.code === "malformed_json" || found.code === "invalid_utf8" ? 400 : 422, found)
  }
  if (typeof json === "object" && json !== null && !Array.isArray(json)) return json as Json
  const message = `a command must be a JSON object, but this is ${shown(json)}`
  throw faultProblem(422, fault("not_an_object", message, "send an object with the command's fields, as {} for none"))
}

/**
 * The command of an aggregate with this name. The field of the id and `type` may be left out of its JSON. Throws a `Problem`: 404 if there is
 * no such command, 400 if its JSON names another id or command, 422 if a field is missing or does not fit.
 */
export const commandOf = (
  aggregate: Aggregate.Any,
  id: string,
  name: string,
  json: Json
): Aggregate.Command<Aggregate.Any> => {
  assertCommand(aggregate, name)
  const given: Array<readonly [field: string, value: string]> = [["type", name]]
  if (aggregate.id !== undefined) given.push([aggregate.id, id])
  for (const [field, value] of given) {
    if (json[field] === undefined || json[field] === value) continue
    const message = `${field} is ${shown(json[field])}, but the command is sent to ${shown(value)}`
    throw new Problem(400, "id_mismatch", message, `send the same, or leave ${field} out`, undefined, field)
  }
  const whole = { ...json, ...Object.fromEntries(given) }
  try {
    return aggregate.decodeCommand(whole)
  } catch (error) {
    throw faultProblem(422, schemaFault(error, whole, `the command ${name}`))
  }
}
