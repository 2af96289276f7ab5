// Splits the text of a body into the texts of its events. Parses nothing.
import { afterString } from "../../log/json.ts"

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
