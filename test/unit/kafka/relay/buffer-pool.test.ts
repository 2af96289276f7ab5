// The relay's buffers that are used again.
import { assert, describe, it } from "vitest"
import { BufferPool } from "../../../../src/kafka/relay/buffer-pool.ts"

describe("a pool of buffers", () => {
  it("gives a buffer again that was given back, to one taker", () => {
    const pool = new BufferPool(1 << 20)
    const first = pool.take(100_000)
    assert.isAtLeast(first.length, 100_000)
    pool.give(first)
    assert.strictEqual(pool.take(70_000), first)
    assert.notStrictEqual(pool.take(70_000).buffer, first.buffer)
  })

  it("gives none that is too small, and each a memory of its own", () => {
    const pool = new BufferPool(1 << 20)
    pool.give(pool.take(1 << 15))
    const larger = pool.take((1 << 15) + 1)
    assert.isAtLeast(larger.length, (1 << 15) + 1)
    assert.strictEqual(larger.byteOffset, 0)
    assert.strictEqual(larger.buffer.byteLength, larger.length)
    assert.isAtLeast(pool.take(1).length, 1)
  })

  it("keeps no more than it may", () => {
    const pool = new BufferPool(3 << 16)
    const taken = Array.from({ length: 4 }, () => pool.take(1 << 16))
    for (const buffer of taken) pool.give(buffer)
    const again = new Set(Array.from({ length: 4 }, () => pool.take(1 << 16)))
    assert.deepStrictEqual(
      taken.map((buffer) => again.has(buffer)),
      [true, true, true, false]
    )
  })
})
