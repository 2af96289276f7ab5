import { expect, test } from "vitest"
import { crc32c } from "../../../../src/kafka/protocol/crc32c.ts"

/** Bit by bit, as the checksum is defined. */
const slow = (bytes: Uint8Array): number => {
  let crc = 0xffffffff
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  }
  return ~crc >>> 0
}

test("the checksum of the standard check text is the defined one", () => {
  expect(crc32c(Buffer.from("123456789"), 0, 9)).toBe(0xe3069283)
})

test("the checksum is the defined one wherever a part of a buffer starts and however long it is", () => {
  const all = Uint8Array.from({ length: 120 }, (_, i) => (i * 151) ^ (i >> 2))
  for (let offset = 0; offset < 5; offset++) {
    const bytes = all.subarray(offset)
    for (let from = 0; from < 9; from++)
      for (let to = from; to < 60; to++) expect(crc32c(bytes, from, to)).toBe(slow(bytes.subarray(from, to)))
  }
})
