// The checksum of Kafka's record batches: CRC-32C, four bytes a step. Pure.

const tables = Array.from({ length: 4 }, () => new Int32Array(256))
const [t0, t1, t2, t3] = tables as [Int32Array, Int32Array, Int32Array, Int32Array]
for (let n = 0; n < 256; n++) {
  let crc = n
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  t0[n] = crc
}
for (let n = 0; n < 256; n++) {
  t1[n] = (t0[n]! >>> 8) ^ t0[t0[n]! & 255]!
  t2[n] = (t1[n]! >>> 8) ^ t0[t1[n]! & 255]!
  t3[n] = (t2[n]! >>> 8) ^ t0[t2[n]! & 255]!
}

/** CRC-32C of a part of a buffer, unsigned. */
export const crc32c = (bytes: Uint8Array, from: number, to: number): number => {
  let crc = -1
  let i = from
  for (const end = to - 3; i < end; i += 4) {
    crc ^= bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24)
    crc = t3[crc & 255]! ^ t2[(crc >>> 8) & 255]! ^ t1[(crc >>> 16) & 255]! ^ t0[crc >>> 24]!
  }
  for (; i < to; i++) crc = t0[(crc ^ bytes[i]!) & 255]! ^ (crc >>> 8)
  return ~crc >>> 0
}
