// What explanations print of values that JSON does not have.
import { expect, test } from "vitest"
import { jsonText } from "../../../src/system/explanation-json.ts"

test("a bigint in a call or a lookup value is printed as a text, and undefined as nothing", () => {
  expect(jsonText({ seen: 2n ** 60n, list: [1n] })).toBe('{"seen":"1152921504606846976","list":["1"]}')
  expect(jsonText(undefined)).toBe("nothing")
})
