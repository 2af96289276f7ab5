// Reads the moment that a text names: a date, or a duration before now. Pure.
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"

/** The moment that a text names, in epoch milliseconds: a date, or a duration before `now`. Undefined if the text is neither. */
export const timeOf = (text: string, now: number): number | undefined => {
  const duration = Option.getOrUndefined(Duration.fromInput(text as Duration.Input))
  if (duration !== undefined) {
    const ms = Duration.toMillis(duration)
    return ms >= 0 && ms < Infinity ? now - ms : undefined
  }
  const date = Date.parse(text)
  return Number.isNaN(date) ? undefined : date
}
