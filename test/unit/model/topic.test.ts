// Topics: declarations that are refused, and how values are encoded and decoded.
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import { Event, InvalidTopicName, Topic, UnknownEventType } from "../../../src/index.ts"

const value = { user: Schema.String, at: Schema.Finite, note: Schema.optionalKey(Schema.String) }
const Made = Event.make("made", value)
const Moved = Event.make("moved", { user: Schema.String }).upcast({ user: Schema.String, to: Schema.String }, (v1) => ({
  ...v1,
  to: "?"
}))

describe("a declaration", () => {
  test.each(["a", "events.raw.v1", "A_b-c.9", "...", "x".repeat(249)])("takes the name %s", (name) => {
    expect(Topic.records(name, { value, key: "user" }).name).toBe(name)
  })
  test.each(["", ".", "..", "a b", "ü", "a/b", "a\n", "x".repeat(250)])("refuses the name %j", (name) => {
    expect(() => Topic.records(name, { value, key: "user" })).toThrow(InvalidTopicName)
    expect(() => Topic.records(name, { value, key: "user" })).toThrow(
      /the name is not allowed; use at most 249 letters, digits, dots, _ and -/
    )
  })
  test.each([0, -1, 1.5, Number.NaN])("refuses %d partitions", (partitions) => {
    expect(() => Topic.records("t", { value, key: "user", partitions })).toThrow(
      /partitions is .*; it must be a whole number, at least 1/
    )
  })
  test("refuses an event type that is listed twice, and an empty list", () => {
    expect(() => Topic.events("t", { events: [Made, Made], key: "user" })).toThrow(
      "topic t declares an event type twice: made"
    )
    expect(() => Topic.events("t", { events: [], key: "user" as never })).toThrow("topic t declares no event type")
  })
  test("refuses a retention that is not a duration", () => {
    expect(() => Topic.records("t", { value, key: "user", retention: "1 fortnight" as never })).toThrow()
  })
  test("has the values that were declared", () => {
    const topic = Topic.compacted("t", { value, key: "user", partitions: 3, retention: "2 days" })
    expect(topic).toMatchObject({
      compacted: true,
      partitions: 3,
      retentionMs: 172_800_000,
      fields: ["user", "at", "note"]
    })
    expect(Topic.records("t", { value, key: "user" })).toMatchObject({ partitions: undefined, retentionMs: undefined })
  })
})

describe("selectors", () => {
  test("are fields or functions", () => {
    const topic = Topic.records("t", {
      value,
      key: ({ user }) => user.toLowerCase(),
      id: "user",
      tenant: "user",
      eventTime: "at"
    })
    const row = { user: "Ann", at: 5 }
    expect([topic.keyOf(row), topic.idOf?.(row), topic.tenantOf?.(row), topic.timeOf?.(row)]).toEqual([
      "ann",
      "Ann",
      "Ann",
      5
    ])
    expect(Topic.records("t", { value, key: "user" }).timeOf).toBeUndefined()
  })
  test("event times are rounded down to whole milliseconds", () => {
    const { timeOf } = Topic.records("t", { value, key: "user", eventTime: "at" })
    expect([1.9, 1, -0.1, -1.5].map((at) => timeOf!({ user: "u", at }))).toEqual([1, 1, -1, -2])
  })
})

describe("values", () => {
  const topic = Topic.events("t", { events: [Made, Moved], key: "user" })

  test("the error of an unknown event type lists the known ones", () => {
    expect(() => topic.decode({ type: "flown", user: "u" })).toThrow(UnknownEventType)
    expect(() => topic.decode({ type: "flown", user: "u" })).toThrow(
      'topic t has no event type "flown"; it has made, moved'
    )
    expect(() => topic.decode({ user: "u" })).toThrow("topic t has no event type undefined; it has made, moved")
    for (const json of [null, undefined, 1, "made", []]) expect(() => topic.decode(json)).toThrow(UnknownEventType)
    expect(() => topic.encode({ type: "flown" } as never)).toThrow(UnknownEventType)
  })
  test("are decoded by the version of their event type, and encoded as the newest", () => {
    expect(topic.decode({ type: "moved", user: "u" }, 1)).toEqual({ type: "moved", user: "u", to: "?" })
    const moved = Moved.make({ user: "u", to: "b" })
    expect(topic.versionOf(moved)).toBe(2)
    expect(topic.versionOf(Made.make({ user: "u", at: 1 }))).toBe(1)
    expect(topic.decode(topic.encode(moved), topic.versionOf(moved))).toEqual(moved)
  })
  test("of one shape keep declared fields only, when decoded and when encoded", () => {
    const records = Topic.records("t", { value, key: "user" })
    expect(records.decode({ user: "u", at: 1, more: 1 })).toEqual({ user: "u", at: 1 })
    expect(records.encode({ user: "u", at: 1, more: 1 } as never)).toEqual({ user: "u", at: 1 })
    expect(() => records.encode({ user: "u", at: Number.NaN })).toThrow(/at/)
    expect(() => records.decode({ user: "u" })).toThrow(/at/)
  })
  test("of a plain topic are not changed", () => {
    const plain = Topic.plain("t", ({ k }: { readonly k: string }) => k)
    expect(plain.decode({ k: "a", more: 1 })).toEqual({ k: "a", more: 1 })
    expect(plain.keyOf({ k: "a" })).toBe("a")
  })
})

describe("values of plain fields", () => {
  const fields = { id: Schema.String, n: Schema.Finite, whole: Schema.Int, is: Schema.Boolean }
  const plain = Topic.records("plain", { value: fields, key: "id" })

  test("are decoded to the declared fields in their order, each to an object of its own", () => {
    const json = { extra: 1, is: true, whole: 2, n: 0.5, id: "a" }
    const [one, other] = [plain.decode(json), plain.decode({ ...json, id: "b" })]
    expect([JSON.stringify(one), JSON.stringify(other)]).toEqual([
      '{"id":"a","n":0.5,"whole":2,"is":true}',
      '{"id":"b","n":0.5,"whole":2,"is":true}'
    ])
    const event = Event.make("did", fields).decode({ ...json, type: "did" })
    expect(JSON.stringify(event)).toBe('{"type":"did","id":"a","n":0.5,"whole":2,"is":true}')
  })
  test.each(["", "a", "e-17", " !#[]{}~:,"])(
    "with the text %j have a plain text, which is that of `stringify`",
    (id) => {
      for (const n of [0, -0, -1.5, 1e21, 1e-7]) {
        const value = { id, n, whole: -3, is: false }
        expect(plain.plainText!(value)).toBe(plain.stringify(value))
        expect(JSON.parse(plain.plainText!(value)!)).toEqual({ ...value, n: n + 0 })
      }
    }
  )
  test.each(['"', "\\", "\u0000", "\n", "é", "\ud800", "\u007f"])("with the text %j have none", (id) => {
    expect(plain.plainText!({ id, n: 0, whole: 0, is: true })).toBeUndefined()
  })
  test("have none if they do not fit, or if a field is not plain or has a name that is refused", () => {
    expect(plain.plainText!({ id: "a", n: Number.NaN, whole: 0, is: true })).toBeUndefined()
    expect(Topic.records("t", { value, key: "user" }).plainText!({ user: "u", at: 1 })).toBeUndefined()
    const named = { k: Schema.String, ["__proto__"]: Schema.String }
    const proto = Topic.records("t", { value: named, key: "k" })
    const given = Object.defineProperty({ k: "k" }, "__proto__", { value: "p", enumerable: true })
    expect(proto.plainText!(given as never)).toBeUndefined()
  })
})
