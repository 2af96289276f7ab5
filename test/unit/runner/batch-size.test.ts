import { describe, expect, it } from "vitest"
import { BatchSize } from "../../../src/runner/batch-size.ts"
import type { LogRecord } from "../../../src/log/log.ts"

const mib = 1 << 20
/** A batch of so many records, with so many after it. */
const batch = (records: number, behind: number) => ({
  records: Array.from({ length: records }, () => ({}) as LogRecord),
  next: records,
  end: records + behind
})

describe("the size of batches", () => {
  it("doubles from 1 to 4 MiB while more than two batches wait, and starts over once they do not", () => {
    const size = new BatchSize()
    expect(size.maxBytes).toBe(mib)
    const sizes = [1_000, 201, 201, 201, 200, 201].map((behind) => {
      size.note(batch(100, behind))
      return size.maxBytes / mib
    })
    expect(sizes).toEqual([2, 4, 4, 4, 1, 2])
  })
  it("stays small for a partition that keeps up, and for one whose last records are gone", () => {
    const size = new BatchSize()
    for (const [records, behind] of [
      [1, 0],
      [1, 2],
      [0, 0]
    ] as const) {
      size.note(batch(records, behind))
      expect(size.maxBytes).toBe(mib)
    }
  })
})
