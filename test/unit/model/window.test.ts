// Windows: the spans that contain an event, when a span is closed, and declarations that are refused.
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import { Agg, InvalidName, Window } from "../../../src/index.ts"
import { isClosed, spansOf, type Shape } from "../../../src/model/window.ts"
import { randomOf, seed } from "../../support/random.ts"

const of = { key: { user: Schema.String }, aggregate: { n: Agg.count } }
const minute = 60_000
const hour = 60 * minute
const spans = (shape: Shape, time: number) => spansOf(shape, time).map(({ end, label, start }) => [label, start, end])

describe("tumbling", () => {
  const { shape } = Window.tumbling("w", { ...of, size: ["1 minute", "1 hour"] })

  test("a time is in one span of each size; a span includes its start and not its end", () => {
    expect(spans(shape, 0)).toEqual([
      ["1m", 0, minute],
      ["1h", 0, hour]
    ])
    expect(spans(shape, minute - 1)).toEqual([
      ["1m", 0, minute],
      ["1h", 0, hour]
    ])
    expect(spans(shape, minute)).toEqual([
      ["1m", minute, 2 * minute],
      ["1h", 0, hour]
    ])
  })
  test("times before 1970 are in aligned spans as well", () => {
    expect(spans(shape, -1)).toEqual([
      ["1m", -minute, 0],
      ["1h", -hour, 0]
    ])
    expect(spans(shape, -minute)).toEqual([
      ["1m", -minute, 0],
      ["1h", -hour, 0]
    ])
    expect(spans(shape, -minute - 1)[0]).toEqual(["1m", -2 * minute, -minute])
  })
})

describe("hopping", () => {
  test("a time is in every span that contains it", () => {
    const { shape } = Window.hopping("w", { ...of, size: "10 minutes", every: "4 minutes" })
    expect(spans(shape, 9 * minute).map(([, start]) => Number(start) / minute)).toEqual([0, 4, 8])
    expect(spans(shape, 10 * minute).map(([, start]) => Number(start) / minute)).toEqual([4, 8])
    expect(spans(shape, -1).map(([, start]) => Number(start) / minute)).toEqual([-8, -4])
  })

  test(`random hopping spans are exactly those that contain the time, seed ${seed}`, () => {
    const random = randomOf(seed)
    for (let i = 0; i < 3_000; i++) {
      const everyMs = random.int(1, 50)
      const sizeMs = everyMs * random.int(1, 5) + random.int(0, everyMs - 1)
      const time = random.int(-500, 500)
      const naive = []
      for (let start = -1_000 * everyMs; start <= 1_000 * everyMs; start += everyMs) {
        if (start <= time && time < start + sizeMs) naive.push(["x", start, start + sizeMs])
      }
      expect(
        spans({ type: "fixed", spans: [{ label: "x", sizeMs, everyMs }] }, time),
        `${sizeMs}/${everyMs} ${time}`
      ).toEqual(naive)
    }
  })
})

describe("calendar", () => {
  const at = (text: string) => Date.parse(text)
  const calendar = (unit: "day" | "week" | "month" | "year", timeZone: string) =>
    Window.calendar("w", { ...of, unit, timeZone }).shape

  test.each([
    ["the day that springs forward", "day", "2026-03-08T12:00:00Z", "2026-03-08T05:00:00Z", 23 * hour],
    ["the day that falls back", "day", "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", 25 * hour],
    ["its hour that comes twice, the second time", "day", "2026-11-01T06:30:00Z", "2026-11-01T04:00:00Z", 25 * hour],
    ["an ordinary day", "day", "2026-06-01T03:59:59.999Z", "2026-05-31T04:00:00Z", 24 * hour],
    ["a February", "month", "2024-02-29T12:00:00Z", "2024-02-01T05:00:00Z", 29 * 24 * hour],
    [
      "a month with a change of the clocks",
      "month",
      "2026-03-31T12:00:00Z",
      "2026-03-01T05:00:00Z",
      31 * 24 * hour - hour
    ],
    ["a week, from Monday", "week", "2026-11-01T12:00:00Z", "2026-10-26T04:00:00Z", 7 * 24 * hour + hour],
    ["a leap year", "year", "2024-07-01T00:00:00Z", "2024-01-01T05:00:00Z", 366 * 24 * hour],
    ["a day before 1970", "day", "1969-12-31T23:59:59Z", "1969-12-31T05:00:00Z", 24 * hour]
  ] as const)("%s, in New York", (_, unit, time, start, length) => {
    expect(spans(calendar(unit, "America/New_York"), at(time))).toEqual([[unit, at(start), at(start) + length]])
  })

  test("several units give one span each", () => {
    const { shape } = Window.calendar("w", { ...of, unit: ["day", "month"], timeZone: "UTC" })
    expect(spans(shape, at("2026-02-10T01:00:00Z"))).toEqual([
      ["day", at("2026-02-10T00:00:00Z"), at("2026-02-11T00:00:00Z")],
      ["month", at("2026-02-01T00:00:00Z"), at("2026-03-01T00:00:00Z")]
    ])
  })

  // days that begin at 01:00 or at 00:15, a midnight that comes twice, a day that never was, half an hour's change
  test.each([
    ["UTC", "2000-01-01"],
    ["America/New_York", "2026-03-08"],
    ["America/New_York", "2026-11-01"],
    ["America/Sao_Paulo", "2018-11-04"],
    ["America/Sao_Paulo", "2019-02-17"],
    ["America/Havana", "2004-04-01"],
    ["America/Havana", "2026-11-01"],
    ["Asia/Beirut", "1996-03-31"],
    ["Asia/Kathmandu", "1986-01-01"],
    ["Pacific/Apia", "2011-12-30"],
    ["Australia/Lord_Howe", "2026-04-05"]
  ])("spans neither overlap nor leave gaps in %s around %s", (timeZone, day) => {
    const unlike: Array<string> = []
    for (const unit of ["day", "week", "month", "year"] as const) {
      const shape = calendar(unit, timeZone)
      const spanOf = (time: number) => spansOf(shape, time)[0]!
      for (let time = at(day) - 50 * hour; time <= at(day) + 50 * hour; time += hour / 2) {
        const { end, start } = spanOf(time)
        const fits =
          start <= time &&
          time < end &&
          spanOf(end).start === end &&
          spanOf(end - 1).start === start &&
          spanOf(start).end === end
        if (!fits) unlike.push(`${unit} of ${new Date(time).toISOString()}: ${start} to ${end}`)
      }
    }
    expect(unlike).toEqual([])
  })
  test("a day that begins at 01:00 has 23 hours", () => {
    const start = at("2018-11-04T03:00:00Z")
    expect(spans(calendar("day", "America/Sao_Paulo"), start + 5 * hour)).toEqual([["day", start, start + 23 * hour]])
  })
})

describe("global and session", () => {
  test("a global window has one span, without a label", () => {
    expect(spans(Window.global("w", of).shape, -5)).toEqual([[undefined, -Infinity, Infinity]])
  })
  test("the span of a session begins as the instant of its event", () => {
    expect(spans(Window.session("w", { ...of, gap: "1 minute" }).shape, 7)).toEqual([[undefined, 7, 7]])
  })
})

describe("lateness", () => {
  const window = Window.tumbling("w", { ...of, size: "1 minute", grace: "5 minutes" })
  test("a window is closed once stream time reaches its end plus grace, and not a millisecond before", () => {
    expect(isClosed(window, minute, 6 * minute - 1)).toBe(false)
    expect(isClosed(window, minute, 6 * minute)).toBe(true)
    expect(isClosed(window, 0, 5 * minute)).toBe(true)
  })
  test("a window without grace is closed at its end", () => {
    const strict = Window.tumbling("w", { ...of, size: "1 minute" })
    expect([isClosed(strict, minute, minute - 1), isClosed(strict, minute, minute)]).toEqual([false, true])
  })
  test("a session is closed after its gap plus grace", () => {
    const session = Window.session("w", { ...of, gap: "1 minute", grace: "1 minute" })
    expect([isClosed(session, 0, 2 * minute - 1), isClosed(session, 0, 2 * minute)]).toEqual([false, true])
  })
  test("a global window is never closed", () => {
    expect(isClosed(Window.global("w", of), Infinity, 8.64e15)).toBe(false)
  })
})

describe("labels", () => {
  test.each([
    ["1 minute", "1m"],
    ["5 minutes", "5m"],
    ["90 seconds", "90s"],
    ["1 second", "1s"],
    ["1 hour", "1h"],
    ["1.5 hours", "1.5h"],
    ["7 days", "7d"],
    ["2 weeks", "2w"],
    ["100 millis", "100ms"],
    ["1 milli", "1ms"],
    ["2000000 nanos", "2000000nanos"],
    ["3000 micros", "3000micros"]
  ] as const)("%s is %s", (size, label) => {
    expect(spansOf(Window.tumbling("w", { ...of, size }).shape, 0)[0]!.label).toBe(label)
  })
})

describe("a declaration refuses", () => {
  test.each(["order by", "Orders", "1st", "", "naïve", "a-b", "_a", "x".repeat(56), "a;drop table b", "a\n"])(
    "the name %j, of a window or of its columns",
    (name) => {
      expect(() => Window.tumbling(name, { ...of, size: "1 hour" })).toThrow(InvalidName)
      expect(() => Window.tumbling("w", { ...of, key: { [name]: Schema.String }, size: "1 hour" })).toThrow(InvalidName)
      expect(() => Window.tumbling("w", { ...of, aggregate: { [name]: Agg.count }, size: "1 hour" })).toThrow(
        InvalidName
      )
    }
  )
  test.each(["0 minutes", "-1 minutes", "1.5 millis", "0.1 millis"] as const)("the size %s", (size) => {
    expect(() => Window.tumbling("w", { ...of, size })).toThrow(/must be a whole number above 0/)
  })
  test("a size or unit that is listed twice, because it would count each event twice", () => {
    expect(() => Window.tumbling("w", { ...of, size: ["1 minute", "1 minutes"] })).toThrow(
      "window w: the size or unit 1m is listed twice"
    )
    expect(() => Window.calendar("w", { ...of, unit: ["day", "day"], timeZone: "UTC" })).toThrow(
      "the size or unit day is listed twice; list it once"
    )
  })
  test("hops that are longer than the size", () => {
    expect(() => Window.hopping("w", { ...of, size: "1 minute", every: "2 minutes" })).toThrow(/in no window/)
  })
  test("two columns of the same name", () => {
    const twice = { key: { n: Schema.String }, aggregate: { n: Agg.count } }
    expect(() => Window.global("w", twice)).toThrow("window w: two columns are called n; rename one of them")
    const own = { key: { window_start: Schema.Int }, aggregate: { n: Agg.count } }
    expect(() => Window.tumbling("w", { ...own, size: "1 hour" })).toThrow("two columns are called window_start")
    expect(Window.global("w", own).key).toEqual(["window_start"])
  })
  test("a window without aggregates, a global window without a key, and an unknown time zone", () => {
    expect(() => Window.tumbling("w", { key: of.key, aggregate: {}, size: "1 hour" })).toThrow(
      "it has no aggregate; add at least one"
    )
    expect(() => Window.global("w", { key: {}, aggregate: of.aggregate })).toThrow("a global window needs a key")
    expect(() => Window.calendar("w", { ...of, unit: "day", timeZone: "Mars/Olympus" })).toThrow(/Mars\/Olympus/)
  })
})

test("messages of a window that publishes to a name have the key of their row", () => {
  const one = Window.tumbling("w", { ...of, size: "1 hour", publish: "totals" })
  expect(one.topic.keyOf({ user: "ann", window_size: "1h", window_start: 0, n: 1 })).toBe("ann")
  const two = Window.global("w", {
    key: { a: Schema.String, b: Schema.Int },
    aggregate: of.aggregate,
    publish: "totals"
  })
  expect(two.topic.keyOf({ a: 'x","y', b: 1, n: 1 })).toBe('["x\\",\\"y",1]')
})

describe("the tenant of a window", () => {
  const shared = { size: "1 hour", aggregate: { n: Agg.count } } as const

  test("is a column of the key", () => {
    const key = { studio: Schema.String, player: Schema.String }
    expect(Window.tumbling("w", { ...shared, key, tenant: "studio" })).toMatchObject({ tenant: "studio" })
    expect(Window.tumbling("w", { ...shared, key })).not.toHaveProperty("tenant")
    expect(Window.global("w", { key, aggregate: { n: Agg.count }, tenant: "studio" })).toMatchObject({
      tenant: "studio"
    })
  })
  test.each(["n", "window_size", "club"])("is not the column %s, which the key does not have", (tenant) => {
    expect(() => Window.tumbling("w", { ...shared, key: { studio: Schema.String }, tenant: tenant as never })).toThrow(
      `window w: \`tenant\`: it names ${JSON.stringify(tenant)}, which is no column of the window's key (studio); add the tenant of the events to \`key\``
    )
  })
})
