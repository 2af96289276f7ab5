// The checksum of Kafka's record batches: CRC-32C, eight bytes in a step. Pure.

const tables = Array.from({ length: 8 }, () => new Int32Array(256))
const [t0, t1, t2, t3, t4, t5, t6, t7] = tables as [
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array
]
for (let n = 0; n < 256; n++) {
  let crc = n
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  t0[n] = crc
}
for (let k = 1; k < tables.length; k++) {
  const [before, table] = [tables[k - 1]!, tables[k]!]
  for (let n = 0; n < 256; n++) table[n] = (before[n]! >>> 8) ^ t0[before[n]! & 255]!
}
// on a big-endian machine words have the other byte order: there it goes byte by byte
const littleEndian = new Uint8Array(new Int32Array([1]).buffer)[0] === 1

/** The unsigned CRC-32C of the bytes from `from` to `to`, exclusive. */
export const crc32c = (bytes: Uint8Array, from: number, to: number): number => {
  let crc = -1
  let i = from
  if (littleEndian && to - from >= 16) {
    // words start at every fourth byte of the underlying memory
    for (; ((bytes.byteOffset + i) & 3) !== 0; i++) crc = t0[(crc ^ bytes[i]!) & 255]! ^ (crc >>> 8)
    const words = new Int32Array(bytes.buffer, bytes.byteOffset + i, ((to - i) >> 3) * 2)
    for (let w = 0; w < words.length; w += 2) {
      const a = crc ^ words[w]!
      const b = words[w + 1]!
      crc =
        t7[a & 255]! ^
        t6[(a >>> 8) & 255]! ^
        t5[(a >>> 16) & 255]! ^
        t4[a >>> 24]! ^
        t3[b & 255]! ^
        t2[(b >>> 8) & 255]! ^
        t1[(b >>> 16) & 255]! ^
        t0[b >>> 24]!
    }
    i += words.length * 4
  }
  for (; i < to; i++) crc = t0[(crc ^ bytes[i]!) & 255]! ^ (crc >>> 8)
  return ~crc >>> 0
}
