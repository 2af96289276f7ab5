// Splits the text of a body into the texts of its events. Parses nothing. Both ways yield undefined now and then while no text ends, so that a
// caller can let the event loop go on: a large body takes long to look through.
import { afterString } from "../../log/json.ts"

/** The trimmed text of one event, and its line in the body, from 1. */
export interface EventText {
  readonly text: string
  readonly line: number
}

/** After how many characters without a text `undefined` is yielded. */
const pauseSize = 1024 * 1024

/** The lines of NDJSON, without blank ones. LF and CRLF both end a line; the last line needs no end. */
export function* linesOf(body: string): Generator<EventText | undefined> {
  let line = 0
  let pauseAt = pauseSize
  for (let start = 0; start < body.length;) {
    const found = body.indexOf("\n", start)
    const end = found === -1 ? body.length : found
    line++
    const text = body.slice(start, end).trim()
    start = end + 1
    if (text !== "") yield { text, line }
    else if (start < pauseAt) continue
    else yield undefined
    pauseAt = start + pauseSize
  }
}

const quote = 34
/**
 * The texts of the elements of a JSON array. Returns whether brackets and commas match. Each element still has to be parsed: the array is valid if
 * all of them are.
 */
export function* elementsOf(body: string): Generator<string | undefined, boolean> {
  const text = body.trim()
  let depth = 1
  let start = 1
  let i = 1
  let pauseAt = pauseSize
  while (i < text.length) {
    if (i > pauseAt) {
      yield undefined
      pauseAt = i + pauseSize
    }
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
      yield text.slice(start, i).trim()
      start = i + 1
    }
    i++
  }
  if (depth !== 0 || i !== text.length - 1 || text.charCodeAt(i) !== 93) return false
  const last = text.slice(start, i).trim()
  if (last !== "" || start > 1) yield last
  return true
}

/** The text on one line. In valid JSON line ends occur only between tokens, so the value stays the same. */
export const onOneLine = (text: string): string =>
  /[\n\r]/.test(text) ? text.replaceAll(/[\n\r]+[ \t\n\r]*/g, " ") : text
