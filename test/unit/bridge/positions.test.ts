// Positions on Pulsar, and sets of offsets.
import { assert, it } from "@effect/vitest"
import { OffsetSet } from "../../../src/bridge/offset-set.ts"
import { comparePositions, formatPosition, parsePosition } from "../../../src/bridge/pulsar-position.ts"

it("positions are ordered by ledger, entry and batch index, and survive being written as text", () => {
  const position = { ledger: 3, entry: 2, batch: -1, batchSize: 1 }
  assert.deepStrictEqual(parsePosition(formatPosition(position)), position)
  assert.isUndefined(parsePosition("x"))
  assert.isBelow(comparePositions(position, { ...position, batch: 1 }), 0)
  assert.isAbove(comparePositions({ ...position, ledger: 4, entry: 0 }, position), 0)
})
it("a set of offsets has those that were added and no others", () => {
  const offsets = new OffsetSet()
  const added = [0, 7, 8, 65_535, 65_536, 5_000_000_000]
  for (const offset of added) offsets.add(offset)
  for (const offset of added) assert.isTrue(offsets.has(offset), String(offset))
  for (const offset of [1, 6, 9, 65_534, 65_537, 5_000_000_001]) assert.isFalse(offsets.has(offset), String(offset))
})
