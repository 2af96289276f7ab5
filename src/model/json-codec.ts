// Objects of declared fields as JSON and back, as their schemas would do it: at once where every field is a plain one, by the schema where not.
import * as Schema from "effect/Schema"
import type { Fields } from "./fields.ts"

/** Whether a value is one of the schema, and so is its JSON form and the other way round. */
type Fits = (value: unknown) => boolean
type Values = Readonly<Record<string, unknown>>

/** Schemas whose values are their own JSON. Any other, a checked string too, is the schema's own to read. */
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
 * Takes the declared fields of a value that is its own JSON, in their order; undefined where a field is not plain, does not fit, or is
 * there though it may be missing: the schema then says what it becomes, or what is wrong. A plain struct costs a tenth of its schema.
 */
const copier = (fields: Fields, type: string | undefined): ((value: unknown) => Values | undefined) => {
  const checks = Object.entries(fields).map(([name, schema]) => {
    const fits = plain.get(schema) ?? (isOptional(schema) ? absent : undefined)
    return fits === undefined ? undefined : { name, fits, isAbsent: fits === absent }
  })
  // a name that is no ordinary property is the schema's too
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

// nothing of this is written otherwise than as it is
const bare = /^[ !#-[\]-~]*$/
/** A text as JSON. */
export const quoted = (text: string): string => (bare.test(text) ? `"${text}"` : JSON.stringify(text))

/** The JSON of the declared fields, of values that `copier` takes. */
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
      // minus zero is 0 in JSON and in a text
      text += before + (typeof field === "string" ? quoted(field) : String(field))
    }
    return `${text}}`
  }
}

/** Reads and writes objects of declared fields; other fields are left out. Both throw a `Schema.SchemaError` that names what does not fit. */
export interface Codec {
  readonly decode: (json: unknown) => unknown
  readonly encode: (value: unknown) => unknown
  /** The JSON text of what `encode` makes; undefined where that has none. */
  readonly stringify: (value: unknown) => string | undefined
}
/** The codec of fields, and of events of a type where one is given. */
export const codec = (fields: Fields, type?: string): Codec => {
  const schema = Schema.Struct(type === undefined ? fields : { type: Schema.Literal(type), ...fields })
  const copy = copier(fields, type)
  const decode = Schema.decodeUnknownSync(schema)
  const encode = Schema.encodeUnknownSync(schema)
  const write = type === undefined ? writer(fields) : () => undefined
  const written = (value: unknown) => copy(value) ?? encode(value)
  return {
    decode: (json) => copy(json) ?? decode(json),
    encode: written,
    stringify: (value) => write(value as Values) ?? JSON.stringify(written(value))
  }
}
