// The errors of refused appends.
import { assert, describe, it } from "vitest"
import type { Append } from "../../../src/aggregate/event-store.ts"
import { refusedAll, refusedError } from "../../../src/postgres/events/refusals.ts"

const appendOf = (expected: Append["expected"]): Append => ({ aggregate: "a", stream: "s", expected, events: [] })
const refused = { i: 1, actual: 60, closed: null }
const refusalOf = (...of: ReadonlyArray<typeof refused>) => ({ again: false, refused: of, tags: [] })

describe("a refused append", () => {
  it("that expects any version, or an existing stream, is no conflict: others were faster whenever it was tried", () => {
    for (const expected of ["any", "exists"] as const)
      assert.include(refusedError(appendOf(expected), refused), { _tag: "EventStoreError", retryable: true })
    const all = refusedAll([appendOf("any")], refusalOf(refused), () => "a")
    assert.include(all, { _tag: "EventStoreError", retryable: true })
  })
  it("that expects a version is a conflict, also beside one that expects any", () => {
    assert.include(refusedError(appendOf(59), refused), { _tag: "VersionConflict", expected: 59, actual: 60 })
    const both = refusalOf(refused, { ...refused, i: 2 })
    assert.include(
      refusedAll([appendOf("any"), appendOf(59)], both, () => "a"),
      { _tag: "VersionConflict", expected: 59 }
    )
  })
})
