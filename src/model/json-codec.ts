// Encodes and decodes objects of declared fields as JSON: directly if every field is plain, by their schema otherwise. Pure.
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import { isStorable } from "../text/text.ts"
import type { Fields } from "./fields.ts"

/** Whether a value fits a schema whose values are their own JSON. */
type Fits = (value: unknown) => boolean
type Values = Readonly<Record<string, unknown>>

/** Schemas whose values are their own JSON. All others, such as strings with checks, are decoded by the schema. */
const plain: ReadonlyMap<unknown, Fits> = new Map<unknown, Fits>([
  [Schema.String, (value) => typeof value === "string"],
  [Schema.Finite, (value) => Number.isFinite(value)],
  [Schema.Int, (value) => Number.isSafeInteger(value)],
  [Schema.Boolean, (value) => typeof value === "boolean"]
])
const absent: Fits = (value) => value === undefined
const isOptional = (schema: Fields[string]) =>
  (schema.ast as { readonly context?: { readonly isOptional?: boolean } }).context?.isOptional === true

/**
 * A function that copies the declared fields of a value, in their order. It returns undefined if a field is not plain or does not fit, or if
 * an optional field is present: then the schema has to decode the value, or report what is wrong. Ten times as fast as the schema.
 */
const copier = (fields: Fields, type: string | undefined): ((value: unknown) => Values | undefined) => {
  const checks = Object.entries(fields).map(([name, schema]) => {
    const fits = plain.get(schema) ?? (isOptional(schema) ? absent : undefined)
    return fits === undefined ? undefined : { name, fits, isAbsent: fits === absent }
  })
  // `__proto__` is no ordinary property, so the schema decodes it
  if (!checks.every((check) => check !== undefined) || Object.hasOwn(fields, "__proto__")) return () => undefined
  return (value) => {
    if (typeof value !== "object" || value === null) return undefined
    const from = value as Values
    const copy: Record<string, unknown> = {}
    if (type !== undefined) {
      if (from["type"] !== type) return undefined
      copy["type"] = type
    }
    for (let i = 0; i < checks.length; i++) {
      const { fits, isAbsent, name } = checks[i]!
      const field = from[name]
      if (!fits(field)) return undefined
      if (!isAbsent) copy[name] = field
      else if (name in from) return undefined
    }
    return copy
  }
}

// characters that JSON writes as they are
const bare = /^[ !#-[\]-~]*$/
/** A string as JSON text. */
export const quoted = (text: string): string => (bare.test(text) ? `"${text}"` : JSON.stringify(text))

/** A function that writes the JSON text of values that `copier` accepts; undefined for others. */
const writer = (fields: Fields): ((value: Values) => string | undefined) => {
  const checks = Object.entries(fields).map(([name, schema], i) => {
    const fits = plain.get(schema)
    return fits && { name, fits, before: `${i === 0 ? "{" : ","}${JSON.stringify(name)}:` }
  })
  if (checks.length === 0 || !checks.every((check) => check !== undefined)) return () => undefined
  return (value) => {
    let text = ""
    for (let i = 0; i < checks.length; i++) {
      const { before, fits, name } = checks[i]!
      const field = value[name]
      if (!fits(field)) return undefined
      // String(-0) is "0", as in JSON
      text += before + (typeof field === "string" ? quoted(field) : String(field))
    }
    return `${text}}`
  }
}

/** A function that returns whether `writer` writes a value, with all its texts and numbers as JSON can have them. False says nothing. */
const plainness = (fields: Fields): ((value: Values) => boolean) => {
  const checks = Object.entries(fields).map(([name, schema]) => ({ name, fits: plain.get(schema) }))
  const isKnown = checks.every(({ fits, name }) => fits !== undefined && isStorable(name) && name !== "__proto__")
  if (checks.length === 0 || !isKnown) return () => false
  return (value) => {
    for (let i = 0; i < checks.length; i++) {
      const { fits, name } = checks[i]!
      const field = value[name]
      if (!fits!(field) || (typeof field === "string" && !isStorable(field))) return false
    }
    return true
  }
}

/** Decodes and encodes objects of declared fields; other fields are left out. Both throw a `Schema.SchemaError` that names what does not fit. */
export interface Codec {
  readonly decode: (json: unknown) => unknown
  readonly encode: (value: unknown) => unknown
  /** A value that was decoded or made, with the declared fields only. Throws a `Schema.SchemaError` if it does not fit. */
  readonly check: (value: unknown) => unknown
  /** The JSON text of what `encode` returns; undefined if it has none. */
  readonly stringify: (value: unknown) => string | undefined
  /** Whether `stringify` certainly has a text for a value, in one object whose texts every store can hold. */
  readonly isPlain: (value: unknown) => boolean
}
/** Whether a schema has values that JSON does not have, such as dates, by what it encodes to. */
const isForeign = (ast: SchemaAST.AST): boolean => {
  switch (ast._tag) {
    case "Declaration":
    case "BigInt":
      return true
    case "Union":
      return ast.types.some(isForeign)
    case "Arrays":
      return [...ast.elements, ...ast.rest].some(isForeign)
    case "Objects":
      return (
        ast.propertySignatures.some(({ type }) => isForeign(type)) ||
        ast.indexSignatures.some(({ type }) => isForeign(type))
      )
    default:
      return false
  }
}
/** The fields, with the JSON form of those whose values JSON does not have: a `Schema.Date` is a text in ISO 8601, as in columns. */
const jsonFields = (fields: Fields): Fields =>
  Object.fromEntries(
    Object.entries(fields).map(([name, schema]) => [
      name,
      isForeign(SchemaAST.toEncoded(schema.ast as SchemaAST.AST))
        ? (Schema.toCodecJson(schema as unknown as Schema.Codec<unknown>) as unknown as Fields[string])
        : schema
    ])
  )
/** The codec of objects with these fields; with `type`, of events of that type. */
export const codec = (fields: Fields, type?: string): Codec => {
  const own = jsonFields(fields)
  const schema = Schema.Struct(type === undefined ? own : { type: Schema.Literal(type), ...own })
  const copy = copier(fields, type)
  const decode = Schema.decodeUnknownSync(schema)
  const encode = Schema.encodeUnknownSync(schema)
  // few values need it
  let check: ((value: unknown) => unknown) | undefined
  const write = type === undefined ? writer(fields) : () => undefined
  const isPlain = type === undefined ? plainness(fields) : () => false
  const written = (value: unknown) => copy(value) ?? encode(value)
  return {
    decode: (json) => copy(json) ?? decode(json),
    encode: written,
    check: (value) => copy(value) ?? (check ??= Schema.decodeUnknownSync(Schema.toType(schema)))(value),
    stringify: (value) => write(value as Values) ?? JSON.stringify(written(value)),
    isPlain: (value) => isPlain(value as Values)
  }
}
