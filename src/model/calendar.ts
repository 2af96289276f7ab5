// The units of the calendar (days, weeks, months, years) in a time zone, as spans of time that follow one another without a gap. Pure.
//
// A unit starts at the first instant with its local date, and ends where the next one starts. So a day may have 23, 24, 25 or 23.5 hours, a
// day that a zone skipped has no span, and an hour that a clock turned back over midnight repeats belongs to the day that had begun.

/** A unit of the calendar, for `Window.calendar`. */
export type CalendarUnit = "day" | "week" | "month" | "year"
/** The units of the calendar. */
export const calendarUnits = ["day", "week", "month", "year"] as const satisfies ReadonlyArray<CalendarUnit>
/** The days on which weeks can begin. */
export const weekStarts = ["monday", "saturday", "sunday"] as const
/** The day on which weeks begin. */
export type WeekStart = (typeof weekStarts)[number]

const hour = 3_600_000
const day = 24 * hour
// no local time was ever further from UTC
const mostOffset = 16 * hour

/** The local time of instants in one zone, as epoch milliseconds of the same reading in UTC. */
class LocalTime {
  private readonly format: Intl.DateTimeFormat
  /** The first instants of local days by their numbers; a small share of them is asked for again and again. */
  private readonly starts = new Map<number, number>()

  constructor(timeZone: string) {
    const digits = "2-digit"
    this.format = new Intl.DateTimeFormat("en-US", {
      timeZone,
      calendar: "gregory",
      numberingSystem: "latn",
      hourCycle: "h23",
      era: "short",
      year: "numeric",
      month: digits,
      day: digits,
      hour: digits,
      minute: digits,
      second: digits
    })
  }

  /** How far local time is ahead of UTC at an instant, in milliseconds. */
  private offset(time: number): number {
    const whole = Math.floor(time / 1_000) * 1_000
    // "3 5, 2010 A, 23:59:59", with separators that do not matter here
    const [, month, dayOfMonth, year, era, hours, minutes, seconds] =
      /^(\d+)\/(\d+)\/(\d+) (\w).*?(\d+):(\d+):(\d+)/.exec(this.format.format(whole))!
    const local = new Date(0)
    local.setUTCFullYear(era === "B" ? 1 - Number(year) : Number(year), Number(month) - 1, Number(dayOfMonth))
    return local.getTime() + Number(hours) * hour + Number(minutes) * 60_000 + Number(seconds) * 1_000 - whole
  }

  /** The number of the local day at an instant, counted from 1970-01-01. */
  dayOf(time: number): number {
    return Math.floor((time + this.offset(time)) / day)
  }

  /** The first instant whose local date is this day or a later one. */
  startOf(number: number): number {
    let start = this.starts.get(number)
    if (start !== undefined) return start
    start = this.findStart(number * day)
    if (this.starts.size >= mostStarts) this.starts.clear()
    this.starts.set(number, start)
    return start
  }

  /** The first instant at which clocks show `local` or later. */
  private findStart(local: number): number {
    let from = local - mostOffset
    for (;;) {
      const offset = this.offset(from)
      // clocks jumped over it
      if (from + offset >= local) return from
      const reached = local - offset
      const change = this.changeBetween(from, reached, offset)
      if (change === undefined) return reached
      from = change
    }
  }

  /** The first instant after `from` and up to `to` with another offset; undefined if there is none. */
  private changeBetween(from: number, to: number, offset: number): number | undefined {
    for (let before = from; before < to;) {
      let after = Math.min(before + 4 * hour, to)
      if (this.offset(after) === offset) {
        before = after
        continue
      }
      while (after - before > 1) {
        const middle = Math.floor((before + after) / 2)
        if (this.offset(middle) === offset) before = middle
        else after = middle
      }
      return after
    }
    return undefined
  }
}
const mostStarts = 4_096
/** Zones differ in case and by alias only, so there are some hundreds. */
const zones = new Map<string, LocalTime>()
const localTimeOf = (timeZone: string): LocalTime => {
  let zone = zones.get(timeZone)
  if (zone === undefined) zones.set(timeZone, (zone = new LocalTime(timeZone)))
  return zone
}

/** Whether `Intl` knows the time zone. */
export const isTimeZone = (timeZone: string): boolean => {
  try {
    return new Intl.DateTimeFormat("en-US", { timeZone }).resolvedOptions().timeZone !== ""
  } catch {
    return false
  }
}

// 1970-01-01 was a Thursday
const firstWeek = { monday: -3, saturday: -5, sunday: -4 } as const
const dayNumber = (year: number, month: number) => {
  const date = new Date(0)
  date.setUTCFullYear(year, month, 1)
  return date.getTime() / day
}
/** The first day of the unit that has a day, and the first day of the next unit. */
const unitOf = (unit: CalendarUnit, number: number, weekStart: WeekStart): readonly [first: number, next: number] => {
  if (unit === "day") return [number, number + 1]
  if (unit === "week") {
    const first = firstWeek[weekStart] + 7 * Math.floor((number - firstWeek[weekStart]) / 7)
    return [first, first + 7]
  }
  const date = new Date(number * day)
  const year = date.getUTCFullYear()
  if (unit === "year") return [dayNumber(year, 0), dayNumber(year + 1, 0)]
  const month = date.getUTCMonth()
  return [dayNumber(year, month), dayNumber(year, month + 1)]
}

/**
 * The unit of the calendar that contains a time, in epoch milliseconds: `start` is in it, `end` is not. For every time, `start <= time < end`,
 * and the unit that contains `end` starts there.
 */
export const calendarSpan = (
  unit: CalendarUnit,
  timeZone: string,
  weekStart: WeekStart,
  time: number
): { readonly start: number; readonly end: number } => {
  const zone = localTimeOf(timeZone)
  let [first, next] = unitOf(unit, zone.dayOf(time), weekStart)
  // clocks were turned back to a unit before: the next one has begun
  while (zone.startOf(next) <= time) [first, next] = unitOf(unit, next, weekStart)
  return { start: zone.startOf(first), end: zone.startOf(next) }
}
