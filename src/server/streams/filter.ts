// The filters of a stream: on key, tenant, and fields of the value, as query parameters. Pure.
import * as Schema from "effect/Schema"
import type { LogRecord } from "../../log/log.ts"
import type { Topic } from "../../model/topic.ts"
import { adviceFor } from "../../text/similar-names.ts"
import { shown } from "../../text/text.ts"
import { invalidParameter, mostFilters, type Operator, operators, valuesOfIn } from "../http/filters.ts"
import { jsonSchemaOf } from "../http/openapi.ts"
import type { Json } from "../http/json-schema.ts"
import { single } from "../http/parameters.ts"
import { Problem } from "../http/problem.ts"
import { jsonOf } from "./values.ts"

type Kind = "text" | "number" | "whole" | "boolean" | "null" | "list" | "object" | "any"
/** What a field's values may be, in all versions of all event types. */
interface Field {
  readonly kinds: Set<Kind>
  /** The only texts that it may be; undefined: any. */
  texts: Set<string> | undefined
}
/** The fields of a topic's values by their names, as `attributes.delay`; undefined if the topic declares none. */
export type ValueFields = ReadonlyMap<string, Field> | undefined

/** How deep fields may be. */
const mostDepth = 4

const types: Readonly<Record<string, Kind>> = {
  string: "text",
  number: "number",
  integer: "number",
  boolean: "boolean",
  null: "null",
  array: "list",
  object: "object"
}
const addTo = (fields: Map<string, Field>, name: string, schema: Json, definitions: Json, depth: number): void => {
  const reference = /^#\/\$defs\/(.+)$/.exec(String(schema["$ref"] ?? ""))?.[1]
  const own = (reference === undefined ? schema : (definitions[reference] ?? {})) as Json
  const alternatives = own["anyOf"] ?? own["oneOf"]
  if (Array.isArray(alternatives) && depth < mostDepth) {
    for (const one of alternatives as ReadonlyArray<Json>) addTo(fields, name, one, definitions, depth + 1)
    return
  }
  const known = types[String(own["type"])]
  const kind = known === "text" && own["pattern"] === "^-?\\d+$" ? "whole" : (known ?? "any")
  if (name !== "") {
    const field = fields.get(name) ?? { kinds: new Set(), texts: new Set() }
    fields.set(name, field)
    field.kinds.add(kind)
    if (kind === "text" && !Array.isArray(own["enum"])) field.texts = undefined
    else if (kind === "text") for (const text of own["enum"] as ReadonlyArray<string>) field.texts?.add(text)
  }
  if (kind !== "object" || depth >= mostDepth) return
  for (const [part, of] of Object.entries((own["properties"] ?? {}) as Readonly<Record<string, Json>>))
    addTo(fields, name === "" ? part : `${name}.${part}`, of, definitions, depth + 1)
}

/** The fields of a topic's values. */
export const fieldsOf = (topic: Pick<Topic.Any, "eventTypes" | "shapes">): ValueFields => {
  const shapes =
    topic.eventTypes === undefined
      ? topic.shapes?.map(({ fields }) => fields)
      : [...topic.eventTypes.values()].flatMap(({ type, versions }) =>
          versions.map(({ fields }) => ({ type: Schema.Literal(type), ...fields }))
        )
  if (shapes === undefined) return undefined
  const fields = new Map<string, Field>()
  for (const shape of shapes) {
    for (const [name, schema] of Object.entries(shape)) {
      // a field whose schema has no JSON Schema may be anything
      const json = jsonSchemaOf(schema as Schema.Constraint) ?? {}
      addTo(fields, name, json, (json["$defs"] ?? {}) as Json, 1)
    }
  }
  return fields
}

/** The field and the operator of a parameter such as `value.amount.gt`, without `value.`. Throws a `Problem` 400. */
const targetOf = (text: string, topic: string, fields: ValueFields) => {
  const dot = text.lastIndexOf(".")
  const operator = operators.find((one) => one === text.slice(dot + 1))
  if (fields === undefined)
    return dot < 0 || operator === undefined
      ? { name: text, operator: "eq" as const, field: undefined }
      : { name: text.slice(0, dot), operator, field: undefined }
  const exact = fields.get(text)
  if (exact !== undefined) return { name: text, operator: "eq" as const, field: exact }
  const field = dot < 0 ? undefined : fields.get(text.slice(0, dot))
  if (field === undefined) {
    const name = operator === undefined || dot < 0 ? text : text.slice(0, dot)
    const advice = adviceFor(name, [...fields.keys()]) ?? "leave it out"
    throw new Problem(400, "unknown_column", `the values of ${topic} have no field ${shown(name)}`, advice)
  }
  if (operator !== undefined) return { name: text.slice(0, dot), operator, field }
  const asked = text.slice(dot + 1)
  const advice = adviceFor(asked, operators) ?? `one of ${operators.join(", ")}`
  throw new Problem(400, "unknown_operator", `${shown(asked)} is no operator of a filter`, advice)
}

/** A value of a parameter, as each kind of JSON value is compared with it. */
interface Operand {
  readonly text: string
  readonly number: number
  readonly whole: bigint | undefined
}
const number = /^[+-]?(\d{1,400}(\.\d{0,400})?|\.\d{1,400})(e[+-]?\d{1,3})?$/i
const operandOf = (parameter: string, text: string, name: string, field: Field | undefined): Operand => {
  const isNumber = number.test(text)
  const isWhole = /^-?\d{1,1000}$/.test(text)
  if (field !== undefined && !field.kinds.has("any")) {
    const { kinds, texts } = field
    const fits =
      (kinds.has("text") && texts === undefined) ||
      texts?.has(text) === true ||
      (kinds.has("number") && isNumber) ||
      (kinds.has("whole") && isWhole) ||
      (kinds.has("boolean") && (text === "true" || text === "false"))
    if (!fits) {
      if (texts !== undefined && texts.size > 0 && !kinds.has("number"))
        throw invalidParameter(
          `the parameter ${parameter} is ${shown(text)}, which ${name} never is`,
          adviceFor(text, [...texts]) ?? "use another text"
        )
      const forms = [
        kinds.has("number") ? "a number" : undefined,
        kinds.has("whole") ? "a whole number" : undefined,
        kinds.has("boolean") ? "true or false" : undefined
      ].filter((form) => form !== undefined)
      throw invalidParameter(
        `the parameter ${parameter} is ${shown(text)}, and ${name} is ${forms.join(" or ") || [...kinds].join(" or ")}`,
        forms.length > 0 ? `use ${forms.join(" or ")}` : `filter by a field of it, or by ${name}.null`
      )
    }
  }
  return {
    text,
    number: isNumber ? Number(text) : NaN,
    whole: field?.kinds.has("whole") === true && isWhole ? BigInt(text) : undefined
  }
}
/** Compares a JSON value with an operand: below 0, 0 or above 0; undefined if they are not of one kind. */
const compare = (value: unknown, { number, text, whole }: Operand): number | undefined => {
  if (typeof value === "string") {
    if (whole !== undefined && /^-?\d{1,1000}$/.test(value)) {
      const own = BigInt(value)
      return own < whole ? -1 : own > whole ? 1 : 0
    }
    return value < text ? -1 : value > text ? 1 : 0
  }
  if (typeof value === "number") return Number.isNaN(number) ? undefined : value - number
  if (typeof value === "boolean")
    return text === "true" || text === "false" ? Number(value) - Number(text === "true") : undefined
  return undefined
}
const holds: Readonly<Record<Exclude<Operator, "in" | "prefix" | "null">, (order: number | undefined) => boolean>> = {
  eq: (order) => order === 0,
  ne: (order) => order !== 0,
  gt: (order) => order !== undefined && order > 0,
  gte: (order) => order !== undefined && order >= 0,
  lt: (order) => order !== undefined && order < 0,
  lte: (order) => order !== undefined && order <= 0
}

/** The value of a field; undefined if there is none. A field's own name may have dots. */
const at = (value: unknown, name: string): unknown => {
  if (typeof value !== "object" || value === null) return undefined
  if (Object.hasOwn(value, name)) return (value as Readonly<Record<string, unknown>>)[name]
  for (let dot = name.indexOf("."); dot >= 0; dot = name.indexOf(".", dot + 1)) {
    const head = name.slice(0, dot)
    if (Object.hasOwn(value, head)) return at((value as Readonly<Record<string, unknown>>)[head], name.slice(dot + 1))
  }
  return undefined
}

type Wants = (record: LogRecord) => boolean
const filterOf = (parameter: string, text: string, topic: string, fields: ValueFields): Wants => {
  const { field, name, operator } = targetOf(parameter.slice("value.".length), topic, fields)
  const valueOf = (record: LogRecord): unknown => at(jsonOf(record), name)
  if (operator === "null") {
    if (text !== "true" && text !== "false")
      throw invalidParameter(`the parameter ${parameter} is ${shown(text)}`, "use true or false")
    return (record) => ((valueOf(record) ?? null) === null) === (text === "true")
  }
  if (operator === "prefix") {
    if (field !== undefined && !field.kinds.has("text") && !field.kinds.has("any"))
      throw invalidParameter(`${name} is no text, and only texts have a prefix`, `use ${name}.gte and ${name}.lt`)
    return (record) => {
      const value = valueOf(record)
      return typeof value === "string" && value.startsWith(text)
    }
  }
  if (operator === "in") {
    const operands = valuesOfIn(parameter, text).map((one) => operandOf(parameter, one, name, field))
    return (record) => {
      const value = valueOf(record)
      return operands.some((one) => compare(value, one) === 0)
    }
  }
  const operand = operandOf(parameter, text, name, field)
  const isHeld = holds[operator]
  return (record) => isHeld(compare(valueOf(record), operand))
}

/** Parameters that are no filters of the value. */
const reserved = ["from", "key", "entity_id", "tenant", "envelope", "access_token"]

/** Which records a request wants, by `key` (or `entity_id`) and by `value.FIELD` and `value.FIELD.OPERATOR`. Throws a `Problem` 400. */
export const wantsOf = (query: Readonly<Record<string, unknown>>, topic: string, fields: ValueFields): Wants => {
  const names = Object.keys(query).filter((name) => !reserved.includes(name))
  if (names.length > mostFilters)
    throw invalidParameter(`the request has ${names.length} filters`, `use at most ${mostFilters}`)
  const filters: Array<Wants> = []
  for (const name of ["key", "entity_id"]) {
    const key = single(query[name], name)
    if (key !== undefined) filters.push((record) => record.key === key)
  }
  for (const name of names) {
    if (name === "waitFor")
      throw invalidParameter("a stream does not wait for a token, it starts at one", "send the token as from")
    if (!name.startsWith("value.")) {
      const known = [...reserved, ...[...(fields?.keys() ?? [])].map((field) => `value.${field}`)]
      throw invalidParameter(
        `a stream has no parameter ${shown(name)}`,
        fields?.has(name.replace(/\.[^.]*$/, "")) === true || fields?.has(name) === true
          ? `did you mean value.${name}?`
          : (adviceFor(name, known) ?? "leave it out")
      )
    }
    filters.push(filterOf(name, single(query[name], name)!, topic, fields))
  }
  return (record) => filters.every((wants) => wants(record))
}
