// Explains what a schema found wrong with an event: the field, what was expected, and what it has. Pure.
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { describeError } from "../../dead-letter/event-failure.ts"
import { UnknownVersion } from "../../model/event.ts"
import { UnknownEventType } from "../../model/topic.ts"
import { shown } from "../../text/text.ts"
import { fault, type Fault } from "./problem.ts"

const issuesOf = SchemaIssue.makeFormatterStandardSchemaV1()

const segmentOf = (segment: unknown): PropertyKey =>
  typeof segment === "object" && segment !== null && "key" in segment
    ? (segment.key as PropertyKey)
    : (segment as PropertyKey)

const at = (value: unknown, path: ReadonlyArray<PropertyKey>): unknown =>
  path.reduce<unknown>((inner, name) => (inner as Record<PropertyKey, unknown> | null | undefined)?.[name], value)

/** The error that a decoder threw, as a fault. `what` is the name of the expected shape, as `payment`. */
export const schemaFault = (error: unknown, json: unknown, what: string): Fault => {
  if (error instanceof UnknownVersion) {
    return fault(
      "unknown_schema_version",
      error.message,
      `send a version from 1 to ${error.newest}, or leave the field out`,
      "schema_version"
    )
  }
  if (error instanceof UnknownEventType) {
    return fault("unknown_event_type", error.message, `send one of ${error.known.join(", ")}`, "type")
  }
  if (!Schema.isSchemaError(error)) {
    const reason = describeError(error).message
    return fault(
      "schema_mismatch",
      `${what} does not fit its schema: ${reason}`,
      "compare the event with its schema in /openapi.json"
    )
  }
  const [issue] = issuesOf(error.issue).issues
  const path = (issue?.path ?? []).map(segmentOf)
  const field = path.join(".")
  const message = issue?.message ?? error.message
  if (message === "Missing key") {
    return fault(
      "schema_mismatch",
      `${field} is missing`,
      `add ${field}; the schema of ${what} is in /openapi.json`,
      field
    )
  }
  const expected = message.replace(/^Expected /, "expected ")
  const advice = `correct ${field === "" ? "the value" : field}; the schema of ${what} is in /openapi.json`
  return fault(
    "schema_mismatch",
    `${field === "" ? what : field}: ${expected}, got ${shown(at(json, path))}`,
    advice,
    field
  )
}
