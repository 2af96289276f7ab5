import { describe, expect, it } from "vitest"
import { leastBytes, ReadBudget } from "../../../../src/kafka/log/read-budget.ts"

const kib = 1 << 10
const readersOf = (budget: ReadBudget, count: number) => Array.from({ length: count }, () => budget.join())

describe("the budget of all readers", () => {
  it("gives readers that are far behind more, until half of it is lent", async () => {
    const budget = new ReadBudget(800 * kib)
    const readers = readersOf(budget, 4)
    const granted: Array<number> = []
    for (const reader of readers) {
      const bytes = reader.room(300 * kib)
      granted.push(bytes / kib)
      await reader.take(bytes)
    }
    // each has two parts of 50 KiB; beyond them, the first two take 200 and 150 of the 400 KiB that are lent
    expect(granted).toEqual([300, 250, 100, 100])
    expect(budget.peak).toBeLessThanOrEqual(budget.total)
  })
  it("keeps the part of a reader free, whatever those hold that were there before and do not go on", async () => {
    const budget = new ReadBudget(800 * kib)
    const [late, ...greedy] = readersOf(budget, 4)
    for (let round = 0; round < 5; round++) {
      for (const reader of greedy) await reader.take(reader.room(1_000 * kib))
    }
    // those hold all that they can get, so they do not fetch ahead
    for (const reader of greedy) expect(reader.room(1_000 * kib)).toBe(0)
    expect(late!.room(1_000 * kib)).toBe(50 * kib)
    await late!.take(50 * kib)
    expect(late!.room(20 * kib)).toBe(20 * kib)
    await late!.take(20 * kib)
    expect(budget.peak).toBeLessThanOrEqual(budget.total)
  })
  it("lends again what a reader gives back", async () => {
    const budget = new ReadBudget(800 * kib)
    const [one, other] = readersOf(budget, 2)
    await one!.take(one!.room(500 * kib))
    expect(other!.room(500 * kib)).toBe(200 * kib)
    one!.correct(-500 * kib)
    expect(other!.room(500 * kib)).toBe(500 * kib)
    await one!.take(one!.room(500 * kib))
    one!.leave()
    expect(other!.room(600 * kib)).toBe(600 * kib)
  })
  it("gives each of many readers a little", async () => {
    const [greedy, reader] = readersOf(new ReadBudget(1_000 * kib), 1_000)
    for (let bytes = 1; bytes > 0; bytes = greedy!.room(1_000 * kib)) await greedy!.take(bytes)
    expect(reader!.room(1_000 * kib)).toBeGreaterThanOrEqual(leastBytes)
    expect(reader!.room(1_000 * kib)).toBeLessThan(2 * leastBytes)
  })
})
