// Durations, counts and choices in definitions: what makes no sense is refused where it is declared, with the option's name and value.
import type * as Duration from "effect/Duration"
import { hours, infinity, nanos } from "effect/Duration"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import {
  Agg,
  type FailurePolicy,
  InvalidOption,
  Projection,
  ReadModel,
  type Size,
  Subscription,
  Tenancy,
  Topic,
  Window
} from "../../../src/index.ts"
import { checkedDuration } from "../../../src/model/options.ts"
import { ProjectionTest } from "../../../src/testing/testing.ts"

const errorOf = (run: () => unknown): Error => {
  try {
    run()
  } catch (error) {
    return error as Error
  }
  throw new Error("nothing was thrown")
}
/** The message of the `InvalidOption` that is thrown. */
const refused = (run: () => unknown): string => {
  const error = errorOf(run)
  expect(error).toBeInstanceOf(InvalidOption)
  return error.message
}

const source = Topic.records("source", { value: { id: Schema.String }, key: "id", id: "id" })
const rows = ReadModel.table("rows", { columns: { id: Schema.String }, primaryKey: ["id"] })
const of = { key: { user: Schema.String }, aggregate: { n: Agg.count } }
const projectionOf = (more: object) =>
  Projection.make({ name: "p", version: 1, source, writes: [rows], handle: () => undefined, ...more })
const subscriptionOf = (more: object) => Subscription.make({ topic: source, name: "s", type: "shared", ...more })

/** Every option of a definition that is a duration, and the shortest that it may be. */
const durations: Readonly<Record<string, readonly [define: (input: never) => unknown, least: 0 | 1]>> = {
  "window w: grace": [(grace) => Window.tumbling("w", { ...of, size: "1 hour", grace }), 0],
  "window w: every": [(every) => Window.hopping("w", { ...of, size: "1 hour", every }), 1],
  "window w: gap": [(gap) => Window.session("w", { ...of, gap }), 1],
  "projection p: maxAhead": [(maxAhead) => projectionOf({ maxAhead }), 0],
  "projection p: dedupe.within": [(within) => projectionOf({ dedupe: { within } }), 0],
  "topic t: retention": [(retention) => Topic.records("t", { value: of.key, key: "user", retention }), 1],
  "tenancy: retention.time": [(time) => Tenancy.make({ tenants: [], topics: [], retention: { time } }), 0],
  "tenancy: timeToLive": [(timeToLive) => Tenancy.make({ tenants: [], topics: [], timeToLive }), 1],
  "tenancy: offload.after": [(after) => Tenancy.make({ tenants: [], topics: [], offload: { after } }), 0],
  "tenancy: offload.keep": [(keep) => Tenancy.make({ tenants: [], topics: [], offload: { keep } }), 0],
  "subscription s of source: redeliveryDelayMs": [(ms) => subscriptionOf({ redeliveryDelayMs: ms }), 0],
  "subscription s of source: maxRedeliveryDelayMs": [(ms) => subscriptionOf({ maxRedeliveryDelayMs: ms }), 0],
  "subscription s of source: ackTimeoutMs": [(ms) => subscriptionOf({ ackTimeoutMs: ms }), 1],
  idle: [(time) => ProjectionTest.make(projectionOf({})).idle(time).then({}), 0]
}

describe.each(Object.entries(durations))("%s", (what, [define, least]) => {
  const bound =
    least === 0
      ? "it must be 0 or more, in whole milliseconds"
      : "it must be a whole number above 0, in whole milliseconds"
  const malformed = 'it must be a duration; write one such as "5 minutes", or a number of milliseconds'
  const senseless: ReadonlyArray<readonly [input: unknown, message: string]> = [
    ["-50 seconds", `"-50 seconds"; ${bound}`],
    ["-1 hour", `"-1 hour"; ${bound}`],
    [-1, `-1; ${bound}`],
    [0.5, `0.5; ${bound}`],
    ["1.5 millis", `"1.5 millis"; ${bound}`],
    ["100 micros", `"100 micros"; ${bound}`],
    [{ hours: -1 }, `{"hours":"-1"}; ${bound}`],
    [hours(-1), `-1h; ${bound}`],
    [nanos(5n), `5ns; ${bound}`],
    [1_500_000n, `1500000n; ${bound}`],
    ["-Infinity", `"-Infinity"; ${bound}`],
    [NaN, `NaN; ${malformed}`],
    [{ seconds: NaN }, `{"seconds":"NaN"}; ${malformed}`],
    [{ lightyears: 1 }, `{"lightyears":"1"}; ${malformed}`],
    [{ months: 1, days: 1 }, `{"months":"1","days":"1"}; ${malformed}`],
    [{}, `{}; ${malformed}`],
    [[1, NaN], `["1","NaN"]; ${malformed}`],
    ["1 lightyear", `"1 lightyear"; ${malformed}`],
    ["", `""; ${malformed}`],
    ["NaN seconds", `"NaN seconds"; ${malformed}`],
    ["1e3 seconds", `"1e3 seconds"; ${malformed}`],
    ["9999999999 weeks", `"9999999999 weeks"; it must be at most `],
    [null, `null; ${malformed}`],
    [true, `true; ${malformed}`],
    [Object.create(null), `{}; ${malformed}`],
    [() => 1, `function; ${malformed}`]
  ]
  test("refuses what makes no sense, and says so", () => {
    for (const [input, message] of senseless) {
      if (input === null && ["window w: grace", "projection p: maxAhead"].includes(what)) continue // as if it was left out
      expect(refused(() => define(input as never))).toContain(`${what} is ${message}`)
    }
  })
  test("takes whole milliseconds in every notation", () => {
    for (const input of ["5 minutes", 300_000, { minutes: 5 }, [300, 0], 300_000_000_000n, "0.5 hours", 60_000])
      expect(() => define(input as never)).not.toThrow()
    if (least === 0) expect(() => define(0 as never)).not.toThrow()
    else expect(refused(() => define("0 seconds" as never))).toContain(bound)
  })
  test("takes Infinity only where it means something", () => {
    const isEndless = ["window w: grace", "topic t: retention", "tenancy: retention.time"].includes(what)
    for (const input of ["Infinity", Infinity, infinity]) {
      if (isEndless) expect(() => define(input as never)).not.toThrow()
      else expect(refused(() => define(input as never))).toMatch(/it must be finite|at most/)
    }
  })
})

describe("a window refuses", () => {
  const sized = (size: unknown) => () => Window.tumbling("w", { ...of, size: size as Size })
  test("an endless grace if it emits when it closes", () => {
    const endless = { ...of, size: "1 hour", grace: "Infinity" } as const
    expect(refused(() => Window.tumbling("w", { ...endless, emit: "onWindowClose" }))).toBe(
      'window w: grace is "Infinity"; so the window would never close and `emit` nothing; make it finite'
    )
    expect(Window.tumbling("w", endless).graceMs).toBe(Infinity)
  })
  test.each(["-1 minutes", "0 minutes", "1.5 millis", "1 lightyear", "NaN hours", "9999999999 weeks"])(
    "the size %s",
    (size) => {
      expect(refused(sized(size))).toContain(`window w: size is "${size}"; `)
      expect(refused(() => Window.hopping("w", { ...of, size: size as Size, every: "1 milli" }))).toContain(
        "window w: size"
      )
    }
  )
  test("a size that is no text, for it has no label", () => {
    for (const size of [60_000, { hours: 1 }, undefined])
      expect(refused(sized(size))).toContain('write it as "5 minutes"')
  })
  test("sizes of the same length, which would count an event twice, and no size at all", () => {
    expect(() => Window.tumbling("w", { ...of, size: ["1 hour", "60 minutes"] })).toThrow(
      "window w: the sizes 1h and 60m are the same, so each event would count twice; list one of them"
    )
    expect(sized(["1 day", "1 week", "24 hours"])).toThrow("the sizes 1d and 24h are the same")
    expect(sized(["1 minute", "1 minutes"])).toThrow("the size or unit 1m is listed twice; list it once")
    expect(sized([])).toThrow("window w: it has no size; list at least one")
    expect(() => Window.calendar("w", { ...of, unit: [] as never, timeZone: "UTC" })).toThrow("it has no unit")
  })
  test("hops that put an event into more than 1,000 windows", () => {
    const hopping = (size: Size, every: number) => () => Window.hopping("w", { ...of, size, every })
    expect(hopping("1 second", 1)).not.toThrow()
    expect(hopping("1001 millis", 1)).toThrow(
      "each event would be in 1001 windows, and change as many rows; make `every` at least 1.001 ms"
    )
    expect(hopping("365 days", 1_000)).toThrow("each event would be in 31536000 windows")
  })
  test("units, zones, week starts and ways to emit that there are not", () => {
    const calendar = (more: object) => () => Window.calendar("w", { ...of, unit: "week", timeZone: "UTC", ...more })
    expect(refused(calendar({ unit: "decade" }))).toBe(
      'window w: unit is "decade"; use "day" or "week" or "month" or "year"'
    )
    for (const timeZone of ["Mars/Olympus", "", "CEST", "Europe/berlin ", 2, undefined])
      expect(refused(calendar({ timeZone }))).toContain("it is no time zone that Intl knows")
    for (const timeZone of ["Europe/Berlin", "europe/berlin", "+02:00", "Etc/GMT-5"])
      expect(calendar({ timeZone })).not.toThrow()
    expect(refused(calendar({ weekStartsOn: "thursday" }))).toContain("window w: weekStartsOn")
    expect(refused(calendar({ emit: "onClose" }))).toBe(
      'window w: emit is "onClose"; use "onUpdate" or "onWindowClose"'
    )
  })
})

describe("counts are whole and in their bounds:", () => {
  const counts: Readonly<Record<string, readonly [define: (value: number) => unknown, least: 0 | 1]>> = {
    "topic t: partitions": [(partitions) => Topic.records("t", { value: of.key, key: "user", partitions }), 1],
    "topic t: kafka.replication": [
      (replication) => Topic.records("t", { value: of.key, key: "user", kafka: { replication } }),
      1
    ],
    "topic source: partitions": [(partitions) => Tenancy.topic(source, { partitions }), 1],
    "projection p: version": [(version) => projectionOf({ version }), 1],
    "subscription s of source: receiveQueue": [(receiveQueue) => subscriptionOf({ receiveQueue }), 1],
    "subscription s of source: maxRedeliveries": [(maxRedeliveries) => subscriptionOf({ maxRedeliveries }), 0],
    "subscription s: concurrency": [
      (concurrency) => Subscription.run(subscriptionOf({}), () => null as never, { concurrency }),
      1
    ]
  }
  test.each(Object.entries(counts))("%s", (what, [define, least]) => {
    for (const value of [NaN, -1, 1.5, "2", null, ...(least === 1 ? [0] : [])]) {
      if (value === null && what === "subscription s: concurrency") continue
      const text = typeof value === "string" ? `"${value}"` : String(value)
      expect(refused(() => define(value as number))).toContain(`${what} is ${text}; it must be a whole number, `)
    }
    expect(() => define(least)).not.toThrow()
    if (what.endsWith("maxRedeliveries")) expect(() => define(Infinity)).not.toThrow()
    else expect(refused(() => define(Infinity))).toContain("is Infinity; ")
  })
  test("megabytes of a tenancy", () => {
    const tenancy = (more: object) => () => Tenancy.make({ tenants: [], topics: [], ...more })
    for (const megabytes of [NaN, -1, "5"]) {
      expect(refused(tenancy({ retention: { megabytes } }))).toContain("tenancy: retention.megabytes")
      expect(refused(tenancy({ backlog: { megabytes, whenFull: "hold" } }))).toContain("tenancy: backlog.megabytes")
      expect(refused(tenancy({ offload: { megabytes } }))).toContain("tenancy: offload.megabytes")
    }
    expect(refused(tenancy({ backlog: { megabytes: 1, whenFull: "drop" } }))).toContain("tenancy: backlog.whenFull")
    expect(tenancy({ retention: { megabytes: 0.5 }, offload: { megabytes: 0 } })).not.toThrow()
  })
})

test("a failure policy with words that there are not, or a retry that is no schedule, is refused", () => {
  const failing = (failure: object) => () => projectionOf({ failure: failure as FailurePolicy })
  // oxlint-disable-next-line unicorn/no-thenable -- a word of failure policies
  expect(refused(failing({ then: "drop" }))).toContain(
    'projection p: failure.then is "drop"; use "park" or "skip" or "stop"'
  )
  expect(refused(failing({ order: "keys" }))).toContain("projection p: failure.order")
  for (const retry of [5, "1 second", {}]) expect(refused(failing({ retry }))).toContain("as `Schedule.recurs(5)`")
  expect(failing({ retry: Schedule.recurs(5) })).not.toThrow()
})
test("a time of the test kit's clock that is none is refused", () => {
  for (const time of [NaN, Infinity, "noon"])
    expect(refused(() => ProjectionTest.make(projectionOf({})).at(time as number))).toContain("; it must be a date")
})
test("a subscription's start that is none is refused", () => {
  for (const from of ["newest", { time: NaN }, { time: "1 hour" }, {}, 5, { places: [{ partition: -1, position: 0 }] }])
    expect(refused(() => subscriptionOf({ from }))).toContain("subscription s of source: from")
  for (const from of ["latest", { time: 0 }, { places: [{ partition: 0, position: 5 }] }])
    expect(() => subscriptionOf({ from })).not.toThrow()
})
test("a retention without an end is the same as none", () => {
  expect(Topic.records("t", { value: of.key, key: "user", retention: "Infinity" }).retentionMs).toBeUndefined()
})
test("a duration is returned in milliseconds", () => {
  const ms = (input: Duration.Input) => checkedDuration("x", input)
  expect([ms("1.5 seconds"), ms({ hours: 1, minutes: 1 }), ms(7), ms([1, 500_000_000]), ms("1 week")]).toEqual([
    1_500, 3_660_000, 7, 1_500, 604_800_000
  ])
})
