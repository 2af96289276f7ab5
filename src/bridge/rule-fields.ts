// The fields of a bridge's definition, by name and kind: a filter whose name is misspelled would let everything through. Whether rules make sense is not its matter. Pure.
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

/** What is wrong with the fields of a definition, with where and what to do; undefined: nothing. */
export const misshapen = (options: unknown): string | undefined => {
  const exit = decode(options)
  if (Exit.isSuccess(exit)) return undefined
  const error = Cause.squash(exit.cause)
  if (!Schema.isSchemaError(error)) return String(error)
  const { issues } = issuesOf(error.issue)
  // of several kinds that a field may have, the one that it comes nearest to tells most
  const [issue] = issues.toSorted((a, b) => (b.path?.length ?? 0) - (a.path?.length ?? 0))
  const path = (issue?.path ?? []).map(keyOf).map((key) => (/^\d+$/.test(key) ? `[${key}]` : `.${key}`))
  const field = path.join("").replace(/^\./, "")
  const message = issue?.message ?? error.message
  if (message === "Missing key") return `${field} is missing; add it`
  if (message === "Expected no excess property") return `${field} means nothing here; correct its name, or remove it`
  return `${field === "" ? "it" : field}: ${message.replace(/^Expected/, "expected")}; correct it`
}
