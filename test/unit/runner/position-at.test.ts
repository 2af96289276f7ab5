// The search for the first record since a time, in partitions that have positions without records.
import * as Effect from "effect/Effect"
import { expect, test } from "vitest"
import type { LogRecord } from "../../../src/log/log.ts"
import { positionAt } from "../../../src/runner/in-append-order.ts"

/** A partition whose reads return what is at one position: a record with its append time, or null for one that Kafka keeps for itself. */
const logOf = (times: ReadonlyArray<number | null>) => ({
  read: (_topic: string, _partition: number, position: number) =>
    Effect.succeed({
      records: (times[position] ?? null) === null ? [] : [{ position, appendedAt: times[position] } as LogRecord],
      next: Math.min(position + 1, times.length),
      end: times.length
    })
})
const at = (times: ReadonlyArray<number | null>, time: number) =>
  Effect.runPromise(positionAt(logOf(times), { topic: "t", partition: 0, from: 0, to: times.length }, time))

test("ends of transactions, and longer gaps, do not end the search", async () => {
  const ended = [1, null, 2, null, 3, null]
  // a position without a record is as good as that of the next one
  for (const [time, found] of [
    [1, [0]],
    [2, [1, 2]],
    [3, [3, 4]],
    [4, [5, 6]]
  ] as const)
    expect(found, `${time}`).toContain(await at(ended, time))
  const gap = [1, ...Array.from({ length: 9 }, () => null), 2, 3]
  expect(await at(gap, 3)).toBe(11)
  expect([1, 10]).toContain(await at(gap, 2))
})

test("without records the search ends at the end, or at the start", async () => {
  expect(await at([], 1)).toBe(0)
  expect([0, 3]).toContain(await at([null, null, null], 1))
})
