// Events that fail one after another: which errors are of one reason, and when a partition halts.
import { describe, expect, test } from "vitest"
import { UnstorableValue } from "../../../src/dead-letter/event-failure.ts"
import { BatchOutcomes, failureShape, isSameReason } from "../../../src/runner/failure-streak.ts"
import { type FailureStreak, Unstorable } from "../../../src/runner/store.ts"

const same = (a: unknown, b: unknown) => isSameReason(failureShape(a), failureShape(b))

test("errors are of one reason if they are of one kind and their messages differ in values only", () => {
  expect(same(new Error("cannot handle e17"), new Error("cannot handle e2"))).toBe(true)
  expect(same(new Error('no column holds the key "oslo"'), new Error('no column holds the key "a \\" b"'))).toBe(true)
  expect(same(new Error("user anna not found"), new Error("user bert not found"))).toBe(true)
  expect(same(new Error("order 6f0e8a8c-1111-4222-8333-abcdefabcdef is gone"), new Error("order 0a is gone"))).toBe(
    true
  )
  expect(same(new Error("user anna not found"), new Error("no rate for EUR today"))).toBe(false)
  expect(same(new Error("first kind"), new Error("second kind"))).toBe(false)
  expect(same(new RangeError("x"), new TypeError("x"))).toBe(false)
  expect(same(new UnstorableValue({ where: "a.b", reason: "NUL" }), new Error("a.b: NUL"))).toBe(false)
  const refused = (code: string) => new Unstorable({ code, reason: "refused" })
  expect(same(refused("23505"), refused("23514"))).toBe(false)
})
test("any value that was thrown has a shape, and a long message a short one", () => {
  for (const thrown of [undefined, null, Object.create(null), "x", Symbol("x"), { code: 5 }, 12n])
    expect(failureShape(thrown)).toMatch(/: /)
  expect(failureShape(new Error("x ".repeat(1_000_000))).length).toBeLessThan(400)
  expect(failureShape(new Error('"'.repeat(100_001))).length).toBeLessThan(400)
})

/** Plays outcomes (`.` a success, letters the reasons of failures) in batches, and returns at which position it halts. */
const play = (batches: ReadonlyArray<string>, haltAfter: number, hasSucceeded = true) => {
  let failing: FailureStreak | undefined
  let any = hasSucceeded
  let position = 0
  for (const batch of batches) {
    const outcomes = new BatchOutcomes()
    for (const outcome of batch) {
      if (outcome === ".") outcomes.succeed(position++)
      else outcomes.fail(position++, new Error(`reason ${outcome} `.repeat(3).replaceAll("reason", `for-${outcome}`)))
    }
    const result = outcomes.result(failing, any, haltAfter)
    if (result.haltAt !== undefined) return result.haltAt
    failing = result.failing
    any ||= batch.includes(".")
  }
  return failing === undefined ? "no failure last" : `${failing.count} of ${failing.total} from ${failing.first}`
}
describe("a partition halts at the event that fails after so many", () => {
  test("wherever batches end", () => {
    expect(play(["aaaa"], 3)).toBe(3)
    expect(play(["aa", "aa"], 3)).toBe(3)
    expect(play(["a", "a", "a", "a"], 3)).toBe(3)
    expect(play(["..aaa", "a"], 3)).toBe(5)
    expect(play(["aaa"], 3)).toBe("3 of 3 from 0")
    expect(play(["", "aaa", "", ""], 3)).toBe("3 of 3 from 0")
  })
  test("and a success starts the count over", () => {
    expect(play(["aaa.aaa"], 3)).toBe("3 of 3 from 4")
    expect(play(["aaa", ".", "aaa", "a"], 3)).toBe(7)
    expect(play(["aaa."], 3)).toBe("no failure last")
  })
  test("another reason starts it over, too, unless no event ever succeeded", () => {
    expect(play(["aaabbb"], 3)).toBe("3 of 6 from 3")
    expect(play(["aabaabaab"], 3)).toBe("1 of 9 from 8")
    expect(play(["aabaabaab"], 3, false)).toBe(3)
    expect(play(["ab", "ab"], 3, false)).toBe(3)
    expect(play([".ab", "ab"], 3, false)).toBe("1 of 4 from 4")
    expect(play(["aaaaaaaaa"], Infinity, false)).toBe("9 of 9 from 0")
  })
  test("in the order of positions, not of calls", () => {
    const outcomes = new BatchOutcomes()
    for (const position of [5, 3, 1]) outcomes.fail(position, new Error("a"))
    outcomes.succeed(2)
    expect(outcomes.result(undefined, true, 1).haltAt).toBe(5)
    expect(outcomes.result(undefined, true, 2).failing).toMatchObject({ count: 2, first: 3 })
  })
})
