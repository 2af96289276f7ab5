// Values of `millrace sql --format json`: what JSON cannot hold is a string with the same digits.
import { assert, test } from "vitest"
import { jsonOf } from "../../../src/text/json-values.ts"

const oids = {
  bool: 16,
  int8: 20,
  int4: 23,
  text: 25,
  json: 114,
  float8: 701,
  timestamptz: 1184,
  numeric: 1700,
  jsonb: 3802
}
const as = (type: keyof typeof oids, text: string | null, delimiter?: string) =>
  jsonOf({ oid: oids[type], delimiter }, text)

test.each([
  ["bool", "t", "true"],
  ["int8", "9007199254740991", "9007199254740991"],
  ["int8", "9007199254740993", '"9007199254740993"'],
  ["int8", "-9223372036854775808", '"-9223372036854775808"'],
  ["float8", "NaN", '"NaN"'],
  ["float8", "-Infinity", '"-Infinity"'],
  ["float8", "-0", "-0"],
  ["float8", "1e+300", "1e+300"],
  ["numeric", "0.10", '"0.10"'],
  ["numeric", "NaN", '"NaN"'],
  ["jsonb", '{"a": 12345678901234567890}', '{"a": 12345678901234567890}'],
  ["text", 'a"b\n', String.raw`"a\"b\n"`],
  ["timestamptz", "1970-01-01 00:00:00+00", "0"],
  ["timestamptz", "2013-01-01 00:00:00.123456+00", "1356998400123.456"],
  ["timestamptz", "1969-12-31 23:59:59.9995+00", "-0.5"],
  ["timestamptz", "294276-12-31 23:59:59.999999+00", '"9224318015999999.999"'],
  ["timestamptz", "275760-09-13 00:00:00.001+00", "8640000000000001"],
  ["timestamptz", "0001-01-01 00:00:00+00 BC", "-62167219200000"],
  ["timestamptz", "infinity", '"infinity"']
] as const)("%s %s is %s", (type, text, json) => {
  assert.strictEqual(as(type, text), json)
})

test("a NULL is null", () => assert.strictEqual(as("text", null), "null"))

test.each([
  ["float8", "{1.5,NaN,NULL}", '[1.5,"NaN",null]'],
  ["int8", "{{1,9007199254740993},{3,4}}", '[[1,"9007199254740993"],[3,4]]'],
  ["int4", "[0:1]={7,8}", "[7,8]"],
  ["int4", "{}", "[]"],
  ["text", String.raw`{"a\"b","NULL",NULL,"{x,y}","c\\d",e}`, String.raw`["a\"b","NULL",null,"{x,y}","c\\d","e"]`],
  ["jsonb", String.raw`{"{\"a\": 12345678901234567890}"}`, '[{"a": 12345678901234567890}]']
] as const)("an array of %s %s is %s", (type, text, json) => {
  assert.strictEqual(as(type, text, ","), json)
})
