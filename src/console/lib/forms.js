// Forms from JSON Schemas: what a form asks for, the value that was typed and what is wrong with it, and samples. What was typed is an object of texts by
// place: `lines/0/sku` is a field; behind a place, `?` says whether it is set, left out or null, `#` how many items it has, `|` which alternative it is,
// and `@0` is the first key of a record.
import { isNumeric, parseJson } from "./json.js"

/** The place of a field, or of an item, below another one. */
export const below = (at, name) => (at === "" ? "" : `${at}/`) + encodeURIComponent(name)
/** A place as the server's errors name it: `lines.0.sku`. */
export const dotted = (at) => at.replaceAll(/\|\d+/g, "").split("/").map(decodeURIComponent).join(".")

/** A schema without references. `roots`: what these may be relative to. */
const resolved = (schema, roots) => {
  const steps = /^#\/(.+)$/.exec(schema.$ref ?? "")?.[1].split("/")
  if (steps !== undefined) {
    const name = (step) => step.replaceAll("~1", "/").replaceAll("~0", "~")
    const found = roots.map((root) => steps.reduce((part, step) => part?.[name(step)], root))
    return resolved(found.find((one) => one !== undefined) ?? {}, roots)
  }
  const { allOf, ...own } = schema
  return allOf === undefined ? own : Object.assign(own, ...allOf.map((one) => resolved(one, roots)))
}
const kinds = { string: "text", integer: "number", number: "number", boolean: "flag" }
/** What tells an alternative from others: its title, the constants among its fields, or its type. */
const labelOf = (schema, roots, i) => {
  const constants = Object.values(schema.properties ?? {})
    .map((one) => resolved(one, roots))
    .flatMap(({ const: constant, enum: values = [] }) => (values.length === 1 ? values : (constant ?? [])))
  return schema.title ?? (constants.length > 0 ? constants.join(" ") : (schema.type ?? `alternative ${i + 1}`))
}

/**
 * What a form asks for: `{ kind, isNullable, description }` and more. `kind` is `text`, `number`, `flag`, `choice` (`values`), `constant` (`value`),
 * `object` (`fields`: nodes with `name` and `isOptional`), `list` (`itemAt(i)`, `least`, `most`), `map` (`item`), `union` (`options`), or `json` for all
 * others. Parts of it are computed when they are read, since a schema may contain itself.
 */
export const nodeOf = (given, roots) => {
  const schema = resolved(given, roots)
  const { description, examples, type } = schema
  const shared = { isNullable: false, description, examples, schema }
  const some =
    schema.anyOf ?? schema.oneOf ?? (Array.isArray(type) ? type.map((one) => ({ ...schema, type: one })) : undefined)
  if (some !== undefined) {
    const all = some.map((one) => resolved(one, roots))
    const others = all.filter((one) => one.type !== "null")
    const isNullable = others.length < all.length
    if (others.length === 1) return { ...nodeOf(others[0], roots), isNullable, ...(description && { description }) }
    const words = others.flatMap((one) => one.enum ?? (one.const === undefined ? [] : [one.const]))
    const typed = others.filter((one) => one.enum === undefined && one.const === undefined)
    if (typed.length === 0) return { ...shared, isNullable, kind: "choice", values: words }
    // a number, or one of the texts that stand for numbers that JSON has not
    if (typed.length === 1 && kinds[typed[0].type] === "number" && words.every((word) => typeof word === "string"))
      return { ...shared, ...nodeOf(typed[0], roots), isNullable, words }
    const options = others.map((one, i) => ({ label: labelOf(one, roots, i), schema: one }))
    return { ...shared, isNullable, kind: "union", options, optionAt: (i) => nodeOf(options[i].schema, roots) }
  }
  const values = schema.enum ?? (schema.const === undefined ? undefined : [schema.const])
  if (values?.length === 1) return { ...shared, kind: "constant", value: values[0] }
  if (values !== undefined) return { ...shared, kind: "choice", values }
  if (type === "null") return { ...shared, kind: "constant", value: null }
  if (kinds[type] !== undefined) return { ...shared, kind: kinds[type] }
  const { additionalProperties: rest, properties, required = [] } = schema
  if (properties !== undefined || schema.not !== undefined)
    return {
      ...shared,
      kind: "object",
      get fields() {
        const fieldOf = ([name, one]) =>
          Object.assign(nodeOf(one, roots), { name, isOptional: !required.includes(name) })
        return Object.entries(properties ?? {}).map(fieldOf)
      }
    }
  if (type === "object" && typeof rest === "object")
    return { ...shared, kind: "map", itemAt: () => nodeOf(rest, roots) }
  if (type === "array") {
    const { items = true, maxItems: most = Infinity, minItems: least = 0, prefixItems = [] } = schema
    const itemAt = (i) => nodeOf(prefixItems[i] ?? (typeof items === "object" ? items : {}), roots)
    return { ...shared, kind: "list", itemAt, least, most: items === false ? prefixItems.length : most }
  }
  return { ...shared, kind: "json" }
}

/** Whether a place is `set`, left `out` or `null`: as it was chosen, or by what was typed. */
export const presenceOf = ({ isNullable, isOptional, kind }, texts, at) => {
  const isTyped = ["text", "number", "flag", "choice", "json"].includes(kind) && (texts[at] ?? "") !== ""
  return texts[`${at}?`] ?? (isTyped || !(isOptional || isNullable) ? "set" : isOptional ? "out" : "null")
}
/** How many items a list or a record has. */
export const countOf = ({ least = 0 }, texts, at) => Number(texts[`${at}#`] ?? least)
export const optionOf = (texts, at) => Number(texts[`${at}|`] ?? 0)

const numberOf = ({ schema, words = [] }, text) => {
  if (words.includes(text)) return text
  let value
  try {
    value = parseJson(text)
  } catch {
    value = undefined
  }
  if (!isNumeric(value)) throw new Error(`${text} is no number`)
  if (schema.type === "integer" && !/^-?\d+$/.test(String(value))) throw new Error(`${text} is no whole number`)
  const { exclusiveMaximum: under, exclusiveMinimum: over, maximum, minimum } = schema
  const size = Number(text)
  if (!Number.isFinite(size)) throw new Error(`${text} is further from zero than a number can be`)
  if (size < minimum) throw new Error(`${text} is less than ${minimum}`)
  if (size > maximum) throw new Error(`${text} is more than ${maximum}`)
  // of whole numbers the one beside the limit is the least or the most
  const isWhole = schema.type === "integer"
  if (size <= over) throw new Error(isWhole ? `${text} is less than ${over + 1}` : `${text} is not more than ${over}`)
  if (size >= under)
    throw new Error(isWhole ? `${text} is more than ${under - 1}` : `${text} is not less than ${under}`)
  return value
}
const textOf = ({ schema: { maxLength, minLength, pattern } }, text) => {
  const { length } = [...text]
  if (length < minLength)
    throw new Error(length === 0 ? "is empty" : `has ${length} characters; at least ${minLength} are needed`)
  if (length > maxLength) throw new Error(`has ${length} characters; at most ${maxLength} are possible`)
  let form
  try {
    form = pattern === undefined ? undefined : new RegExp(pattern, "u")
  } catch {
    form = undefined
  }
  if (form?.test(text) === false) throw new Error(`${text === "" ? "an empty text" : text} does not fit ${pattern}`)
  return text
}
const leafOf = (node, text) => {
  if (node.kind === "text") return textOf(node, text)
  if (text === "") throw new Error(node.kind === "choice" || node.kind === "flag" ? "is not chosen" : "is missing")
  if (node.kind === "number") return numberOf(node, text.trim())
  if (node.kind === "choice") return node.values[Number(text)]
  if (node.kind === "flag") return text === "true"
  try {
    return parseJson(text)
  } catch (error) {
    throw new Error(`is no JSON: ${error.message}`, { cause: error })
  }
}
const read = (node, texts, at, errors) => {
  const presence = presenceOf(node, texts, at)
  if (presence !== "set") return presence === "null" ? null : undefined
  const items = (one) => Array.from({ length: countOf(node, texts, at) }, (_, i) => one(i))
  const item = (i) => read(node.itemAt(i), texts, below(at, i), errors)
  switch (node.kind) {
    case "constant":
      return node.value
    case "object":
      return Object.fromEntries(
        node.fields
          .map((field) => [field.name, read(field, texts, below(at, field.name), errors)])
          .filter(([, value]) => value !== undefined)
      )
    case "list":
      return items(item)
    case "map":
      return Object.fromEntries(items((i) => [texts[`${at}@${i}`] ?? "", item(i)]))
    case "union": {
      const option = optionOf(texts, at)
      return read({ ...node.optionAt(option), isNullable: false }, texts, `${at}|${option}`, errors)
    }
  }
  try {
    return leafOf(node, texts[at] ?? "")
  } catch ({ message }) {
    errors.push({ at, message })
    return undefined
  }
}
/** What was typed: `{ value, errors }`, where each error has the place and what is wrong there. The value lacks what is wrong. */
export const valueOf = (node, texts) => {
  const errors = []
  return { value: read(node, texts, "", errors), errors }
}

/** Whether a value may be of an alternative, by its type and its constants. */
const fits = (node, value) => {
  if (value === null) return node.isNullable || node.value === null
  if (node.kind === "constant") return node.value === value
  if (node.kind === "choice") return node.values.includes(value)
  if (node.kind === "list") return Array.isArray(value)
  if (node.kind === "number") return isNumeric(value) || (node.words ?? []).includes(value)
  if (node.kind === "text") return typeof value === "string"
  if (node.kind === "flag") return typeof value === "boolean"
  if (node.kind === "union") return node.options.some((_, i) => fits(node.optionAt(i), value))
  if (node.kind === "json") return true
  if (typeof value !== "object" || Array.isArray(value)) return false
  return (
    node.kind === "map" ||
    node.fields.every((one) => (value[one.name] === undefined ? one.isOptional : fits(one, value[one.name])))
  )
}
/** The texts of a form that has this value. */
export const textsOf = (node, value, at = "", texts = {}) => {
  const canBeAbsent = node.isOptional || node.isNullable
  if (value === undefined || (value === null && node.kind !== "json")) {
    if (canBeAbsent) texts[`${at}?`] = value === null && node.isNullable ? "null" : node.isOptional ? "out" : "null"
    return texts
  }
  if (canBeAbsent) texts[`${at}?`] = "set"
  const items = (list) => {
    texts[`${at}#`] = String(list.length)
    for (const [i, one] of list.entries()) textsOf(node.itemAt(i), one, below(at, i), texts)
  }
  if (node.kind === "object") for (const one of node.fields) textsOf(one, value[one.name], below(at, one.name), texts)
  else if (node.kind === "list") items(Array.isArray(value) ? value : [])
  else if (node.kind === "map") {
    items(Object.values(value))
    for (const [i, name] of Object.keys(value).entries()) texts[`${at}@${i}`] = name
  } else if (node.kind === "union") {
    const i = Math.max(
      0,
      node.options.findIndex((_, one) => fits(node.optionAt(one), value))
    )
    texts[`${at}|`] = String(i)
    textsOf({ ...node.optionAt(i), isNullable: false }, value, `${at}|${i}`, texts)
  } else if (node.kind === "choice") texts[at] = String(Math.max(0, node.values.indexOf(value)))
  else if (node.kind === "json") texts[at] = JSON.stringify(value, null, 2)
  else if (node.kind !== "constant") texts[at] = String(value)
  return texts
}

/** Whether a field is a time, by its name. */
export const isTimeName = (name) => /(^|_)(at|time|date|timestamp|when)$|[a-z]At$|_ms$/.test(name)
/** The time now, as a field takes it. */
export const nowFor = ({ kind }) => (kind === "number" ? String(Date.now()) : new Date().toISOString())
const sampleText = ({ schema: { contentEncoding, format, maxLength = 60, minLength = 0, pattern } }, name) => {
  if (pattern !== undefined)
    return ["1", "a", "A1", "2026-01-31"].find((one) => new RegExp(pattern, "u").test(one)) ?? ""
  if (contentEncoding === "base64") return "bWlsbHJhY2U="
  if (format === "uuid") return crypto.randomUUID()
  if (format?.startsWith("date") || isTimeName(name)) return new Date().toISOString()
  const text = /(^|_)id$|Id$/.test(name)
    ? `${name.replace(/_?id$/i, "") || "id"}-${crypto.randomUUID().slice(0, 8)}`
    : name || "text"
  return text.slice(0, maxLength).padEnd(minLength, "x")
}
/** A new id for a field of text, in place of an old one; undefined if none is known that fits. */
export const freshIdOf = ({ kind, schema: { maxLength = 60, pattern } }, old) => {
  const counted = old.replace(/\d+$/, (digits) => String(BigInt(digits) + 1n).padStart(digits.length, "0"))
  return [crypto.randomUUID(), counted].find(
    (one) =>
      kind === "text" &&
      one !== old &&
      one.length <= maxLength &&
      (pattern === undefined || new RegExp(pattern, "u").test(one))
  )
}
/** A value that fits, with the fields that have to be there. */
export const sampleOf = (node, name = "") => {
  const { examples, kind, schema } = node
  if (examples?.length > 0) return examples[0]
  if (schema.default !== undefined) return schema.default
  if (node.isNullable) return null
  if (kind === "constant") return node.value
  if (kind === "choice") return node.values[0]
  if (kind === "flag") return true
  if (kind === "number") {
    if (isTimeName(name)) return Date.now()
    const { exclusiveMinimum: over = -Infinity, maximum = Infinity, minimum = -Infinity } = schema
    return Math.max(Math.min(1, maximum), minimum, over + 1)
  }
  if (kind === "text") return sampleText(node, name)
  if (kind === "object")
    return Object.fromEntries(
      node.fields.filter((one) => !one.isOptional).map((one) => [one.name, sampleOf(one, one.name)])
    )
  if (kind === "list")
    return Array.from({ length: Math.max(node.least, Math.min(1, node.most)) }, (_, i) =>
      sampleOf(node.itemAt(i), name)
    )
  if (kind === "map") return { key: sampleOf(node.itemAt(0), name) }
  return kind === "union" ? sampleOf(node.optionAt(0), name) : {}
}
