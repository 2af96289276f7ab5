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
  // a copy that begins with all of its fields costs half of one that gets them one by one
  const empty: Record<string, unknown> = type === undefined ? {} : { type }
  for (const { isAbsent, name } of checks) if (!isAbsent) empty[name] = undefined
  return (value) => {
    if (typeof value !== "object" || value === null) return undefined
    const from = value as Values
    if (type !== undefined && from["type"] !== type) return undefined
    const copy = { ...empty }
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

/** A string as JSON text if that has no escapes and only ASCII. */
const bareText = (text: string): string | undefined => (bare.test(text) ? `"${text}"` : undefined)

/** A function that writes the JSON text of values that `copier` accepts; undefined for others, and if `write` has no text for a string. */
const writer = (
  fields: Fields,
  write: (text: string) => string | undefined
): ((value: Values) => string | undefined) => {
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
      const written = typeof field === "string" ? write(field) : String(field)
      if (written === undefined) return undefined
      text += before + written
    }
    return `${text}}`
  }
}

/** Whether all fields are plain, with names that every store can hold. */
const isPlainly = (fields: Fields): boolean =>
  Object.entries(fields).every(([name, schema]) => plain.has(schema) && isStorable(name) && name !== "__proto__") &&
  Object.keys(fields).length > 0

/** A function that returns whether `writer` writes a value, with all its texts and numbers as JSON can have them. False says nothing. */
const plainness = (fields: Fields): ((value: Values) => boolean) => {
  if (!isPlainly(fields)) return () => false
  const checks = Object.entries(fields).map(([name, schema]) => ({ name, fits: plain.get(schema) }))
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
  /** The same text if it is one object of plain values in ASCII without escapes: no reader can refuse it. Undefined says nothing. */
  readonly plainText: (value: unknown) => string | undefined
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
  const write = type === undefined ? writer(fields, quoted) : () => undefined
  const writePlain = type === undefined && isPlainly(fields) ? writer(fields, bareText) : () => undefined
  const isPlain = type === undefined ? plainness(fields) : () => false
  const written = (value: unknown) => copy(value) ?? encode(value)
  return {
    decode: (json) => copy(json) ?? decode(json),
    encode: written,
    check: (value) => copy(value) ?? (check ??= Schema.decodeUnknownSync(Schema.toType(schema)))(value),
    stringify: (value) => write(value as Values) ?? JSON.stringify(written(value)),
    plainText: (value) => writePlain(value as Values),
    isPlain: (value) => isPlain(value as Values)
  }
}
