// Event types: versions, upcasting, and what decoding lets through.
import * as Schema from "effect/Schema"
import { describe, expect, expectTypeOf, test } from "vitest"
import { Event, Topic, UnknownVersion } from "../../../src/index.ts"
import { type EventType, upcasterOf } from "../../../src/model/event.ts"

const Paid = Event.make("paid", { id: Schema.String, amount: Schema.Finite })
  .upcast({ id: Schema.String, cents: Schema.Int }, ({ amount, id }) => ({ id, cents: Math.round(amount * 100) }))
  .upcast({ id: Schema.String, cents: Schema.Int, currency: Schema.String }, (v2) => ({ ...v2, currency: "USD" }))
const stored = (fields: object) => JSON.parse(JSON.stringify({ type: "paid", id: "p", ...fields })) as unknown

describe("versions", () => {
  const newest = { type: "paid", id: "p", cents: 150, currency: "USD" }

  test("an event of any version is decoded as the newest version", () => {
    expect(Paid.decode(stored({ amount: 1.5 }), 1)).toEqual(newest)
    expect(Paid.decode(stored({ cents: 150 }), 2)).toEqual(newest)
    expect(Paid.decode(stored({ cents: 150, currency: "EUR" }), 3)).toEqual({ ...newest, currency: "EUR" })
  })

  test("an event without a version is of version 1", () => {
    expect(Paid.decode(stored({ amount: 1.5 }))).toEqual(newest)
    expect(() => Paid.decode(stored({ cents: 150, currency: "EUR" }))).toThrow(/amount/)
  })

  test.each([0, 4, -1, 1.5, Number.NaN])("version %d is unknown, and the error has the newest version", (version) => {
    expect(() => Paid.decode(stored({ amount: 1 }), version)).toThrow(UnknownVersion)
    expect(() => Paid.decode(stored({ amount: 1 }), version)).toThrow(
      `event type paid has no version ${version}, the newest is 3; deploy the code that declares it`
    )
  })

  test("`upcast` leaves the event type that it is called on unchanged", () => {
    const first = Event.make("grown", { a: Schema.Int })
    first.upcast({ b: Schema.Int }, ({ a }) => ({ b: a }))
    expect(first.versions).toHaveLength(1)
    expect(first.decode({ type: "grown", a: 1 })).toEqual({ type: "grown", a: 1 })
  })

  test("`make`, the inferred type and `encode` are of the newest version", () => {
    const made = Paid.make({ id: "p", cents: 1, currency: "NOK" })
    expectTypeOf(made).toEqualTypeOf<{
      readonly type: "paid"
      readonly id: string
      readonly cents: number
      readonly currency: string
    }>()
    expectTypeOf(Paid.decode).returns.toEqualTypeOf(made)
    expect(Paid.encode(made as never)).toEqual(made)
    expect(Paid.decode(JSON.parse(JSON.stringify(Paid.encode(made as never))), 3)).toEqual(made)
  })

  test("an error that an upcaster throws is thrown by `decode`", () => {
    const Broken = Event.make("broken", { a: Schema.Int }).upcast({ b: Schema.Int }, () => {
      throw new Error("cannot tell")
    })
    expect(() => Broken.decode({ type: "broken", a: 1 })).toThrow("cannot tell")
    expect(errorOf(Broken, { type: "broken", a: 1 })).toEqual([
      "cannot tell",
      "the upcaster of event type broken to version 2"
    ])
  })

  const errorOf = (type: EventType.Any, json: unknown) => {
    try {
      type.decode(json)
    } catch (error) {
      return [(error as Error).message, upcasterOf(error)]
    }
    return undefined
  }
  test("what an upcaster returns must fit its version, also where a later one would hide that", () => {
    const first = Event.make("weighed", { grams: Schema.String })
    const wrong = first.upcast({ grams: Schema.Finite }, ({ grams }) => ({ grams }) as never)
    const json = { type: "weighed", grams: "x" }
    const what = "the upcaster of event type weighed to version 2"
    const message = `${what} returned data that does not fit its schema: Expected number\n  at ["grams"]`
    const later = wrong.upcast({ heavy: Schema.Boolean }, ({ grams }) => ({ heavy: grams > 1 }))
    expect([errorOf(wrong, json), errorOf(later, json)]).toEqual([
      [message, what],
      [message, what]
    ])
    const missing = first.upcast({ grams: Schema.String, at: Schema.Date }, ({ grams }) => ({ grams }) as never)
    expect(errorOf(missing, json)?.[0]).toMatch(/returned data that does not fit its schema: Missing key\s+at \["at"\]/)
    expect(errorOf(first, { type: "weighed", grams: 1 })?.[1]).toBe(undefined)
  })
  test("what an upcaster returns may have values that JSON does not have; undeclared fields are left out", () => {
    const Dated = Event.make("dated", { at: Schema.Int }).upcast(
      { at: Schema.Date, note: Schema.optionalKey(Schema.String) },
      (v1) => ({ ...v1, at: new Date(v1.at), more: 1 })
    )
    expect(Dated.decode({ type: "dated", at: 5 })).toEqual({ type: "dated", at: new Date(5) })
    const Named = Event.make("named", { first: Schema.String }).upcast({ name: Schema.String }, (v1) => ({
      ...v1,
      name: v1.first
    }))
    expect(Named.decode({ type: "named", first: "ann" })).toEqual({ type: "named", name: "ann" })
  })
})

describe("fields", () => {
  test("undeclared fields are left out, when decoded and when encoded", () => {
    expect(Object.keys(Paid.decode(stored({ amount: 1, extra: 1, cents: 5 })))).toEqual([
      "type",
      "id",
      "cents",
      "currency"
    ])
    const wide = { ...Paid.make({ id: "p", cents: 1, currency: "NOK" }), secret: true }
    expect(Paid.encode(wide as never)).not.toHaveProperty("secret")
  })

  test.each([
    ["a missing field", { id: "p" }, /amount/],
    ["a wrong type", { id: "p", amount: "1" }, /amount/],
    ["a number that JSON has not", { id: "p", amount: Infinity }, /amount/],
    ["null", { id: null, amount: 1 }, /id/]
  ])("%s is refused by name", (_, fields, message) => {
    expect(() => Paid.decode({ type: "paid", ...fields })).toThrow(message)
  })

  test("an event of another type is refused", () => {
    expect(() => Paid.decode({ type: "refunded", id: "p", amount: 1 })).toThrow(/type/)
    expect(() => Paid.decode(null)).toThrow()
    expect(() => Paid.decode([])).toThrow()
  })

  test("`__proto__` in the input has no effect", () => {
    const text =
      '{"type":"paid","id":"p","amount":1,"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}'
    const event = Paid.decode(JSON.parse(text)) as object
    expect(Object.keys(event)).toEqual(["type", "id", "cents", "currency"])
    expect(Object.getPrototypeOf(event)).toBe(Object.prototype)
    expect((event as { polluted?: boolean }).polluted).toBeUndefined()
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined()
  })

  test("`__proto__` does not supply a missing field", () => {
    const text = '{"type":"paid","__proto__":{"id":"p","amount":1}}'
    expect(() => Paid.decode(JSON.parse(text))).toThrow(/id|amount/)
  })

  test("an event type called like a property of Object exists only if it is declared", () => {
    const topic = Topic.events("payments", { events: [Paid], key: "id" })
    for (const type of ["__proto__", "constructor", "toString", "hasOwnProperty"]) {
      expect(() => topic.decode({ type, id: "p", amount: 1 })).toThrow(
        `payments has no event type "${type}"; it has paid`
      )
    }
    const odd = Event.make("constructor", { id: Schema.String })
    expect(Topic.events("odd", { events: [odd], key: "id" }).decode({ type: "constructor", id: "x" })).toEqual({
      type: "constructor",
      id: "x"
    })
  })
})

describe("fields whose values JSON does not have", () => {
  const at = new Date("2026-01-01T12:00:00Z")
  const fields = {
    id: Schema.String,
    at: Schema.Date,
    ended: Schema.NullOr(Schema.Date),
    paid: Schema.optionalKey(Schema.BigInt),
    stops: Schema.Array(Schema.Struct({ at: Schema.Date }))
  }
  const Driven = Event.make("driven", fields)
  const json = { type: "driven", id: "a", at: at.toISOString(), ended: null, stops: [{ at: at.toISOString() }] }

  test("are texts in JSON, and are decoded to their values", () => {
    const event = Driven.make({ id: "a", at, ended: null, stops: [{ at }] })
    expect(Driven.encode(event as never)).toEqual(json)
    expect(Driven.decode(json)).toEqual(event)
    expect(Driven.decode({ ...json, paid: "12345678901234567890" })).toMatchObject({ paid: 12345678901234567890n })
    expect(() => Driven.decode({ ...json, at: "noon" })).toThrow(/valid Date/)
  })

  test("are the same in a topic of records", () => {
    const drives = Topic.records("drives", { value: fields, key: "id" })
    const { type: _, ...value } = json
    expect(drives.decode(JSON.parse(drives.stringify(drives.decode(value))!))).toEqual(drives.decode(value))
  })
})
