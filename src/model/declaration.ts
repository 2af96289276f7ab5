// Refuses declarations that can never work: missing or unknown options, fields that are no schemas, keys by fields that values do not have.
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import { shown } from "../text/text.ts"
import type { Fields } from "./fields.ts"

/** A declaration that can never work. `what` names it, `reason` says why and what to do. */
export class InvalidDeclaration extends Schema.TaggedError<InvalidDeclaration>()("InvalidDeclaration", {
  what: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `${this.what}: ${this.reason}`
  }
}
/** Throws `InvalidDeclaration`. */
export const refuse = (what: string, reason: string): never => {
  throw new InvalidDeclaration({ what, reason })
}

/** Throws `InvalidDeclaration` if the options are no object, have a name that is not known, or lack one that is required. */
export const assertOptions = (
  what: string,
  options: unknown,
  known: ReadonlyArray<string>,
  required: ReadonlyArray<string> = []
): void => {
  if (typeof options !== "object" || options === null || Array.isArray(options))
    return refuse(what, `the options are ${shown(options)}; give an object`)
  const unknown = Object.keys(options).find((name) => !known.includes(name))
  if (unknown !== undefined) {
    const similar = known.find((name) => isSimilar(name, unknown))
    const hint = similar === undefined ? `known are ${known.join(", ")}` : `did you mean \`${similar}\`?`
    refuse(what, `it has no option \`${unknown}\`; ${hint}`)
  }
  const missing = required.find((name) => (options as Readonly<Record<string, unknown>>)[name] === undefined)
  if (missing !== undefined) refuse(what, `\`${missing}\` is missing; declare it`)
}
const isSimilar = (name: string, given: string): boolean => {
  const [a, b] = [name.toLowerCase(), given.toLowerCase()]
  if (a === b || a.startsWith(b) || b.startsWith(a)) return true
  if (Math.abs(a.length - b.length) > 1) return false
  // all but two letters at the same place, from the left or from the right
  const from = (i: number, j: number) => (a[i] === b[j] ? 1 : 0)
  let [left, right] = [0, 0]
  while (left < a.length && from(left, left) === 1) left++
  while (right < a.length - left && from(a.length - 1 - right, b.length - 1 - right) === 1) right++
  return a.length > 3 && left + right >= a.length - 2
}

const typeOf = (schema: Fields[string]): string => SchemaAST.toType(schema.ast as SchemaAST.AST)._tag
const neverStored: ReadonlySet<string> = new Set(["Never", "Void", "Undefined", "Null", "Symbol", "UniqueSymbol"])
/** Throws `InvalidDeclaration` if a field is no schema, or if no value of it can be stored. */
export const assertFields = (what: string, fields: unknown): void => {
  if (typeof fields !== "object" || fields === null || Array.isArray(fields))
    return refuse(what, `the fields are ${shown(fields)}; give an object of schemas, as \`{ name: Schema.String }\``)
  for (const [name, schema] of Object.entries(fields as Readonly<Record<string, unknown>>)) {
    if (!Schema.isSchema(schema))
      refuse(what, `\`${name}\` is ${shown(schema)}, which is no schema; use one, as \`Schema.String\``)
    const type = typeOf(schema as unknown as Fields[string])
    if (neverStored.has(type))
      refuse(what, `\`${name}\` has the schema ${type}, of which no value can be stored; use another schema`)
  }
}

/** The fields that values of one kind have; `name` says which. */
export interface ValueShape {
  readonly name: string
  readonly fields: Fields
}
const notText: ReadonlySet<string> = new Set(["Number", "Boolean", "BigInt", "Objects", "Arrays", ...neverStored])
const notTime: ReadonlySet<string> = new Set([
  "String",
  "TemplateLiteral",
  "Boolean",
  "BigInt",
  "Objects",
  "Arrays",
  ...neverStored
])
/** Whether a value of the schema may be a text. */
export const canBeText = (schema: Fields[string]): boolean => !notText.has(typeOf(schema))
/** Throws `InvalidDeclaration` if `by` names a field that values of some kind do not have, or that is never a text, or never a number. */
export const assertSelected = (
  what: string,
  by: unknown,
  shapes: ReadonlyArray<ValueShape>,
  kind: "text" | "number"
): void => {
  if (typeof by === "function" || by === undefined) return
  if (typeof by !== "string") return refuse(what, `it is ${shown(by)}; give the name of a field, or a function`)
  for (const { fields, name } of shapes) {
    const schema = Object.hasOwn(fields, by) ? fields[by] : undefined
    if (schema === undefined)
      return refuse(
        what,
        `${name} has no field \`${by}\`; it has ${Object.keys(fields).join(", ") || "none"}. Name one of them, or give a function`
      )
    if ((kind === "text" ? notText : notTime).has(typeOf(schema)))
      refuse(what, `the field \`${by}\` of ${name} is never a ${kind}; name another one, or give a function`)
  }
}
