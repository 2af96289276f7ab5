// The rules for values and envelopes, which are the same on every way in: see docs/reference/input.md.
import { describe, expect, test } from "vitest"
import { assertAcceptable } from "../../../src/log/acceptable.ts"
import { parseJson } from "../../../src/log/json.ts"
import type { LogRecord } from "../../../src/log/log.ts"
import { singleLineJson } from "../../../src/log/rules.ts"
import { headersOf, headingOf } from "../../../src/kafka/log/records.ts"
import { recordFromEnvelope, retryRecord, storedEnvelope } from "../../../src/dead-letter/retry-record.ts"
import { isStorable } from "../../../src/text/text.ts"
import { randomOf, seed } from "../../support/random.ts"

describe("JSON", () => {
  test.each([
    ['{"a":1,"a":2}', "an object has the field a twice"],
    ['{"a" :1,"a":"x\\":"}', "an object has the field a twice"],
    ['{"b":{"a":1,"c":[{"d":1,"\\u0064":2}]}}', "an object has the field d twice"],
    ['[{"a":1},{"a":1,\n"a"\t: 1}]', "an object has the field a twice"],
    ['{"":1,"":2}', "an object has the field  twice"],
    ['{"__proto__":{}}', "__proto__"],
    ['{"\\u005f_proto__":{}}', "__proto__"],
    ['{"a":[{"constructor":{"prototype":{}}}]}', "prototype"],
    ['{"a":"\\u0000"}', "a contains a NUL character"],
    ['"\\u0000"', "the value contains a NUL character"],
    ['{"a":["\\ud800"]}', "a.0 contains an unpaired surrogate"],
    ['{"a":"\ud800"}', "not text in UTF-8"],
    ['{"a":"\udcff"}', "not text in UTF-8"],
    [`${"[".repeat(1_001)}${"]".repeat(1_001)}`, "nested more than 1000 levels deep"],
    [`${"[".repeat(100_000)}${"]".repeat(100_000)}`, "nested more than 1000 levels deep"],
    ["\ufeff{}", ""],
    ["{} {}", ""],
    ["{}\0", ""],
    ["NaN", ""],
    ["[Infinity]", ""],
    ["{'a':1}", ""],
    ["", ""]
  ])("%j is refused", (text, reason) => {
    expect(() => parseJson(text)).toThrow(reason)
  })

  test.each([
    '{"a":1,"b":{"a":1},"c":[{"a":1},{"a":2}]}',
    '{"a":"\\"b\\":1,\\"b\\":2"}',
    '{ "a" : "x" , "b" : ":" }',
    '{"a":"caf\\u00e9 \\ud83d\\ude00 \\\\u0000"}',
    '{"constructor":1,"prototype":2}',
    '{"a":"\\":","b":"\\\\"}',
    "[]",
    "1e3",
    '"x"',
    "null"
  ])("%s is what JSON.parse makes of it", (text) => {
    expect(parseJson(text)).toEqual(JSON.parse(text))
  })

  test("an integer that a number would round is a bigint, in strings it stays text", () => {
    expect(
      parseJson('{"a":9007199254740993,"b":-12345678901234567890,"c":9007199254740992,"d":"9007199254740993"}')
    ).toEqual({ a: 9007199254740993n, b: -12345678901234567890n, c: 9007199254740992, d: "9007199254740993" })
    const fraction = "[0.1234567890123456789, 1e22, 10000000000000000000]"
    expect(parseJson(fraction)).toEqual(JSON.parse(fraction))
  })

  test("such an integer is found wherever in the text it is", () => {
    for (let before = 0; before < 40; before++) {
      const pad = "x".repeat(before)
      expect(parseJson(`["${pad}",9007199254740993]`)).toEqual([pad, 9007199254740993n])
      expect(parseJson(`["${pad}",900719925474099]`)).toEqual([pad, 900719925474099])
    }
    expect(parseJson("9007199254740993")).toBe(9007199254740993n)
  })

  test(`random objects are refused exactly if a name occurs twice (seed ${seed})`, () => {
    const random = randomOf(seed)
    const names = ["a", "b", 'c\\"', "d:", '\\"e\\":', "\\u0061"]
    const spaces = ["", "", " ", "\n\t"]
    for (let i = 0; i < 5_000; i++) {
      let isDuplicate = false
      const value = (depth: number): string => {
        const kind = depth > 3 ? 0 : random.int(0, 3)
        if (kind < 2) return random.pick(["1", '"x"', '"\\":"', '"{\\"a\\":1,\\"a\\":2}"', "null"])
        const all = Array.from({ length: random.int(0, 3) }, () => value(depth + 1))
        if (kind === 2) return `[${all.join(",")}]`
        const seen = new Set<string>()
        const fields = all.map((inner) => {
          const name = random.pick(names)
          const read = JSON.parse(`"${name}"`) as string
          if (seen.has(read)) isDuplicate = true
          seen.add(read)
          return `"${name}"${random.pick(spaces)}:${random.pick(spaces)}${inner}`
        })
        return `{${fields.join(`,${random.pick(spaces)}`)}}`
      }
      const text = value(0)
      if (isDuplicate) expect(() => parseJson(text), text).toThrow("twice")
      else expect(parseJson(text), text).toEqual(JSON.parse(text))
    }
  })

  test("a value on several lines becomes one line without losing duplicates or digits", () => {
    expect(singleLineJson('{"a":1,\n"a":9007199254740993}')).toBe('{"a":1,"a":9007199254740993}')
    expect(singleLineJson('{"a":"\n"}')).toBeUndefined()
  })
})

const record: LogRecord = {
  partition: 0,
  position: 0,
  key: "k",
  value: "{}",
  eventTime: 0,
  appendedAt: 0,
  eventId: "i",
  tenant: "acme",
  traceparent: undefined,
  schemaVersion: 1,
  headers: {}
}
const problemOf = (changed: { readonly [field in keyof LogRecord]?: unknown }): string | undefined => {
  try {
    assertAcceptable({ ...record, ...changed } as LogRecord)
    return undefined
  } catch (error) {
    return (error as Error).message
  }
}

describe("an envelope", () => {
  test.each([
    [{ tenant: "a\0b" }, "its tenant contains a NUL character; correct its producer"],
    [{ tenant: "" }, "its tenant is empty; correct its producer"],
    [{ tenant: "\udcff" }, "its tenant is not text in UTF-8, or has half of a surrogate pair; correct its producer"],
    [{ tenant: 5 }, "its tenant is 5, which is not a text; correct its producer"],
    [{ tenant: "x".repeat(1025) }, "its tenant has more than 1024 bytes; correct its producer"],
    [{ eventId: "" }, "its event id is empty; correct its producer"],
    [{ eventId: "\0" }, "its event id contains a NUL character; correct its producer"],
    [{ key: "a\0" }, "its key contains a NUL character; correct its producer"],
    [{ key: "\ud800" }, "its key is not text in UTF-8, or has half of a surrogate pair; correct its producer"],
    [
      { schemaVersion: 1.5 },
      "its schema version is 1.5; it must be a whole number from 1 to 2147483647; correct its producer"
    ],
    [
      { schemaVersion: 0 },
      "its schema version is 0; it must be a whole number from 1 to 2147483647; correct its producer"
    ]
  ])("%j is refused", (changed, reason) => {
    expect(problemOf(changed)).toBe(reason)
  })
  test("what is allowed to be missing may be, and other headers may hold any bytes", () => {
    const none = { key: null, eventId: undefined, tenant: undefined, schemaVersion: undefined }
    expect(problemOf({ ...none, headers: { b3: "\udcff\0" } })).toBeUndefined()
    expect(problemOf({ key: "" })).toBeUndefined()
    expect(problemOf({ eventId: "x".repeat(1 << 20) })).toBeUndefined()
  })
})

describe("a dead letter", () => {
  test("keeps a key, headers and an id that are not text, and is retried with the same ones", () => {
    const odd = {
      ...record,
      key: "k\udcff",
      eventId: "\0",
      tenant: "\ud800",
      headers: { schema_version: "abc", b3: "\udc80" }
    }
    const envelope = storedEnvelope(odd)
    expect(isStorable(envelope)).toBe(true)
    const { position: _, appendedAt: __, ...same } = odd
    expect(recordFromEnvelope(envelope, 0, odd.value)).toEqual(same)
  })
  test.each(['{"a":', "\udcff", '{"a":"\udcff"}', "", "NaN"])(
    "with the value %j has a retry record that every log takes",
    (value) => {
      const { value: written } = retryRecord({ ...record, value }, "p", 7)
      expect(singleLineJson(written!)).toBe(written)
    }
  )
})

describe("headers of Kafka", () => {
  const refusal = (...list: ReadonlyArray<readonly [string, string]>) => {
    const heading = headingOf(list)
    return problemOf({ ...heading, eventTime: heading.eventTime ?? 0 })
  }
  test.each(["abc", "1.5", "-1", "0", "1e99", "", "2147483648", "01", " 1", "0x1", "1\0"])(
    "a schema_version of %j is refused",
    (value) => {
      expect(refusal(["schema_version", value])).toContain("its header schema_version is")
    }
  )
  test.each(["abc", "", "NaN", "Infinity", "1e400", "0x10", " 5", "1_000"])(
    "an event_time of %j is refused",
    (value) => {
      expect(refusal(["event_time", value])).toContain("its header event_time is")
    }
  )
  test.each(["0", "-5", "1.5", "1e+21", "1700000000000"])("an event_time of %j is read", (value) => {
    expect(headingOf([["event_time", value]]).eventTime).toBe(Number(value))
  })
  test("of several headers with a name the last counts, also if an earlier one is unreadable", () => {
    expect(
      headingOf([
        ["tenant", "a"],
        ["tenant", "b"]
      ])
    ).toMatchObject({ tenant: "b", headers: {} })
    expect(
      headingOf([
        ["schema_version", "x"],
        ["schema_version", "2"]
      ])
    ).toMatchObject({ schemaVersion: 2, headers: {} })
    expect(refusal(["schema_version", "2"], ["schema_version", "x"])).toContain('its header schema_version is "x"')
    expect(
      headingOf([
        ["event_time", "x"],
        ["event_time", "7"]
      ])
    ).toMatchObject({ eventTime: 7, headers: {} })
  })
  test("a schema_version that could not be read is written again as it was", () => {
    const { eventTime: _, ...heading } = headingOf([["schema_version", "abc"]])
    const written = headersOf({ partition: 0, key: "k", value: "{}", eventTime: 1, ...heading })
    expect(written).toContainEqual(["schema_version", "abc"])
  })
  test("a header called __proto__ is one like others", () => {
    expect(Object.entries(headingOf([["__proto__", "x"]]).headers)).toEqual([["__proto__", "x"]])
  })
})
