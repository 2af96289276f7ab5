// How flags such as `--since` name a moment.
import { assert, test } from "vitest"
import { dateOf, timeOf } from "../../../src/text/moment.ts"

test("a duration counts back from now, a date stands for itself, and other texts name no moment", () => {
  const now = 10_000_000
  assert.strictEqual(timeOf("2 hours", now), 2_800_000)
  assert.strictEqual(timeOf("1970-01-01T00:00:05Z", now), 5_000)
  for (const text of ["", "soon", "yesterday", "-5 minutes", "Infinity", "-Infinity", "1 lightyear"])
    assert.isUndefined(timeOf(text, now), text)
})

test("a day that does not exist names no moment", () => {
  for (const text of [
    "2026-02-30T12:00:00Z",
    "2026-11-31",
    "2026/2/29",
    "2100-02-29T00:00:00Z",
    "-000001-02-29T00:00Z"
  ])
    assert.isUndefined(dateOf(text), text)
  assert.isUndefined(timeOf("2026-02-30T12:00:00Z", 0))
  for (const text of [
    "2028-02-29T12:00:00Z",
    "2000-02-29",
    "2026-12-31T24:00:00Z",
    "0000-02-29",
    "+012026-01-31T00:00Z"
  ])
    assert.strictEqual(dateOf(text), Date.parse(text), text)
})
