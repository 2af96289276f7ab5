// Texts about how far work is.
import { expect, test } from "vitest"
import { estimate, rateText, secondsLeft } from "../../../src/text/rate.ts"

test("the time left is that of the rest at the rate so far, and unknown at the beginning", () => {
  expect(secondsLeft(0.25, 10)).toBe(30)
  expect(secondsLeft(1, 10)).toBe(0)
  expect(secondsLeft(0, 10)).toBeUndefined()
})

test("what is done, how fast and how long it still takes, as one text", () => {
  expect(rateText(12_000, "event", 4, 0.25)).toBe("12,000 events, 3,000 a second, about 12 s left")
  expect(rateText(1, "event", 4, undefined)).toBe("1 event, 0 a second")
  expect(rateText(0, "event", 0, 0)).toBe("0 events")
})

test("an estimate is in seconds, minutes or hours", () => {
  expect([0.2, 89, 90, 5_399, 5_400].map(estimate)).toEqual(["1 s", "89 s", "2 min", "90 min", "1.5 h"])
})
