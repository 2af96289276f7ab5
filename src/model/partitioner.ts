// Kafka's default partitioner: murmur2 of the key's UTF-8 bytes, so that JVM clients and Millrace put a key into the same partition.

const utf8 = new TextEncoder()
const scratch = new Uint8Array(512)

/** The 32-bit murmur2 hash of bytes, with Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`). A signed integer. */
export const murmur2 = (data: Uint8Array, length: number = data.length): number => {
  const m = 0x5bd1e995
  let h = 0x9747b28c ^ length
  let i = 0
  for (; i + 4 <= length; i += 4) {
    let k = data[i]! | (data[i + 1]! << 8) | (data[i + 2]! << 16) | (data[i + 3]! << 24)
    k = Math.imul(k, m)
    k ^= k >>> 24
    h = Math.imul(h, m) ^ Math.imul(k, m)
  }
  const rest = length - i
  if (rest === 3) h ^= data[i + 2]! << 16
  if (rest >= 2) h ^= data[i + 1]! << 8
  if (rest >= 1) h = Math.imul(h ^ data[i]!, m)
  h = Math.imul(h ^ (h >>> 13), m)
  return h ^ (h >>> 15)
}

/** The partition, from 0, that Kafka's default partitioner gives a key. `partitions` is at least 1. */
export const partitionOf = (key: string, partitions: number): number => {
  if (partitions === 1) return 0
  // a UTF-16 unit has at most three bytes in UTF-8, so a short key needs no allocation
  if (key.length * 3 <= scratch.length) {
    return (murmur2(scratch, utf8.encodeInto(key, scratch).written) & 0x7fffffff) % partitions
  }
  return (murmur2(utf8.encode(key)) & 0x7fffffff) % partitions
}
