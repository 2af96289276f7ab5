// The text of a member of a JSON object.
import { expect, test } from "vitest"
import { memberText } from "../../../src/text/json-member.ts"

test.each([
  ['{"value":1}', "1"],
  ['{"a":{"value":2},"value":12345678901234567890.10,"waiting":0}', "12345678901234567890.10"],
  ['{"headers":{"x":"1","value":"no"},"value":{"value":[1,{"value":"}"}]} ,"b":0}', '{"value":[1,{"value":"}"}]}'],
  ['{"a":",\\"value\\":5","value":"\\\\"}', '"\\\\"'],
  ['{"a":[{"b":"]"}],"value":[]}', "[]"],
  [' { "a" : 1 , "value" : true } ', "true"],
  ['{"val\\u0075e":null}', "null"],
  ['{"a":""  ,"value":""}', '""'],
  ["{}", undefined],
  ['{"values":1,"a":{"value":1}}', undefined]
])("of %s", (json, expected) => {
  expect(memberText(json, "value")).toBe(expected)
})
