// Splits a body's text into the texts of its events, and finds in a text what JSON allows and a log should not hold. It parses nothing.

/** The text of one event, trimmed, and the line of the body that it stands on, from 1. */
export interface EventText {
  readonly text: string
  readonly line: number
}

/** The lines of NDJSON. Blank ones are skipped; LF and CRLF both end a line, and the last one needs no end. */
export function* linesOf(body: string): Generator<EventText> {
  let line = 0
  for (let start = 0; start < body.length;) {
    const found = body.indexOf("\n", start)
    const end = found === -1 ? body.length : found
    line++
    const text = body.slice(start, end).trim()
    if (text !== "") yield { text, line }
    start = end + 1
  }
}

const quote = 34
const backslash = 92

/** The end of the string literal that begins at `start`: the place after its closing quote, or the text's end. */
const afterString = (text: string, start: number): number => {
  let end = start
  for (;;) {
    end = text.indexOf('"', end + 1)
    if (end === -1) return text.length
    let escapes = 0
    while (text.charCodeAt(end - 1 - escapes) === backslash) escapes++
    if (escapes % 2 === 0) return end + 1
  }
}

/**
 * The elements of a JSON array, as they are written. Undefined where brackets or commas do not fit; each element has still to be parsed,
 * and the array is sound if all of them are.
 */
export const elementsOf = (body: string): Array<string> | undefined => {
  const text = body.trim()
  const elements: Array<string> = []
  let depth = 1
  let start = 1
  let i = 1
  while (i < text.length) {
    const char = text.charCodeAt(i)
    if (char === quote) {
      i = afterString(text, i)
      continue
    }
    // [ and {
    if (char === 91 || char === 123) depth++
    // ] and }
    else if (char === 93 || char === 125) {
      if (--depth === 0) break
    } else if (char === 44 && depth === 1) {
      elements.push(text.slice(start, i).trim())
      start = i + 1
    }
    i++
  }
  if (depth !== 0 || i !== text.length - 1 || text.charCodeAt(i) !== 93) return undefined
  const last = text.slice(start, i).trim()
  return last === "" && elements.length === 0 ? [] : [...elements, last]
}

/** The text on one line. Line ends of valid JSON stand between tokens only, so the value stays the same. */
export const onOneLine = (text: string): string =>
  /[\n\r]/.test(text) ? text.replaceAll(/[\n\r]+[ \t\n\r]*/g, " ") : text

const countOf = (text: string, bracket: string, enough: number): number => {
  let count = 0
  for (let i = text.indexOf(bracket); i !== -1 && count <= enough; i = text.indexOf(bracket, i + 1)) count++
  return count
}

/** Whether objects and arrays lie more than `limit` deep in one another. */
export const isDeeper = (text: string, limit: number): boolean => {
  // few brackets cannot be deep; counting them is faster than looking at every character
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

/** Whether a text of valid UTF-8 may hold a NUL or half a surrogate pair: only an escape can bring one in. */
export const isSuspect = (text: string): boolean => text.includes("\\u") && /\\u(?:0000|[dD][89a-fA-F])/.test(text)

/** The first field, as a path, whose name or text holds a NUL or half a surrogate pair. The value is not deep. */
export const forbiddenCharacterAt = (
  value: unknown,
  path = ""
): { readonly path: string; readonly what: string } | undefined => {
  if (typeof value === "string") {
    if (value.includes("\0")) return { path, what: "a NUL character" }
    return value.isWellFormed() ? undefined : { path, what: "half a surrogate pair" }
  }
  if (typeof value !== "object" || value === null) return undefined
  for (const [name, inner] of Object.entries(value)) {
    // the name itself is not shown: it may be what cannot be
    const inName = forbiddenCharacterAt(name, path)
    if (inName !== undefined) return { path, what: `${inName.what} in a field's name` }
    const found = forbiddenCharacterAt(inner, path === "" ? name : `${path}.${name}`)
    if (found !== undefined) return found
  }
  return undefined
}
