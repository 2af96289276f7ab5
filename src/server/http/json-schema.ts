// Building blocks for the JSON Schemas of requests and responses. Pure.

/** A JSON object, such as a JSON Schema. */
export type Json = Readonly<Record<string, unknown>>

export const text: Json = { type: "string" }
export const integer: Json = { type: "integer" }
export const number: Json = { type: "number" }
export const flag: Json = { type: "boolean" }
/** A time in ISO 8601. */
export const time: Json = { type: "string", format: "date-time" }
/** Any JSON object. */
export const anyObject: Json = { type: "object", additionalProperties: true }
/** A schema with a description. */
export const described = (schema: Json, description: string): Json => ({ ...schema, description })
/** The schema, or null. */
export const nullable = (schema: Json): Json => ({ anyOf: [schema, { type: "null" }] })
/** An array of values of a schema. */
export const list = (items: Json): Json => ({ type: "array", items })
/** One of some texts. */
export const oneOf = (...values: ReadonlyArray<string>): Json => ({ type: "string", enum: values })
/** An object that has all of `fields`, and may have those of `more`. */
export const object = (fields: Readonly<Record<string, Json>>, more: Readonly<Record<string, Json>> = {}): Json => ({
  type: "object",
  properties: { ...fields, ...more },
  required: Object.keys(fields)
})
