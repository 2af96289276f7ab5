// Personal fields: which are declared, and how their values are sealed and opened.
import { randomBytes } from "node:crypto"
import * as Schema from "effect/Schema"
import { assert, describe, expect, test } from "vitest"
import { type FindKey, keyOf, redacted, seal, sealedField, unseal } from "../../src/erasure/sealed.ts"
import { Aggregate, Event, Personal, Projection } from "../../src/index.ts"
import { unreadablePersonal } from "../../src/erasure/unreadable.ts"
import { EventDecoder } from "../../src/runner/event-decoder.ts"
import { personalFields } from "../../src/model/personal.ts"

describe("Personal", () => {
  test("redacts by null or [erased], whichever fits, or by what is given", () => {
    const fields = {
      text: Personal(Schema.String),
      nullable: Personal(Schema.NullOr(Schema.String)),
      number: Personal(Schema.Int, { redacted: 0 }),
      optional: Schema.optionalKey(Personal(Schema.String)),
      list: Personal(Schema.Array(Schema.String), { redacted: [] }),
      open: Schema.String
    }
    assert.deepStrictEqual(
      [...personalFields(fields)],
      [
        ["text", "[erased]"],
        ["nullable", null],
        ["number", 0],
        ["optional", "[erased]"],
        ["list", []]
      ]
    )
  })
  test("refuses a field that nothing can replace, and a replacement that does not fit", () => {
    const make = (field: Parameters<typeof Event.make>[1][string]) => () => Event.make("user.born", { born: field })
    expect(make(Personal(Schema.Struct({ year: Schema.Int })))).toThrow(
      'event type user.born: `born`: it is personal, and neither null nor "[erased]" fits the field; say what replaces an erased value'
    )
    expect(make(Schema.optionalKey(Personal(Schema.Int, { redacted: "x" as never })))).toThrow(
      'event type user.born: `born`: it is personal, and `redacted` is "x", which does not fit the schema of the field'
    )
  })
  test("needs an aggregate with a subject, and is neither its id nor its event time", () => {
    const make = (fields: Parameters<typeof Event.make>[1], options: object) =>
      Aggregate.make({
        name: "a",
        events: [Event.make("e", fields)],
        commands: {},
        state: Schema.Null,
        initial: null,
        evolve: { e: () => null },
        decide: {},
        ...options
      } as never)
    const subject = () => "s"
    expect(() => make({ id: Schema.String, email: Personal(Schema.String) }, { id: "id" })).toThrow(
      "the aggregate has no `subject`"
    )
    expect(() => make({ id: Personal(Schema.String) }, { id: "id", subject })).toThrow("holds the stream's id")
    expect(() => make({ at: Personal(Schema.Int, { redacted: 0 }) }, { eventTime: "at", subject })).toThrow(
      "is the event time"
    )
    make({ id: Schema.String, email: Personal(Schema.String) }, { id: "id", subject })
  })
})

describe("A sealed event", () => {
  const key = { subject: "ada", number: 1, key: new Uint8Array(randomBytes(32)) }
  const at = { aggregate: "customer", stream: "ada", eventId: "c1/0" }
  const json = { type: "registered", plan: "gold", email: "ada@example.org", born: 1815 }
  const find: FindKey = ({ number, subject }) => (subject === "ada" && number === 1 ? key.key : undefined)
  const sealed = seal(json, ["email", "born"], key, at)

  test("keeps its other fields readable, names its key, and opens to what it was", () => {
    assert.deepStrictEqual(Object.keys(sealed), ["type", "plan", sealedField])
    assert.deepStrictEqual(keyOf(sealed), { subject: "ada", number: 1 })
    assert.notInclude(JSON.stringify(sealed), "example.org")
    assert.deepStrictEqual(unseal(sealed, at, find), json)
    assert.notDeepEqual(seal(json, ["email", "born"], key, at), sealed, "the nonce differs each time")
  })
  test("does not open under another aggregate, stream or event id, with another key, or changed", () => {
    const refused = "cannot be decrypted"
    expect(() => unseal(sealed, { ...at, aggregate: "other" }, find)).toThrow(refused)
    expect(() => unseal(sealed, { ...at, stream: "bob" }, find)).toThrow(refused)
    expect(() => unseal(sealed, { ...at, eventId: "c1/1" }, find)).toThrow(refused)
    expect(() => unseal(sealed, at, () => new Uint8Array(32))).toThrow(refused)
    const text = JSON.parse(JSON.stringify(sealed)) as { [sealedField]: { v: string } }
    text[sealedField].v = `${text[sealedField].v.slice(0, 20)}AAAA${text[sealedField].v.slice(24)}`
    expect(() => unseal(text, at, find)).toThrow(refused)
    expect(() => unseal(sealed, at, () => undefined)).toThrow("which the database does not have")
  })
  test("has its fields redacted once its key is destroyed", () => {
    const fields = new Map<string, unknown>([
      ["email", "[erased]"],
      ["born", null]
    ])
    const open = unseal(sealed, at, () => null)
    assert.deepStrictEqual(redacted(open, fields), { type: "registered", plan: "gold", email: "[erased]", born: null })
    assert.strictEqual(redacted(json, fields), json)
  })
})

describe("A decoder of sealed events", () => {
  const Named = Event.make("named", { id: Schema.String, name: Personal(Schema.String) }).upcast(
    { id: Schema.String, name: Personal(Schema.String, { redacted: "gone" }), initial: Schema.String },
    ({ id, name }) => ({ id, name: name.toUpperCase(), initial: name.slice(0, 1) })
  )
  const Person = Aggregate.make({
    name: "person",
    id: "id",
    subject: ({ id }) => id,
    events: [Named],
    commands: {},
    state: Schema.Null,
    initial: null,
    evolve: { named: () => null },
    decide: {}
  })
  const projection = Projection.make({ name: "p", version: 1, source: Person, writes: [], handle: () => undefined })
  const key = { subject: "ada", number: 1, key: new Uint8Array(randomBytes(32)) }
  const decode = (
    json: Readonly<Record<string, unknown>>,
    schemaVersion: number,
    found: Uint8Array | null = key.key
  ) => {
    const at = { aggregate: "person", stream: "ada", eventId: "c/0" }
    const value = JSON.stringify(seal({ type: "named", id: "ada", ...json }, ["name"], key, at))
    const record = {
      partition: 0,
      position: 0,
      key: "ada",
      value,
      eventTime: 1,
      appendedAt: 1,
      eventId: "c/0",
      tenant: undefined,
      traceparent: undefined,
      schemaVersion,
      headers: {}
    }
    return new EventDecoder(projection as never, Person as never).decode(record, () => found).event
  }
  test("upcasts what was sealed by an older version, and what replaces it once it is erased", () => {
    assert.deepStrictEqual(decode({ name: "ann" }, 1), { type: "named", id: "ada", name: "ANN", initial: "a" } as never)
    const erased = { type: "named", id: "ada", name: "[ERASED]", initial: "[" }
    assert.deepStrictEqual(decode({ name: "ann" }, 1, null), erased as never)
    const newest = { type: "named", id: "ada", name: "gone", initial: "a" }
    assert.deepStrictEqual(decode({ name: "ann", initial: "a" }, 2, null), newest as never)
  })
  test("names the field that does not fit the schema, and does not quote its value", () => {
    expect(() => decode({ name: 19_800_101 }, 1)).toThrow(
      "version 1 of event type named cannot be decoded: `name` does not fit the schema; its value is left out, because that could be personal data"
    )
    expect(() => decode({ name: "ann" }, 2)).toThrow(
      "version 2 of event type named cannot be decoded: `initial` is missing"
    )
    expect(() => decode({ name: "ann" }, 3)).toThrow("event type named has no version 3")
  })
})

describe("What is wrong with an event with personal fields", () => {
  const Line = Schema.Struct({
    text: Schema.String.check(Schema.makeFilter((text) => text !== "secret" || `it is ${text}`))
  })
  const Noted = Event.make("noted", {
    id: Schema.String,
    note: Personal(Schema.Struct({ lines: Schema.Array(Line), phones: Schema.Record(Schema.String, Schema.Int) }), {
      redacted: { lines: [], phones: {} }
    })
  }).upcast({ id: Schema.String, note: Personal(Schema.String) }, ({ id, note }) => {
    throw Object.assign(new TypeError(`cannot use ${note.lines[0]?.text}`), { id })
  })
  const thrownBy = (run: () => unknown): unknown => {
    try {
      return run()
    } catch (error) {
      return error
    }
  }
  const problemOf = (note: unknown, thrown?: unknown) => {
    try {
      throw thrown ?? Noted.decode({ type: "noted", id: "a", note }, 1)
    } catch (error) {
      const found = unreadablePersonal(error, "noted", 1, new Map([["noted", Noted]]))
      return `${found.name} ${found.message}`
    }
  }
  const unfit = (path: string) =>
    `SchemaError version 1 of event type noted cannot be decoded: \`${path}\` does not fit the schema; its value is left out, because that could be personal data`
  test.each([
    [{ lines: [{ text: "a" }, { text: 7 }], phones: {} }, unfit("note.lines[1].text")],
    // what a check of the schema says may quote the value
    [{ lines: [{ text: "secret" }], phones: {} }, unfit("note.lines[0].text")],
    [
      { lines: [{}], phones: {} },
      "SchemaError version 1 of event type noted cannot be decoded: `note.lines[0].text` is missing"
    ],
    // the key of a record is no name that a schema declares
    [{ lines: [], phones: { secret: "1" } }, unfit("note.phones.*")],
    ["secret", unfit("note")]
  ])("%j is named by the path of the field", (note, expected) => {
    expect(problemOf(note)).toBe(expected)
  })
  test("what an upcaster throws is named by where, without its message", () => {
    const found = problemOf({ lines: [{ text: "a-secret" }], phones: {} })
    expect(found).toMatch(
      /^TypeError version 1 of event type noted cannot be decoded or upcast: TypeError was thrown at .*erasure\.test\.ts:\d+/
    )
    expect(found).not.toContain("secret")
  })
  test("what an upcaster returns is named by the upcaster and the path, without its value", () => {
    const Unfit = Event.make("noted", { id: Schema.String, note: Personal(Schema.String) }).upcast(
      { id: Schema.String, note: Personal(Schema.Int, { redacted: 0 }) },
      (v1) => v1 as never
    )
    const found = problemOf(
      undefined,
      thrownBy(() => Unfit.decode({ type: "noted", id: "a", note: "secret" }, 1))
    )
    expect(found).toBe(
      "UnfitUpcast version 1 of event type noted cannot be upcast: the upcaster of event type noted to version 2 returned data in which `note` does not fit the schema; its value is left out, because that could be personal data"
    )
  })
  test("whatever was thrown", () => {
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    expect(problemOf(undefined, proxy)).toContain("Error was thrown")
    expect(problemOf(undefined, "secret")).not.toContain("secret")
  })
})
