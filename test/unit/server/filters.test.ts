// The values of a filter `in`.
import { expect, test } from "vitest"
import { valuesOfIn } from "../../../src/server/http/filters.ts"

test("more values than a filter may have are refused by their number, and none as no list", () => {
  const many = (count: number) => Array.from({ length: count }, (_, i) => i).join(",")
  expect(valuesOfIn("id.in", many(500))).toHaveLength(500)
  expect(() => valuesOfIn("id.in", many(501))).toThrow("the parameter id.in has 501 values; it may have 500")
  expect(() => valuesOfIn("id.in", "[1]")).toThrow("the parameter id.in has no list of values")
})
