// Turns PostgreSQL's text of a value into JSON text that loses nothing. Pure.

/** What the format of a value depends on. */
export interface ValueType {
  /** The oid of the type; of its elements if the type is an array. */
  readonly oid: number
  /** What separates the elements; undefined if the type is no array. */
  readonly delimiter: string | undefined
}

const jsonNumber = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/
const unixEpoch = /^(\d+)-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d+))?\+00( BC)?$/

/** A whole number beyond 2^53 is a string, since most readers of JSON would round it. */
const integer = (text: string): string => (Number.isSafeInteger(Number(text)) ? text : JSON.stringify(text))
/** A float; `NaN` and the infinities, which JSON lacks, are strings. */
const float = (text: string): string => (jsonNumber.test(text) ? text : JSON.stringify(text))

/**
 * A timestamptz of a session in UTC as milliseconds since 1970, with decimals where it has microseconds. A number that a double cannot hold
 * is a string with the same digits; infinities are strings.
 */
const milliseconds = (text: string): string => {
  const match = unixEpoch.exec(text)
  if (match === null) return JSON.stringify(text)
  const [, year, month, day, hour, minute, second, fraction = "", bc] = match
  // dates of JavaScript end before PostgreSQL's; the calendar repeats after 400 years
  const astronomical = bc === undefined ? Number(year) : 1 - Number(year)
  const cycles = Math.floor(astronomical / 400)
  const date = new Date(0)
  date.setUTCFullYear(astronomical - cycles * 400, Number(month) - 1, Number(day))
  date.setUTCHours(Number(hour), Number(minute), Number(second))
  const micros =
    (BigInt(date.getTime()) + BigInt(cycles) * 146_097n * 86_400_000n) * 1_000n + BigInt(fraction.padEnd(6, "0"))
  const size = micros < 0n ? -micros : micros
  const rest = String(size % 1_000n)
    .padStart(3, "0")
    .replace(/0+$/, "")
  const digits = `${micros < 0n ? "-" : ""}${size / 1_000n}${rest === "" ? "" : `.${rest}`}`
  return String(Number(digits)) === digits ? digits : JSON.stringify(digits)
}

const scalars: Readonly<Record<number, (text: string) => string>> = {
  16: (text) => String(text === "t"),
  20: integer,
  21: integer,
  23: integer,
  26: integer,
  114: (text) => text,
  3802: (text) => text,
  700: float,
  701: float,
  1184: milliseconds
}
const scalar = (oid: number, text: string): string => (scalars[oid] ?? JSON.stringify)(text)

/** The JSON of a value. An array is an array of such values; a type that JSON has no form for is a string with PostgreSQL's text. */
export const jsonOf = ({ delimiter, oid }: ValueType, text: string | null): string => {
  if (text === null) return "null"
  // the oldest types of arrays, such as int2vector, have no braces
  if (delimiter === undefined || !/^[[{]/.test(text)) return scalar(oid, text)
  return arrayOf(text.slice(text.indexOf("{")), delimiter, (element) => scalar(oid, element))
}

/** Reads the text form of an array: braces, quoted elements with backslashes, and NULL. */
const arrayOf = (text: string, delimiter: string, element: (text: string) => string): string => {
  let json = ""
  for (let i = 0; i < text.length;) {
    const character = text[i]!
    if (character === "{" || character === "}") {
      json += character === "{" ? "[" : "]"
      i++
    } else if (character === delimiter) {
      json += ","
      i++
    } else if (character === '"') {
      let value = ""
      for (i++; i < text.length && text[i] !== '"'; i++) {
        if (text[i] === "\\") i++
        value += text[i] ?? ""
      }
      i++
      json += element(value)
    } else {
      const start = i
      while (i < text.length && text[i] !== delimiter && text[i] !== "}") i++
      const value = text.slice(start, i)
      json += value === "NULL" ? "null" : element(value)
    }
  }
  return json
}
