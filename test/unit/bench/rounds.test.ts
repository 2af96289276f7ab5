// Runs in turn and their medians.
import { describe, expect, test } from "vitest"
import { inTurn, median, medians, pairwise } from "../../../bench/rounds.ts"

describe("medians", () => {
  test("the middle one; of an even number the lower one in the middle", () => {
    expect(median([9, 1, 5])).toBe(5)
    expect(median([4, 1, 3, 2])).toBe(2)
    expect(median([])).toBeNaN()
  })
  test("each figure has a median of its own, and what holds must hold in each run", () => {
    const runs = [
      { rate: 10, cpu: { app: 3, total: 5 }, verified: true, note: "a" },
      { rate: 30, cpu: { app: 1, total: 9 }, verified: false, note: "b" },
      { rate: 20, cpu: { app: 2, total: 7 }, verified: true, note: "c" }
    ]
    expect(medians(runs)).toEqual({ rate: 20, cpu: { app: 2, total: 7 }, verified: false })
  })
  test("one run is its figures", () => {
    const run = { rate: 10, verified: true, names: ["a"], note: "x" }
    expect(medians([run])).toEqual(run)
  })
  test("a figure that some runs lack is the median of the others", () => {
    expect(medians([{ a: 1 }, { a: 3, b: 7 }])).toEqual({ a: 1, b: 7 })
  })
})

test("the ratios are those of pairs that ran one after the other", () => {
  expect(pairwise([30, 10], [20, 20])).toEqual([1.5, 0.5])
})

test("members are measured in turn, every other round the other way round", async () => {
  const order: Array<string> = []
  let ran = 0
  const measure = async (member: string) => {
    order.push(member)
    return { at: ran++ }
  }
  const { figures, runs } = await inTurn(["peer", "millrace"], 3, measure)
  expect(order).toEqual(["peer", "millrace", "millrace", "peer", "peer", "millrace"])
  expect(runs).toEqual({ peer: [{ at: 0 }, { at: 3 }, { at: 4 }], millrace: [{ at: 1 }, { at: 2 }, { at: 5 }] })
  expect(figures).toEqual({ peer: { at: 3 }, millrace: { at: 2 } })
})
