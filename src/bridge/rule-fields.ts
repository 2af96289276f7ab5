// Checks the names and types of the fields of a bridge's definition. Unknown fields are refused, because a rule with a misspelled filter would
// mirror everything. Pure.
import * as Exit from "effect/Exit"
import * as Cause from "effect/Cause"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"

const text = Schema.optionalKey(Schema.String)
const texts = Schema.Record(Schema.String, Schema.String)
const code = Schema.declare((value: unknown): value is () => unknown => typeof value === "function", {
  expected: "an object with `header`, or a function"
})
const Filter = Schema.Struct({
  header: Schema.NonEmptyString,
  equals: Schema.optionalKey(Schema.Union([Schema.String, Schema.Array(Schema.String)])),
  matches: text,
  not: Schema.optionalKey(Schema.Boolean)
})
const Headers = Schema.Struct({
  drop: Schema.optionalKey(Schema.Array(Schema.String)),
  rename: Schema.optionalKey(texts),
  set: Schema.optionalKey(texts)
})
const Rule = Schema.Struct({
  name: text,
  from: Schema.String,
  to: Schema.String,
  where: Schema.optionalKey(Schema.Union([code, Schema.Array(Filter), Filter])),
  key: Schema.optionalKey(Schema.Union([code, Schema.Struct({ header: Schema.NonEmptyString })])),
  headers: Schema.optionalKey(Headers),
  tenants: Schema.optionalKey(texts),
  start: Schema.optionalKey(Schema.Literals(["earliest", "latest"])),
  lost: Schema.optionalKey(Schema.Literals(["halt", "continue"])),
  batching: Schema.optionalKey(Schema.Boolean),
  errors: text
})
const Definition = Schema.Struct({ name: text, pulsar: text, rules: Schema.Array(Rule) })

const decode = Schema.decodeUnknownExit(Definition, { onExcessProperty: "error" })
const issuesOf = SchemaIssue.makeFormatterStandardSchemaV1()
const keyOf = (segment: PropertyKey | { readonly key: PropertyKey }) =>
  String(typeof segment === "object" ? segment.key : segment)

/** Names of types as a sentence has them. */
const articles: Readonly<Record<string, string>> = {
  string: "a string",
  array: "an array",
  object: "an object",
  boolean: "true or false"
}
const expectationOf = (message: string) =>
  message
    .replace(/^Expected /, "")
    .replace(/, got .*$/s, "")
    .split(" | ")
    .map((type) => articles[type] ?? type)
    .join(" or ")
/** The value at a path, cut to a length that fits a line. */
const valueAt = (options: unknown, path: ReadonlyArray<string>): string => {
  const value = path.reduce<unknown>((at, key) => (at as Record<string, unknown>)[key], options)
  return (JSON.stringify(value) ?? String(value)).slice(0, 100)
}

/** What is wrong with the fields of a definition, where, and what to do about it; undefined if nothing is. */
export const definitionProblem = (options: unknown): string | undefined => {
  const exit = decode(options)
  if (Exit.isSuccess(exit)) return undefined
  const error = Cause.squash(exit.cause)
  if (!Schema.isSchemaError(error)) return String(error)
  const { issues } = issuesOf(error.issue)
  // a field may have one of several types: report the issue of the type that fits furthest into the value
  const [issue] = issues.toSorted((a, b) => (b.path?.length ?? 0) - (a.path?.length ?? 0))
  const path = (issue?.path ?? []).map(keyOf)
  const field = path
    .map((key) => (/^\d+$/.test(key) ? `[${key}]` : `.${key}`))
    .join("")
    .replace(/^\./, "")
  const message = issue?.message ?? error.message
  if (message === "Missing key") return `${field} is missing; add it`
  if (message === "Expected no excess property") return `${field} is not a known field; correct its name, or remove it`
  const what = field === "" ? "the definition" : field
  return `${what} is ${valueAt(options, path)}, but must be ${expectationOf(message)}; correct it`
}
