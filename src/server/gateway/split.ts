// Splits the text of a body into the texts of its events, and finds characters that JSON allows and the log does not. Parses nothing.

/** The trimmed text of one event, and its line in the body, from 1. */
export interface EventText {
  readonly text: string
  readonly line: number
}

/** The lines of NDJSON, without blank ones. LF and CRLF both end a line; the last line needs no end. */
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

/** The end of the string literal that begins at `start`: the index after its closing quote, or the end of the text. */
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
 * The texts of the elements of a JSON array. Undefined if brackets or commas do not match. Each element still has to be parsed: the array is
 * valid if all of them are.
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

/** The text on one line. In valid JSON line ends occur only between tokens, so the value stays the same. */
export const onOneLine = (text: string): string =>
  /[\n\r]/.test(text) ? text.replaceAll(/[\n\r]+[ \t\n\r]*/g, " ") : text

const countOf = (text: string, bracket: string, enough: number): number => {
  let count = 0
  for (let i = text.indexOf(bracket); i !== -1 && count <= enough; i = text.indexOf(bracket, i + 1)) count++
  return count
}

/** Whether objects and arrays are nested more than `limit` levels deep. */
export const isDeeper = (text: string, limit: number): boolean => {
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

/** Whether the value of a JSON text of valid UTF-8 may contain NUL or an unpaired surrogate: only escapes can produce them. */
export const isSuspect = (text: string): boolean => text.includes("\\u") && /\\u(?:0000|[dD][89a-fA-F])/.test(text)

/** The path of the first field whose name or text contains NUL or an unpaired surrogate. `value` must not be nested deeply. */
export const forbiddenCharacterAt = (
  value: unknown,
  path = ""
): { readonly path: string; readonly what: string } | undefined => {
  if (typeof value === "string") {
    if (value.includes("\0")) return { path, what: "a NUL character" }
    return value.isWellFormed() ? undefined : { path, what: "an unpaired surrogate" }
  }
  if (typeof value !== "object" || value === null) return undefined
  for (const [name, inner] of Object.entries(value)) {
    // the path does not have the name itself, because it may be what cannot be shown
    const inName = forbiddenCharacterAt(name, path)
    if (inName !== undefined) return { path, what: `${inName.what} in the name of a field` }
    const found = forbiddenCharacterAt(inner, path === "" ? name : `${path}.${name}`)
    if (found !== undefined) return found
  }
  return undefined
}
