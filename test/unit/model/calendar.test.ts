// Calendar spans in every time zone, around every change of its clocks since 1970: each contains its times and ends where the next one starts.
import { describe, expect, test } from "vitest"
import { calendarSpan, calendarUnits, type CalendarUnit, type WeekStart } from "../../../src/model/calendar.ts"
import { isLong } from "../../support/size.ts"

const hour = 3_600_000
const day = 24 * hour
const at = (text: string) => Date.parse(text)
const iso = (time: number) => new Date(time).toISOString()
const spanOf = (unit: CalendarUnit, zone: string, time: number, weekStart: WeekStart = "monday") => {
  const { end, start } = calendarSpan(unit, zone, weekStart, time)
  return [iso(start), iso(end)]
}

/** Local time as `2010-03-04 23:30:00`, computed in another way than the code does. */
const clockOf = (timeZone: string) => {
  const format = new Intl.DateTimeFormat("sv-SE", { timeZone, dateStyle: "short", timeStyle: "medium" })
  return (time: number) => format.format(time)
}
const offsetOf = (clock: (time: number) => string, time: number) =>
  Date.parse(`${clock(time).replace(" ", "T")}Z`) - Math.floor(time / 1_000) * 1_000
/** The instants at which a zone's offset changes between two times, found by bisection between steps. */
const changesOf = (timeZone: string, from: number, to: number, step: number) => {
  const clock = clockOf(timeZone)
  const found: Array<{ readonly time: number; readonly before: number; readonly after: number }> = []
  let offset = offsetOf(clock, from)
  for (let time = from + step; time <= to; time += step) {
    const next = offsetOf(clock, time)
    if (next === offset) continue
    let [low, high] = [time - step, time]
    // all since 1970 were at full or half minutes
    while (high - low > 30_000) {
      const middle = Math.floor((low + high) / 60_000) * 30_000
      if (offsetOf(clock, middle) === offset) low = middle
      else high = middle
    }
    const after = offsetOf(clock, high)
    found.push({ time: high, before: offset, after })
    // two changes in one step: the second is looked for from here
    time = after === next ? time : high + step
    offset = after === next ? next : offsetOf(clock, time)
  }
  return found
}

/** What is wrong with the spans around a time. */
const wrongAround = (zone: string, time: number): ReadonlyArray<string> => {
  const clock = clockOf(zone)
  const wrong: Array<string> = []
  const probes = [-26, -24, -12, -3, -1, -0.25, -1 / hour, 0, 1 / hour, 0.25, 0.5, 1, 2, 3, 12, 24, 26]
  for (const unit of calendarUnits) {
    for (const ahead of unit === "day" ? probes : [-1, -1 / hour, 0, 1]) {
      const probe = time + ahead * hour
      const { end, start } = calendarSpan(unit, zone, "monday", probe)
      const next = calendarSpan(unit, zone, "monday", end)
      const last = calendarSpan(unit, zone, "monday", end - 1)
      const first = calendarSpan(unit, zone, "monday", start)
      if (
        !(start <= probe && probe < end) ||
        next.start !== end ||
        last.start !== start ||
        last.end !== end ||
        first.start !== start ||
        first.end !== end
      )
        wrong.push(`${zone}: the ${unit} of ${iso(probe)} is ${iso(start)} to ${iso(end)}`)
    }
  }
  // a day starts at the first instant with its date
  for (let days = -1; days <= 1; days++) {
    const { start } = calendarSpan("day", zone, "monday", time + days * day)
    const date = clock(start).slice(0, 10)
    for (let before = start - 1; before > start - 26 * hour; before -= hour / 2)
      if (clock(before).slice(0, 10) >= date) wrong.push(`${zone}: ${iso(before)} is on ${date}, before ${iso(start)}`)
  }
  return wrong
}

test("a time is in its own day, week, month and year, around all changes of clocks in all zones since 1970", () => {
  const seen = new Set<string>()
  const wrong: Array<string> = []
  let changes = 0
  for (const zone of Intl.supportedValuesOf("timeZone")) {
    for (const { after, before, time } of changesOf(
      zone,
      0,
      at(isLong ? "2038-01-01T00:00Z" : "2028-01-01T00:00Z"),
      (isLong ? 5 : 45) * day
    )) {
      changes++
      // what happens depends on the local time of the change and on how far clocks are moved
      const kind = `${time % day} ${before} ${after}`
      if (!isLong && seen.has(kind)) continue
      seen.add(kind)
      wrong.push(...wrongAround(zone, time))
    }
  }
  expect(wrong.slice(0, 5)).toEqual([])
  expect(changes).toBeGreaterThan(5_000)
  expect(seen.size).toBeGreaterThan(100)
})

describe("a day", () => {
  test("that had begun before the clocks were turned back over midnight keeps the repeated hours", () => {
    // Casey: at 02:00 on March 5 the clocks went back to 23:00 on March 4
    const casey = "Antarctica/Casey"
    const fourth = ["2010-03-03T13:00:00.000Z", "2010-03-04T13:00:00.000Z"]
    const fifth = ["2010-03-04T13:00:00.000Z", "2010-03-05T16:00:00.000Z"]
    expect(spanOf("day", casey, at("2010-03-04T12:59:59.999Z"))).toEqual(fourth)
    expect(spanOf("day", casey, at("2010-03-04T13:00:00Z"))).toEqual(fifth)
    expect(clockOf(casey)(at("2010-03-04T15:30:00Z"))).toBe("2010-03-04 23:30:00")
    expect(spanOf("day", casey, at("2010-03-04T15:30:00Z"))).toEqual(fifth)
    expect(spanOf("day", casey, at("2010-03-05T15:59:59.999Z"))).toEqual(fifth)
  })
  test.each([
    [
      "never was in Apia on 2011-12-30",
      "Pacific/Apia",
      "2011-12-30T09:59:59Z",
      "2011-12-29T10:00Z",
      "2011-12-30T10:00Z"
    ],
    [
      "follows the missing one in Apia",
      "Pacific/Apia",
      "2011-12-30T10:00:00Z",
      "2011-12-30T10:00Z",
      "2011-12-31T10:00Z"
    ],
    [
      "begins at the first of two midnights in Havana",
      "America/Havana",
      "2026-11-01T05:30:00Z",
      "2026-11-01T04:00Z",
      "2026-11-02T05:00Z"
    ],
    [
      "has 24.5 hours in Lord Howe",
      "Australia/Lord_Howe",
      "2026-04-05T12:00:00Z",
      "2026-04-04T13:00Z",
      "2026-04-05T13:30Z"
    ],
    [
      "has 23.5 hours in Lord Howe",
      "Australia/Lord_Howe",
      "2026-10-03T20:00:00Z",
      "2026-10-03T13:30Z",
      "2026-10-04T13:00Z"
    ],
    [
      "begins at 01:00 in São Paulo",
      "America/Sao_Paulo",
      "2018-11-04T12:00:00Z",
      "2018-11-04T03:00Z",
      "2018-11-05T02:00Z"
    ],
    ["begins at 01:00 in Beirut", "Asia/Beirut", "2022-03-27T12:00:00Z", "2022-03-26T22:00Z", "2022-03-27T21:00Z"],
    ["begins at 01:00 in Cairo", "Africa/Cairo", "2024-04-26T12:00:00Z", "2024-04-25T22:00Z", "2024-04-26T21:00Z"],
    [
      "lasts until the second midnight's day in São Paulo",
      "America/Sao_Paulo",
      "2019-02-17T02:30:00Z",
      "2019-02-16T02:00Z",
      "2019-02-17T03:00Z"
    ],
    [
      "is whole in a zone with seconds",
      "Africa/Monrovia",
      "1971-06-01T12:00:00Z",
      "1971-06-01T00:44:30Z",
      "1971-06-02T00:44:30Z"
    ],
    ["of a fixed offset", "+05:30", "2026-01-01T00:00:00Z", "2025-12-31T18:30Z", "2026-01-01T18:30Z"]
  ])("%s", (_, zone, time, start, end) => {
    expect(spanOf("day", zone, at(time))).toEqual([iso(at(start)), iso(at(end))])
  })
  test("before the year 1, and far ahead", () => {
    expect(spanOf("year", "UTC", at("-000044-03-15T00:00:00Z"))).toEqual([
      "-000044-01-01T00:00:00.000Z",
      "-000043-01-01T00:00:00.000Z"
    ])
    expect(spanOf("month", "UTC", at("0001-01-01T00:00:00Z"))[1]).toBe("0001-02-01T00:00:00.000Z")
    expect(spanOf("day", "Asia/Tokyo", at("+200000-01-01T00:00:00Z"))[0]).toBe("+199999-12-31T15:00:00.000Z")
  })
})

describe("weeks begin", () => {
  test.each([
    ["monday", "2025-12-29T00:00Z", "2026-01-05T00:00Z"],
    ["sunday", "2025-12-28T00:00Z", "2026-01-04T00:00Z"],
    ["saturday", "2025-12-27T00:00Z", "2026-01-03T00:00Z"]
  ] as const)("on %s", (weekStart, start, end) => {
    const first = [iso(at(start)), iso(at(end))]
    expect(spanOf("week", "UTC", at("2026-01-01T12:00Z"), weekStart)).toEqual(first)
    expect(spanOf("week", "UTC", at(start), weekStart)).toEqual(first)
    expect(spanOf("week", "UTC", at(end) - 1, weekStart)).toEqual(first)
    expect(spanOf("week", "UTC", at("1969-12-31T12:00Z"), weekStart)[0]! <= "1969-12-31T12:00:00.000Z").toBe(true)
  })
})
