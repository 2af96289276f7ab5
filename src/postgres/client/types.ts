// Conversions between PostgreSQL's text form and JavaScript, for the types that the project uses. Pure.
import type postgres from "postgres"

/** Parses an int8 as a number. Throws beyond 2^53 instead of rounding. */
export const parseInt8 = (text: string): number => {
  const value = Number(text)
  if (!Number.isSafeInteger(value))
    throw new RangeError(`${text} is beyond 2^53 and cannot be a JavaScript number without rounding; select it as text`)
  return value
}

/** Parses a timestamptz of a session in UTC and ISO style as epoch milliseconds; `infinity` becomes `Infinity`. */
export const parseTimestamp = (text: string): number => {
  if (text.endsWith("infinity")) return text === "infinity" ? Infinity : -Infinity
  const match = /^(\d+)-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(\.\d+)?\+00( BC)?$/.exec(text)
  if (match === null) throw new RangeError(`${text} is not a timestamptz in UTC and ISO style`)
  const [, year, month, day, hour, minute, second, fraction = ".0", bc] = match
  // dates of JavaScript end in the year 275760, and those of PostgreSQL in 294276; the calendar repeats after 400 years
  const [yearsBefore, msBefore] = Number(year) > 270_000 ? [40_000, 14_609_700 * 86_400_000] : [0, 0]
  const date = new Date(0)
  date.setUTCFullYear(bc === undefined ? Number(year) - yearsBefore : 1 - Number(year), Number(month) - 1, Number(day))
  date.setUTCHours(Number(hour), Number(minute), Number(second), Number(fraction.slice(1, 4).padEnd(3, "0")))
  return date.getTime() + msBefore
}

/** The text form of an array, for a parameter: `unnest(${arrayLiteral(ids)}::text[])`. */
export const arrayLiteral = (values: ReadonlyArray<string | number | bigint | boolean | null>): string => {
  let text = ""
  for (const value of values) {
    text += text === "" ? "{" : ","
    if (value === null) text += "NULL"
    else if (typeof value === "string") text += quote(value)
    else text += value
  }
  return text === "" ? "{}" : `${text}}`
}
const special = /["\\]/g
const quote = (value: string) => `"${special.test(value) ? value.replace(special, String.raw`\$&`) : value}"`

/** Types of an ordinary session: int8 and timestamptz are numbers, `timestamp` and `date` stay text because they have no time zone. */
export const values = {
  int8: { to: 20, from: [20], serialize: String, parse: parseInt8 },
  timestamptz: {
    to: 1184,
    from: [1184],
    serialize: (value: unknown) => (typeof value === "string" ? value : new Date(value as number).toISOString()),
    parse: parseTimestamp
  },
  date: { to: 1082, from: [1082, 1114], serialize: String, parse: (text: string) => text }
} satisfies Record<string, postgres.PostgresType>

/** Types of a session for display: every value is the text that PostgreSQL sends. */
export const texts = {
  text: {
    to: 25,
    from: [16, 17, 20, 21, 23, 26, 114, 700, 701, 1082, 1114, 1184, 3802],
    serialize: String,
    parse: (text: string) => text
  }
} satisfies Record<string, postgres.PostgresType>
