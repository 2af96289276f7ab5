// Arbitrary values for requests: JSON texts that fit a schema or almost, texts that break parsers, and damaged bytes.
import * as fc from "fast-check"
import { type Json, resolved } from "./operations.ts"

/** Stands for an id that each occurrence gets for itself. */
export const newId = "@ID@"

/** JSON texts that fit no schema, or no parser. */
const strangeJson: ReadonlyArray<string> = [
  '""',
  '"a\\u0000b"',
  '"\\ud800"',
  '"\\udc80x"',
  '"\\u001b[31m\\r\\n"',
  '"__proto__"',
  `"${"x".repeat(1_100)}"`,
  `"${"ż".repeat(600)}"`,
  '{"toString":1}',
  '{"valueOf":{"toString":[]}}',
  '{"toJSON":1,"then":1}',
  '{"length":-1,"0":"a"}',
  '{"__proto__":{"a":1}}',
  '{"constructor":{"prototype":{}}}',
  "[]",
  "[[]]",
  "{}",
  "null",
  "true",
  "0",
  "-0",
  "1.5",
  "-1",
  "1e99",
  "1e400",
  "-1e400",
  "2147483648",
  "9007199254740993",
  "-9223372036854775809",
  "123456789012345678901234567890",
  "1e-400",
  "NaN",
  "Infinity",
  "undefined",
  "",
  "0x10",
  "01",
  '"2"',
  '{"a":1,"a":2}',
  `${"[".repeat(70)}${"]".repeat(70)}`,
  `${'{"a":'.repeat(63)}1${"}".repeat(63)}`,
  `${"[".repeat(20_000)}`
]
/** Texts for parameters, headers and paths. */
const strangeTexts: ReadonlyArray<string> = [
  "",
  " ",
  "\u0000",
  "%00",
  "%",
  "%zz",
  "%c3%28",
  "%ed%a0%80",
  "..",
  "../../etc/passwd",
  "%2e%2e%2f",
  "a/b",
  "a%2Fb",
  "'; drop table seen_orders; --",
  '"',
  "\\",
  "${x}",
  "__proto__",
  "constructor",
  "toString",
  "-1",
  "0",
  "1e9",
  "999999999999999",
  "9223372036854775808",
  "NaN",
  "null",
  "true",
  "1,2,3",
  "[1]",
  '["a"]',
  "2026-01-31T12:00:00Z",
  "999999-01-01T00:00:00Z",
  "p1.W10",
  "p1.W1sib3JkZXJzIiwwLDk5OTldXQ",
  "0.0.0.0",
  "9.9.9.9",
  "-1.0",
  "latest",
  "earliest",
  "\u202e\u0007",
  "ż".repeat(300),
  "x".repeat(2_000),
  "*",
  'W/"1"',
  "(a+)+$"
]

/** Values that are of use by the name of their field or parameter, as JSON texts. */
const usual: Readonly<Record<string, ReadonlyArray<string>>> = {
  id: [`"${newId}"`],
  customer: Array.from({ length: 20 }, (_, i) => `"c-${i}"`),
  account: [],
  article: ['"a-1"', '"a-2"'],
  tenant: ['"acme"', '"globex"'],
  at: Array.from({ length: 20 }, (_, i) => String(1_767_225_600_000 + i * 600_000)),
  cents: ["0", "1", "250", "99999"],
  note: ['"n"', '"żółw"'],
  table: ['"seen_orders"', '"revenue"', '"seen_accounts"'],
  key: ['"c-1"', '{"customer":"c-1","id":"f-1-0"}'],
  projection: ['"counting"', '"ledger"'],
  topic: ['"orders"', '"prices.v1"', '"receipts.v1"', '"account"'],
  order: ['"customer"', '"id.desc"', '"cents,id"'],
  limit: ["1", "10", "1000"],
  from: ['"latest"', '"earliest"', "0", "1", '"0.0.0.0"'],
  partition: ["0", "1", "3"],
  version: ["1", "2"],
  dryRun: ["true", "false"],
  type: ['"placed"', '"cancelled"'],
  results: ['"errors"', '"all"']
}
/** Fields that a body names itself by; ids of aggregates are in the path. */
const leftOut: ReadonlySet<string> = new Set(["account"])

export const strange: fc.Arbitrary<string> = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...strangeJson) },
  { weight: 2, arbitrary: fc.json({ maxDepth: 3 }) },
  { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 40 }).map((text) => JSON.stringify(text)) }
)
/** A text of any characters. */
export const strangeText: fc.Arbitrary<string> = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...strangeTexts) },
  { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 60 }) }
)

const typed = (schema: Json): fc.Arbitrary<string> => {
  if ("const" in schema) return fc.constant(JSON.stringify(schema["const"]))
  if (Array.isArray(schema["enum"])) return fc.constantFrom(...schema["enum"].map((one) => JSON.stringify(one)))
  switch (schema["type"]) {
    case "boolean":
      return fc.constantFrom("true", "false")
    case "integer":
      return fc.integer({ min: -1_000, max: 1_000_000 }).map(String)
    case "number":
      return fc.oneof(fc.integer().map(String), fc.double({ noNaN: true, noDefaultInfinity: true }).map(String))
    case "null":
      return fc.constant("null")
    default:
      return fc.string({ maxLength: 20 }).map((text) => JSON.stringify(text))
  }
}

/** JSON texts that fit a schema of the document, or almost. */
export const jsonOf = (document: Json, given: unknown, depth = 0): fc.Arbitrary<string> => {
  const schema = resolved(document, given)
  const choices = (schema["oneOf"] ?? schema["anyOf"]) as ReadonlyArray<unknown> | undefined
  if (depth > 6) return strange
  if (choices !== undefined) return fc.oneof(...choices.map((one) => jsonOf(document, one, depth + 1)))
  if (schema["type"] === "array")
    return fc
      .array(jsonOf(document, schema["items"], depth + 1), { maxLength: 4 })
      .map((items) => `[${items.join(",")}]`)
  if (schema["type"] !== "object" && schema["properties"] === undefined) return typed(schema)
  const required = new Set((schema["required"] ?? []) as ReadonlyArray<string>)
  const fields = Object.entries((schema["properties"] ?? {}) as Json)
    .filter(([name]) => !leftOut.has(name))
    .map(([name, field]) => {
      const known = usual[name]
      const fitting = jsonOf(document, field, depth + 1)
      // a discriminating field keeps its value
      const value =
        "const" in resolved(document, field) || Array.isArray(resolved(document, field)["enum"])
          ? fitting
          : known === undefined || known.length === 0
            ? fitting
            : fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...known) }, { weight: 1, arbitrary: fitting })
      const text = fc
        .oneof({ weight: 40, arbitrary: value }, { weight: 1, arbitrary: strange })
        .map((json) => `${JSON.stringify(name)}:${json}`)
      return fc.oneof(
        { weight: required.has(name) ? 60 : 1, arbitrary: text },
        { weight: required.has(name) ? 1 : 2, arbitrary: fc.constant("") }
      )
    })
  const more = fc.oneof(
    { weight: 30, arbitrary: fc.constant("") },
    { weight: 1, arbitrary: strange.map((json) => `"more":${json}`) }
  )
  return fc.tuple(fc.tuple(...fields), more, fc.nat({ max: 39 })).map(([texts, extra, twice]) => {
    const given = [...texts, extra].filter((text) => text !== "")
    const [first] = given
    return `{${[...given, ...(twice === 0 && first !== undefined ? [first] : [])].join(",")}}`
  })
}

/** The text of a parameter that fits its schema, or almost. */
export const parameterOf = (document: Json, name: string, schema: Json): fc.Arbitrary<string> => {
  const known = usual[name.split(".")[0]!.toLowerCase()] ?? []
  const asText = (json: string): string => {
    try {
      const value: unknown = JSON.parse(json.replaceAll(newId, "f-1-0"))
      return typeof value === "string" ? value : json
    } catch {
      return json
    }
  }
  return fc.oneof(
    { weight: 3, arbitrary: (known.length > 0 ? fc.constantFrom(...known) : jsonOf(document, schema)).map(asText) },
    { weight: 2, arbitrary: strangeText }
  )
}

/** What is done to the bytes of a body as a whole. */
export const damaged = (bytes: Buffer, kind: number, at: number): Buffer => {
  const place = bytes.length === 0 ? 0 : at % bytes.length
  switch (kind) {
    case 0:
      return bytes.subarray(0, place)
    case 1:
      return Buffer.concat([bytes, bytes])
    case 2:
      return Buffer.concat([bytes, Buffer.from(" x")])
    case 3:
      return Buffer.from(`\ufeff${bytes.toString()}`)
    case 4:
      return Buffer.from(JSON.stringify(bytes.toString()))
    case 5:
      return Buffer.concat([Buffer.from("["), bytes])
    case 6:
      return Buffer.concat([
        bytes.subarray(0, place),
        Buffer.from([[0xc3], [0xff], [0xed, 0xa0, 0x80], [0], [0x7f]][at % 5]!),
        bytes.subarray(place + 1)
      ])
    case 7:
      return Buffer.alloc(at % 3_000, "[")
    case 8:
      return Buffer.from(bytes.toString("utf16le"), "utf8")
    default:
      return Buffer.alloc(0)
  }
}
export const damages = 10
