// Forms from JSON Schemas: the fields of an object, and the value that was typed, or what is wrong with it.
import { parseJson } from "./api.js"

/** A schema without its references and alternatives with null: `{ schema, isNullable }`. */
const plain = (schema, root) => {
  const reference = /^#\/(.+)$/.exec(schema.$ref ?? "")?.[1]
  if (reference !== undefined)
    return plain(
      reference.split("/").reduce((part, name) => part?.[name.replaceAll("~1", "/").replaceAll("~0", "~")], root) ?? {},
      root
    )
  const others = (schema.anyOf ?? schema.oneOf)?.filter(({ type }) => type !== "null")
  if (others?.length === 1) return { ...plain(others[0], root), isNullable: true }
  return { schema, isNullable: false }
}
/**
 * The fields of an object's schema: `{ name, kind, values, isRequired, hint }`. `kind` is `text`, `number`, `flag`, `choice`, `constant` or `json` for all
 * others. `root` is what references in the schema are relative to.
 */
export const fieldsOf = (schema, root = schema) => {
  const { properties = {}, required = [] } = plain(schema, root).schema
  return Object.entries(properties).map(([name, own]) => {
    const { isNullable, schema: field } = plain(own, root)
    const { const: constant, description, enum: values, type } = field
    const isRequired = required.includes(name)
    const kind =
      constant !== undefined || values?.length === 1
        ? "constant"
        : values !== undefined
          ? "choice"
          : ({ string: "text", integer: "number", number: "number", boolean: "flag" }[type] ?? "json")
    return {
      name,
      kind,
      isRequired: isRequired && !isNullable,
      values: constant === undefined ? values : [constant],
      hint: [
        description,
        type === "integer" ? "a whole number" : undefined,
        kind === "json" ? "JSON" : undefined,
        isRequired ? undefined : "may be left out"
      ]
        .filter(Boolean)
        .join("; ")
    }
  })
}
/** The value of an object from texts by field. Throws an `Error` with the field's name for a text that cannot be read. */
export const valueOf = (fields, texts) =>
  Object.fromEntries(
    fields.flatMap(({ isRequired, kind, name, values }) => {
      if (kind === "constant") return [[name, values[0]]]
      const text = texts[name] ?? ""
      if (text === "" && (kind !== "text" || !isRequired)) {
        if (isRequired && kind !== "flag") throw new Error(`${name} is missing`)
        return kind === "flag" && isRequired ? [[name, false]] : []
      }
      if (kind === "text" || kind === "choice") return [[name, text]]
      if (kind === "flag") return [[name, text === "true"]]
      try {
        const value = parseJson(text)
        if (kind === "number" && typeof value !== "number" && value?.text === undefined) throw new Error("no number")
        return [[name, value]]
      } catch {
        throw new Error(`${name} is ${text}, which is no ${kind === "number" ? "number" : "JSON"}`)
      }
    })
  )
