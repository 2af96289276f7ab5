// The partitioner against Kafka's Java client: `test/data/murmur2.json` has the results of kafka-clients 4.1.0.
import { readFileSync } from "node:fs"
import { describe, expect, test } from "vitest"
import { murmur2, partitionOf } from "../../../src/model/partitioner.ts"

interface Vector {
  readonly key: string
  readonly hash: number
  readonly of12: number
  readonly of7: number
}
const vectors = JSON.parse(
  readFileSync(new URL("../../data/murmur2.json", import.meta.url), "utf8")
) as ReadonlyArray<Vector>
const bytes = (text: string) => new TextEncoder().encode(text)

describe("murmur2", () => {
  // those of Kafka's UtilsTest
  test.each([
    ["21", -973_932_308],
    ["foobar", -790_332_482],
    ["a-little-bit-long-string", -985_981_536],
    ["a-little-bit-longer-string", -1_486_304_829],
    ["lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971],
    ["abc", 479_470_107]
  ])("hashes %j as Kafka's own tests say", (key, hash) => expect(murmur2(bytes(key))).toBe(hash))

  test("hashes 230 keys as the Java client does", () => {
    expect(vectors).toHaveLength(230)
    expect(vectors.map(({ key }) => ({ key, hash: murmur2(bytes(key)) }))).toEqual(
      vectors.map(({ hash, key }) => ({ key, hash }))
    )
  })

  test("hashes the first `length` bytes only", () => {
    const padded = bytes("foobar and more")
    expect(murmur2(padded, 6)).toBe(-790_332_482)
  })
})

describe("partitionOf", () => {
  test("puts 230 keys into the same partitions as the Java client, of 12 and of 7", () => {
    const placed = vectors.map(({ key }) => [key, partitionOf(key, 12), partitionOf(key, 7)])
    expect(placed).toEqual(vectors.map(({ key, of12, of7 }) => [key, of12, of7]))
    expect(new Set(vectors.map(({ of12 }) => of12)).size).toBe(12)
  })

  test("short and long keys, which use different buffers, do not affect each other", () => {
    const long = vectors.filter(({ key }) => key.length > 170)
    const short = vectors.filter(({ key }) => key.length <= 170)
    expect(long.length).toBeGreaterThan(10)
    for (const [i, { key, of12 }] of short.entries()) {
      const other = long[i % long.length]!
      expect(partitionOf(other.key, 12)).toBe(other.of12)
      expect(partitionOf(key, 12)).toBe(of12)
    }
  })

  test("with one partition every key is in partition 0", () => {
    for (const { key } of vectors) expect(partitionOf(key, 1)).toBe(0)
  })

  test("half a surrogate pair is hashed as the replacement character, as the encoder writes it", () => {
    expect(partitionOf("\ud800", 12)).toBe(partitionOf("\ufffd", 12))
  })
})
