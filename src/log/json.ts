// Reads the JSON text of a value by the rules that hold on every way in, for the gateway and for every reader of a log. Pure.
//
// The rules are those of I-JSON (RFC 7493): one value that is well-formed text without duplicate names. Beyond them, NUL and names that
// change a prototype are refused, and how deep values may be nested is limited.
import { isStorable } from "../text/text.ts"

/** How deep objects and arrays may be nested, unless a caller says otherwise: what every store and every function that walks a value can take. */
export const maxDepth = 1_000

/** What is wrong with a JSON text that `JSON.parse` accepts. */
export type JsonFault = "utf8" | "depth" | "name" | "character" | "duplicate"

/** A JSON text breaks a rule for values. `path`: the field, as `attributes.delay`; empty if it is the value itself. */
export class UnacceptableJson extends Error {
  override readonly name = "UnacceptableJson"
  readonly fault: JsonFault
  readonly path: string

  constructor(fault: JsonFault, message: string, path = "") {
    super(message)
    this.fault = fault
    this.path = path
  }
}

/**
 * Parses one value. Throws a `SyntaxError` if the text is not JSON, and `UnacceptableJson` if it breaks a rule. An integer that a number
 * would round becomes a bigint, so that a schema that expects a number refuses it instead of reading another number.
 */
export const parseJson = (text: string, depth = maxDepth): unknown => {
  if (!text.isWellFormed()) throw new UnacceptableJson("utf8", "it is not text in UTF-8")
  if (isDeeper(text, depth))
    throw new UnacceptableJson("depth", `objects and arrays are nested more than ${depth} levels deep`)
  let value = JSON.parse(text) as unknown
  if (hasManyDigits(text) && losesDigits(text)) value = JSON.parse(text, exactly as Reviver)
  if (typeof value !== "object" || value === null) {
    if (typeof value === "string") assertText(value, "")
    return value
  }
  if (mayBeForbidden.test(text)) assertAllowed(value, "")
  if (countNames(value) !== countColons(text) || spacedColon.test(text)) assertNoDuplicates(text)
  return value
}

const quote = 34
const backslash = 92

/** The end of the string literal that begins at `start`: the index after its closing quote, or the end of the text. */
export const afterString = (text: string, start: number): number => {
  let end = start
  for (;;) {
    end = text.indexOf('"', end + 1)
    if (end === -1) return text.length
    let escapes = 0
    while (text.charCodeAt(end - 1 - escapes) === backslash) escapes++
    if (escapes % 2 === 0) return end + 1
  }
}

const countOf = (text: string, bracket: string, enough: number): number => {
  let count = 0
  for (let i = text.indexOf(bracket); i !== -1 && count <= enough; i = text.indexOf(bracket, i + 1)) count++
  return count
}

/** Whether objects and arrays are nested more than `limit` levels deep. */
export const isDeeper = (text: string, limit: number): boolean => {
  if (text.length <= limit) return false
  // few brackets cannot be nested deeply, and counting them is faster than looking at every character
  if (countOf(text, "{", limit) + countOf(text, "[", limit) <= limit) return false
  let depth = 0
  for (let i = 0; i < text.length;) {
    const char = text.charCodeAt(i)
    if (char === quote) {
      i = afterString(text, i)
      continue
    }
    if (char === 91 || char === 123) {
      if (++depth > limit) return true
    } else if (char === 93 || char === 125) depth--
    i++
  }
  return false
}

// NUL, surrogates and the letters of names can be written as escapes
const mayBeForbidden = /__proto__|"constructor"|\\u(?:00[0-7]|[dD][89a-fA-F])/
/** Throws `UnacceptableJson` if well-formed JSON text has a text or a name that `parseJson` refuses. */
export const assertTexts = (json: string): void => {
  if (mayBeForbidden.test(json)) assertAllowed(JSON.parse(json), "")
}
const isForbiddenName = (name: string, inner: unknown) =>
  name === "__proto__" ||
  (name === "constructor" && typeof inner === "object" && inner !== null && Object.hasOwn(inner, "prototype"))

const assertText = (text: string, path: string, where = ""): void => {
  if (isStorable(text)) return
  const what = text.includes("\0") ? "a NUL character" : "an unpaired surrogate"
  throw new UnacceptableJson("character", `${path === "" ? "the value" : path} contains ${what}${where}`, path)
}
/** Throws at the first name or text that is refused. `value` must not be nested deeply. */
const assertAllowed = (value: unknown, path: string): void => {
  if (typeof value === "string") return assertText(value, path)
  if (typeof value !== "object" || value === null) return
  for (const [name, inner] of Object.entries(value)) {
    // the path does not have the name itself, because it may be what cannot be shown
    assertText(name, path, " in the name of a field")
    if (isForbiddenName(name, inner)) {
      const reason = "a field is called __proto__, or is called constructor and has a prototype"
      throw new UnacceptableJson("name", reason)
    }
    assertAllowed(inner, path === "" ? name : `${path}.${name}`)
  }
}

/** How many fields the objects of a value have. */
const countNames = (value: object): number => {
  let count = 0
  if (Array.isArray(value)) {
    for (const inner of value as ReadonlyArray<unknown>)
      if (typeof inner === "object" && inner !== null) count += countNames(inner)
    return count
  }
  for (const name in value) {
    count++
    const inner = (value as Readonly<Record<string, unknown>>)[name]
    if (typeof inner === "object" && inner !== null) count += countNames(inner)
  }
  return count
}
const spacedColon = /"[ \t\n\r]+:/
/** How many names the text has at most, if no space precedes a colon: texts may contain the same characters. */
const countColons = (text: string): number => {
  let count = 0
  for (let i = text.indexOf('":'); i !== -1; i = text.indexOf('":', i + 2)) count++
  return count
}
const space = /[ \t\n\r]/
/** Throws if an object has a name twice. The text must be valid JSON. */
const assertNoDuplicates = (text: string): void => {
  const open: Array<Set<string> | undefined> = []
  for (let i = 0; i < text.length;) {
    const char = text.charCodeAt(i)
    if (char !== quote) {
      if (char === 123) open.push(new Set())
      else if (char === 91) open.push(undefined)
      else if (char === 125 || char === 93) open.pop()
      i++
      continue
    }
    const end = afterString(text, i)
    let next = end
    while (space.test(text.charAt(next))) next++
    const names = open.at(-1)
    if (text.charAt(next) === ":" && names !== undefined) {
      const name = JSON.parse(text.slice(i, end)) as string
      if (names.has(name)) throw new UnacceptableJson("duplicate", `an object has the field ${name} twice`, name)
      names.add(name)
    }
    i = end
  }
}

// an integer beyond 2^53 has at least so many digits
const manyDigits = 16
const isDigit = (char: number): boolean => char >= 48 && char <= 57
/** Whether the text has so many digits in a row. Such a row has one at a multiple of their number, so few characters are looked at. */
const hasManyDigits = (text: string): boolean => {
  for (let i = manyDigits - 1; i < text.length; i += manyDigits) {
    if (!isDigit(text.charCodeAt(i))) continue
    let first = i
    while (first > 0 && isDigit(text.charCodeAt(first - 1))) first--
    let end = i + 1
    while (end < text.length && isDigit(text.charCodeAt(end))) end++
    if (end - first >= manyDigits) return true
  }
  return false
}
const number = /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y
const isRounded = (source: string): boolean =>
  /^-?\d{16,}$/.test(source) && (!Number.isFinite(Number(source)) || BigInt(source) !== BigInt(Number(source)))
/** Whether an integer outside of strings would be rounded. */
const losesDigits = (text: string): boolean => {
  for (let i = 0; i < text.length;) {
    const char = text.charCodeAt(i)
    if (char === quote) i = afterString(text, i)
    else if (char === 45 || (char >= 48 && char <= 57)) {
      number.lastIndex = i
      const [source] = number.exec(text)!
      if (isRounded(source)) return true
      i += source.length
    } else i++
  }
  return false
}
type Reviver = (this: unknown, name: string, value: unknown) => unknown
const exactly = (_: string, value: unknown, { source }: { readonly source?: string }): unknown =>
  typeof value === "number" && source !== undefined && isRounded(source) ? BigInt(source) : value
