// How flags such as `--since` name a moment.
import { assert, test } from "vitest"
import { timeOf } from "../../../src/text/moment.ts"

test("a duration counts back from now, a date stands for itself, and other texts name no moment", () => {
  const now = 10_000_000
  assert.strictEqual(timeOf("2 hours", now), 2_800_000)
  assert.strictEqual(timeOf("1970-01-01T00:00:05Z", now), 5_000)
  for (const text of ["", "soon", "yesterday", "-5 minutes", "Infinity", "-Infinity", "1 lightyear"])
    assert.isUndefined(timeOf(text, now), text)
})
