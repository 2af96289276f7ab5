// Reads the moment that a text names: a date, or a duration before now. Pure.
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"

const days = /^\s*([+-]?\d{4,6})[-/](\d\d?)[-/](\d\d?)(?!\d)/
/**
 * The date that a text names, with or without a time, in epoch milliseconds. Undefined if it names no date, or a day that does not exist, such as
 * 2026-02-30, which `Date.parse` takes for one of the next month.
 */
export const dateOf = (text: string): number | undefined => {
  const [, year, month, day] = days.exec(text) ?? []
  // day 0 of the next month is the last one of this
  const last = new Date(0)
  last.setUTCFullYear(Number(year), Number(month), 0)
  if (day !== undefined && Number(day) > last.getUTCDate()) return undefined
  const date = Date.parse(text)
  return Number.isNaN(date) ? undefined : date
}

/** The moment that a text names, in epoch milliseconds: a date, or a duration before `now`. Undefined if the text is neither. */
export const timeOf = (text: string, now: number): number | undefined => {
  const duration = Option.getOrUndefined(Duration.fromInput(text as Duration.Input))
  if (duration !== undefined) {
    const ms = Duration.toMillis(duration)
    return ms >= 0 && ms < Infinity ? now - ms : undefined
  }
  return dateOf(text)
}
