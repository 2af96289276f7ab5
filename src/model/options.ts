// Checks durations and counts that users write into definitions. Pure. What makes no sense is refused where it is declared.
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

/** A duration, count or name in a definition that makes no sense. `what` names the option, `value` is the value as text. */
export class InvalidOption extends Schema.TaggedError<InvalidOption>()("InvalidOption", {
  what: Schema.String,
  value: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `${this.what} is ${this.value}; ${this.reason}`
  }
}
const shown = (value: unknown): string => {
  if (typeof value === "number") return String(value)
  if (typeof value === "bigint") return `${value}n`
  if (Duration.isDuration(value)) return Duration.format(value)
  try {
    // JSON has no form for NaN and the infinities
    const text = JSON.stringify(value, (_, inner) => (typeof inner === "number" ? String(inner) : inner))
    return text === undefined ? typeof value : text.slice(0, 200)
  } catch {
    return typeof value
  }
}
/** The error for an option's value. */
export const invalidOption = (what: string, value: unknown, reason: string): InvalidOption =>
  new InvalidOption({ what, value: shown(value), reason })

/** JavaScript's dates reach so far from 1970; a longer duration could not be added to one. */
const longestMs = 8.64e15
const unitsOfObjects: ReadonlySet<string> = new Set([
  "weeks",
  "days",
  "hours",
  "minutes",
  "seconds",
  "milliseconds",
  "microseconds",
  "nanoseconds"
])
/** Whether a duration is written with numbers only. Effect counts NaN, and fields that it does not know, as 0. */
const isWritten = (input: unknown): boolean => {
  if (typeof input === "number") return !Number.isNaN(input)
  if (typeof input !== "object" || input === null || Duration.isDuration(input)) return true
  if (Array.isArray(input)) return input.every((part) => Number.isFinite(part))
  const fields = input as Readonly<Record<string, unknown>>
  const isKnown = Object.keys(input).every((field) => unitsOfObjects.has(field) || fields[field] === undefined)
  const given = [...unitsOfObjects].flatMap((unit) => (fields[unit] === undefined ? [] : [fields[unit]]))
  // Temporal's durations have these as well, and Effect ignores them
  const isExact = [fields["years"], fields["months"]].every((part) => part === undefined || part === 0)
  return isKnown && isExact && given.length > 0 && given.every((part) => Number.isFinite(part))
}

/** What a duration may be. */
export interface DurationBounds {
  /** The least, in milliseconds. Default 0. */
  readonly least?: number
  /** The most, in milliseconds. By default it is as far as JavaScript's dates reach. */
  readonly most?: number
  /** Whether `"Infinity"` is allowed. Default false. */
  readonly orInfinite?: boolean
}
/** A duration in whole milliseconds. Throws `InvalidOption` if the input is no duration, or outside of its bounds. */
export const checkedDuration = (
  what: string,
  input: Duration.Input,
  { least = 0, most = longestMs, orInfinite = false }: DurationBounds = {}
): number => {
  const duration = isWritten(input) ? Duration.fromInput(input) : Option.none()
  if (Option.isNone(duration))
    throw invalidOption(
      what,
      input,
      'it must be a duration; write one such as "5 minutes", or a number of milliseconds'
    )
  const ms = Duration.toMillis(duration.value)
  if (ms === Infinity && orInfinite) return ms
  if (!(ms >= least && (Number.isInteger(ms) || ms > most))) {
    const bound = least === 0 ? "it must be 0 or more" : `it must be a whole number above ${least - 1}`
    throw invalidOption(what, input, `${bound}, in whole milliseconds`)
  }
  if (ms > most)
    throw invalidOption(what, input, ms === Infinity ? "it must be finite" : `it must be at most ${most} ms`)
  return ms
}

/** What a count may be: at least 0 and at most 2^53 - 1 by default. */
export interface CountBounds {
  readonly least?: number
  readonly most?: number
}
/** A whole number. Throws `InvalidOption` if the value is no whole number, or outside of its bounds. */
export const checkedCount = (
  what: string,
  value: number,
  { least = 0, most = Number.MAX_SAFE_INTEGER }: CountBounds = {}
): number => {
  if (Number.isInteger(value) && value >= least && value <= most) return value
  const bound = most === Number.MAX_SAFE_INTEGER ? `at least ${least}` : `from ${least} to ${most}`
  throw invalidOption(what, value, `it must be a whole number, ${bound}`)
}
/** A value from a list of texts. Throws `InvalidOption` if it is none of them. */
export const checkedChoice = <const A extends string>(what: string, value: A, choices: ReadonlyArray<A>): A => {
  if (choices.includes(value)) return value
  throw invalidOption(what, value, `use ${choices.map((choice) => JSON.stringify(choice)).join(" or ")}`)
}
