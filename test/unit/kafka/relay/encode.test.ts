// Segments of the outbox as record batches: byte for byte what the log's own encoder makes of the same records.
import { assert, describe, it } from "vitest"
import { decodeRecords, encodeRecords } from "../../../../src/kafka/log/records.ts"
import { stamp } from "../../../../src/kafka/protocol/batch-encode.ts"
import type { Compression } from "../../../../src/kafka/protocol/options.ts"
import { BufferPool } from "../../../../src/kafka/relay/buffer-pool.ts"
import { SegmentEncoder, streamHeader } from "../../../../src/kafka/relay/segment-encode.ts"
import type { LogRecord, NewRecord } from "../../../../src/log/log.ts"
import { partitionOf } from "../../../../src/model/partitioner.ts"
import type { Segment } from "../../../../src/relay/outbox.ts"
import { metaText } from "../../../../src/runner/segments.ts"
import { identityHeaders, pack, unpack } from "../../../../src/postgres/log/batch-codec.ts"
import { randomOf, seed } from "../../../support/random.ts"

const texts = ["", "a", "żółw 🐢", 'quo"te\\', "line\nbreak\ttab", "\u0001", "\ud800", "x".repeat(200), "ü".repeat(300)]
const segmentOf = (
  meta: string,
  vals: string,
  messages: number,
  partition: number | undefined,
  firstSeq = 1
): Segment => ({
  firstSeq,
  messages,
  incarnation: "0192f7a0-0000-4000-8000-000000000001",
  topic: "t",
  partition,
  meta: Buffer.from(meta),
  vals: Buffer.from(vals)
})
const stream = "p/events/3"
const origin = { stream, header: streamHeader(stream) }

/** What the batches hold, by partition. */
const recordsOf = (batches: ReturnType<SegmentEncoder["seal"]>) => {
  const all = new Map<number, Array<LogRecord>>()
  for (const { bytes, partition, records } of batches) {
    stamp(bytes, 1n, 0, 0)
    const found = decodeRecords(bytes, partition, 0, []).records
    assert.strictEqual(found.length, records)
    all.set(partition, [...(all.get(partition) ?? []), ...found])
  }
  return all
}
const bare = ({ appendedAt: _, partition: __, position: ___, ...record }: LogRecord) => record
/** As the log's own encoder has them. */
const written = (records: ReadonlyArray<NewRecord>, partition: number) => {
  const batch = encodeRecords(records, "none", 0)
  stamp(batch, 1n, 0, 0)
  return decodeRecords(batch, partition, 0, []).records.map(bare)
}
/** The same by the log's codec, with the relay's headers. */
const expected = (segment: Segment, partitions: number) => {
  const records: Array<LogRecord> = []
  const meta = Buffer.from(segment.meta).toString()
  const vals = Buffer.from(segment.vals).toString()
  unpack({ partition: 0, base: 0, next: segment.messages, bytes: 0, appendedAt: 0, meta, vals }, 0, records)
  const all = new Map<number, Array<NewRecord>>()
  for (const [i, record] of records.entries()) {
    const partition = segment.partition ?? partitionOf(record.key ?? "", partitions)
    const headers = { ...record.headers, ...identityHeaders(stream, segment.firstSeq + i, segment.incarnation) }
    all.set(partition, [...(all.get(partition) ?? []), { ...record, headers }])
  }
  return all
}
const check = (
  segments: ReadonlyArray<Segment>,
  partitions: number,
  limit = 1_000_000,
  compression: Compression = "none",
  pool = new BufferPool(0)
) => {
  const batches = new SegmentEncoder(compression, 0, pool)
  for (const segment of segments) batches.add(segment, origin, partitions, limit)
  const sealed = batches.seal()
  const found = recordsOf(sealed)
  const wanted = new Map<number, Array<NewRecord>>()
  for (const segment of segments)
    for (const [partition, records] of expected(segment, partitions))
      wanted.set(partition, [...(wanted.get(partition) ?? []), ...records])
  assert.deepStrictEqual(
    new Map(
      [...found].map(([partition, records]) => [partition, records.map(bare)] as const).toSorted(([a], [b]) => a - b)
    ),
    new Map(
      [...wanted]
        .map(([partition, records]) => [partition, written(records, partition)] as const)
        .toSorted(([a], [b]) => a - b)
    )
  )
  return sealed
}

describe("segments as record batches", () => {
  it(`are what the log's encoder makes, for any texts, headers and partitions (seed ${seed})`, () => {
    const random = randomOf(seed)
    for (let round = 0; round < 300; round++) {
      let firstSeq = 1 + random.int(0, 5 - 1) * 10 ** random.int(0, 9 - 1)
      const segments = Array.from({ length: 1 + random.int(0, 3 - 1) }, () => {
        const shared = { own: random.pick(texts), tenant: "x", other: "1" }
        const records = Array.from({ length: 1 + random.int(0, 20 - 1) }, (): NewRecord => ({
          partition: 0,
          key: random.int(0, 10 - 1) === 0 ? null : random.pick(texts),
          value: random.int(0, 10 - 1) === 0 ? null : JSON.stringify({ v: random.pick(texts) }),
          eventTime: random.pick([0, -5, 1.5, 1e21, 1_357_000_000_123, -1e-7]),
          eventId: random.pick([undefined, ...texts]),
          tenant: random.pick([undefined, ...texts]),
          traceparent: random.pick([
            undefined,
            "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
            "short",
            "",
            "🐢".repeat(14),
            "0".repeat(54) + "ü"
          ]),
          schemaVersion: random.pick([undefined, 1, 2, 120]),
          headers: random.pick([{}, {}, shared, { a: random.pick(texts), "🐢": "b" }])
        }))
        const { meta, vals } = pack(records)
        const partition = random.pick([undefined, 0, 2])
        const segment = segmentOf(meta, vals, records.length, partition, firstSeq)
        firstSeq += records.length
        return segment
      })
      check(segments, 1 + random.int(0, 5 - 1), random.pick([100, 2_000, 1_000_000]))
    }
  })

  it("may have spaces in meta, and meta as commits write it", () => {
    const meta = metaText("k", 5, "e", undefined, "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01", 2)
    check([segmentOf(`[${meta},${metaText("k", 5, undefined, "t", undefined)}]`, "{}\n", 2, 0)], 1)
    check([segmentOf(` [ [ "k" , 1.0e2 , null ,\n"t" ] , ["k",007.0e0] ] `.replace("007.0e0", "7.0"), "1\n2", 2, 0)], 1)
  })

  it("become batches within a limit, which a single record may exceed", () => {
    const records = Array.from({ length: 50 }, (_, i): NewRecord => ({
      partition: 0,
      key: "k",
      value: JSON.stringify("x".repeat(i === 20 ? 5_000 : 100)),
      eventTime: i,
      eventId: undefined,
      tenant: undefined,
      traceparent: undefined,
      schemaVersion: undefined,
      headers: {}
    }))
    const { meta, vals } = pack(records)
    const sealed = check([segmentOf(meta, vals, 50, 0)], 1, 1_000)
    for (const { bytes, records: count, seq } of sealed) {
      assert.isTrue(bytes.length <= 1_000 || count === 1)
      if (bytes.length > 1_000) assert.strictEqual(seq, 21)
    }
  })

  it.each(["none", "zstd"] as const)(
    "keep their bytes while others are written into the same buffers (%s)",
    (compression) => {
      const random = randomOf(seed)
      const pool = new BufferPool(1 << 22)
      const sealed: Array<ReturnType<typeof check>> = []
      const copies: Array<ReadonlyArray<Buffer>> = []
      for (let round = 0; round < 20; round++) {
        const records = Array.from({ length: 200 }, (_, i): NewRecord => ({
          partition: 0,
          key: `k${i}`,
          value: JSON.stringify(String(random.int(0, 1_000_000)).repeat(random.int(1, 60))),
          eventTime: round,
          eventId: undefined,
          tenant: "t",
          traceparent: undefined,
          schemaVersion: undefined,
          headers: {}
        }))
        const { meta, vals } = pack(records)
        // several batches for each of two partitions
        sealed.push(check([segmentOf(meta, vals, 200, undefined, 1 + round * 200)], 2, 20_000, compression, pool))
        copies.push(sealed.at(-1)!.map(({ bytes }) => Buffer.from(bytes)))
      }
      assert.isAbove(sealed[0]!.length, 3)
      for (const [round, batches] of sealed.entries())
        for (const [i, { bytes }] of batches.entries()) assert.isTrue(bytes.equals(copies[round]![i]!))
    }
  )

  it("are refused if they are damaged", () => {
    const good = metaText("k", 5, undefined, undefined, undefined)
    for (const [meta, vals, messages] of [
      [`[${good}]`, "1", 2],
      [`[${good},${good}]`, "1", 2],
      [`[${good},${good}]`, "1\n2", 1],
      [`[${good}]`, "1\n2", 1],
      [`{}`, "1", 1],
      [`[["k",5`, "1", 1],
      [`[["k`, "1", 1],
      [`[["k"]]`, "1", 1],
      [`[["k\\x",5]]`, "1", 1]
    ] as const)
      assert.throws(
        () =>
          new SegmentEncoder("none", 0, new BufferPool(0)).add(segmentOf(meta, vals, messages, 0), origin, 1, 1_000),
        SyntaxError
      )
  })
})
