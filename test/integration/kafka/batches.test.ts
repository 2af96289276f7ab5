// Record batches without a broker: what is encoded is decoded, and no aborted record comes through, in whatever order brokers list aborts.
import * as zlib from "node:zlib"
import { assert, describe, it } from "vitest"
import { codecs } from "../../../src/kafka/protocol/compression.ts"
import { crc32c } from "../../../src/kafka/protocol/crc32c.ts"
import { headBytes, stamp } from "../../../src/kafka/protocol/batch-encode.ts"
import { bytesOf, textOf } from "../../../src/text/utf8.ts"
import { decodeRecords, encodeRecords } from "../../../src/kafka/log/records.ts"
import { balance } from "../../../src/kafka/log/assignor.ts"
import { optionsFrom } from "../../../src/kafka/protocol/options.ts"
import { range, record } from "../../contract/log-support.ts"

const batchOf = (
  base: number,
  values: ReadonlyArray<string>,
  producer = -1n,
  attributes = 0,
  key: string | null = "k"
) => {
  const batch = encodeRecords(
    values.map((value) => record({ key, value })),
    "none",
    1_000
  )
  batch.writeBigInt64BE(BigInt(base), 0)
  batch.writeInt16BE(attributes, 21)
  stamp(batch, producer, 0, 0)
  return batch
}
const transactional = 16
const marker = (base: number, producer: bigint, commit: boolean) => {
  // length, attributes, time, offset, key of 4 bytes: version and type, value, headers
  const body = Buffer.from([0, 0, 0, 0, 8, 0, 0, 0, commit ? 1 : 0, 12, 0, 0, 0, 0, 0, 0, 0])
  body[0] = (body.length - 1) << 1
  const batch = Buffer.concat([batchOf(base, ["{}"], producer).subarray(0, headBytes), body])
  batch.writeInt32BE(batch.length - 12, 8)
  batch.writeInt16BE(transactional | 32, 21)
  stamp(batch, producer, 0, 0)
  return batch
}
const valuesOf = (bytes: Buffer, aborted: Parameters<typeof decodeRecords>[3], from = 0) => {
  const { next, records } = decodeRecords(bytes, 0, from, aborted)
  return [records.map(({ value }) => value), next] as const
}

describe("record batches", () => {
  it("have the checksum that CRC-32C defines", () => {
    assert.strictEqual(crc32c(Buffer.from("123456789"), 0, 9), 0xe3069283)
    assert.strictEqual(crc32c(Buffer.from("x123456789y"), 1, 10), 0xe3069283)
  })

  it("keep text that is not well-formed UTF-8", () => {
    for (const text of ["", "a", "żółw 🐢", "\ud800", "\udfff\ud800x", "a\ufffd\ud83d", "🐢\udc22🐢", "\0"]) {
      const bytes = Buffer.concat([Buffer.from("<"), bytesOf(text), Buffer.from(">")])
      assert.strictEqual(textOf(bytes, 1, bytes.length - 1), text)
    }
    assert.strictEqual(textOf(Buffer.from([0x61, 0xff, 0x62]), 0, 3), "a\udcffb")
  })

  it("are decoded without aborted records, though the list of aborts is unordered", () => {
    const bytes = Buffer.concat([
      batchOf(0, ["1"], 7n, transactional),
      batchOf(1, ["2"], 8n, transactional),
      marker(2, 7n, false),
      batchOf(3, ["3"], 7n, transactional),
      marker(4, 8n, false),
      marker(5, 7n, true),
      batchOf(6, ["4"])
    ])
    const aborted = [
      { producerId: 8n, firstOffset: 1 },
      { producerId: 7n, firstOffset: 0 }
    ]
    assert.deepStrictEqual(valuesOf(bytes, aborted), [["3", "4"], 7])
  })

  it("are decoded without any aborted transaction of a producer, in whole batches of many records", () => {
    const many = range(0, 50).map(String)
    const bytes = Buffer.concat([
      batchOf(0, many, 7n, transactional),
      marker(50, 7n, false),
      batchOf(51, ["fine"], 7n, transactional),
      marker(52, 7n, true),
      batchOf(53, many, 7n, transactional),
      batchOf(103, ["other"], 9n, transactional),
      marker(104, 9n, true),
      marker(105, 7n, false)
    ])
    const aborted = [
      { producerId: 7n, firstOffset: 53 },
      { producerId: 7n, firstOffset: 0 }
    ]
    assert.deepStrictEqual(valuesOf(bytes, aborted), [["fine", "other"], 106])
  })

  it("are not mistaken for transaction markers because of a record's key", () => {
    const bytes = Buffer.concat([
      batchOf(0, ["1"], 7n, transactional, "\0\0\0\0"),
      batchOf(1, ["2"], 7n, transactional),
      marker(2, 7n, false),
      batchOf(3, ["3"], -1n, 0, "\0\0\0\0")
    ])
    assert.deepStrictEqual(valuesOf(bytes, [{ producerId: 7n, firstOffset: 0 }]), [["3"], 4])
  })

  it("are skipped if they hold no record, and ignored if they are cut short", () => {
    const bytes = Buffer.concat([batchOf(5, ["1", "2", "3"]), marker(8, 3n, true), batchOf(20, ["x"])])
    assert.deepStrictEqual(valuesOf(bytes, [], 7), [["3", "x"], 21])
    assert.deepStrictEqual(valuesOf(bytes.subarray(0, -1), [], 7), [["3"], 9])
    assert.deepStrictEqual(valuesOf(marker(8, 3n, true), [], 8), [[], 9])
  })

  it("are refused if they are damaged", () => {
    const bytes = batchOf(0, ["12345"])
    bytes[bytes.length - 3]! ^= 1
    assert.throws(() => decodeRecords(bytes, 0, 0, []), /damaged/)
  })

  it("can be compressed with every codec", () => {
    const records = range(0, 3_000).map((i) =>
      record({ key: `${i}`, value: `{"n":${i},"text":"${"ab".repeat(i % 40)}"}` })
    )
    for (const name of ["gzip", "snappy", "lz4", "zstd"] as const) {
      const batch = encodeRecords(records, name, 1_000)
      stamp(batch, 1n, 0, 0)
      assert.isBelow(batch.length, encodeRecords(records, "none", 1_000).length / 2)
      assert.deepStrictEqual(
        decodeRecords(batch, 0, 0, []).records.map(({ key, value }) => [key, value]),
        records.map(({ key, value }) => [key, value])
      )
      const bytes = Buffer.from("x".repeat(200_000) + "end")
      assert.isTrue(codecs[name].unpack(codecs[name].pack(bytes)).equals(bytes), name)
    }
    assert.strictEqual(zlib.gunzipSync(codecs.gzip.pack(Buffer.from("a"))).toString(), "a")
  })
})

describe("assignment of partitions", () => {
  const ids = ["a", "b", "c", "d"]
  it("is even, gives no partition to two members, and none to another member while its owner uses it", () => {
    for (let seed = 1; seed < 500; seed++) {
      const random = (n: number) => ((Math.imul(seed, 2_654_435_761) >>> 8) + seed * 31 + n * 7919) % 97
      const partitions = 1 + (random(1) % 9)
      const members = ids.slice(0, 1 + (random(2) % 4)).map((id, m) => ({
        id,
        generation: random(m),
        owned: range(0, partitions + 1).filter((p) => random(p + m * 13) % 3 === 0)
      }))
      const given = balance(members, partitions)
      const all = [...given.values()].flat()
      assert.strictEqual(new Set(all).size, all.length)
      const most = Math.ceil(partitions / members.length)
      for (const [id, mine] of given) {
        assert.isAtMost(mine.length, most)
        for (const partition of mine) {
          const owners = members.filter(({ owned }) => owned.includes(partition)).map((one) => one.id)
          assert.isTrue(owners.length === 0 || owners.includes(id))
        }
      }
      // once everybody gave up what was taken, everything is given, fairly
      const settled = balance(
        members.map(({ generation, id }) => ({ id, generation, owned: given.get(id)! })),
        partitions
      )
      const sizes = [...settled.values()].map(({ length }) => length)
      assert.strictEqual(
        sizes.reduce((a, b) => a + b),
        partitions
      )
      assert.isAtMost(Math.max(...sizes) - Math.min(...sizes), 1)
      for (const [id, mine] of given) for (const partition of mine) assert.include(settled.get(id)!, partition)
    }
  })
})

describe("options from the environment", () => {
  it("are undefined without brokers, and an invalid one is named", () => {
    assert.isUndefined(optionsFrom({}))
    assert.isUndefined(optionsFrom({ MILLRACE_KAFKA_BROKERS: " " }))
    const brokers = { MILLRACE_KAFKA_BROKERS: "a:1, b:2," }
    assert.deepStrictEqual(optionsFrom(brokers), { brokers: ["a:1", "b:2"] })
    assert.deepStrictEqual(
      optionsFrom({
        ...brokers,
        MILLRACE_KAFKA_USERNAME: "me",
        MILLRACE_KAFKA_PASSWORD: "p",
        MILLRACE_KAFKA_TLS: "true",
        MILLRACE_KAFKA_COMPRESSION: "zstd",
        MILLRACE_KAFKA_REPLICATION: "3",
        MILLRACE_KAFKA_MIN_ISR: "2"
      }),
      {
        brokers: ["a:1", "b:2"],
        sasl: { mechanism: "scram-sha-512", username: "me", password: "p" },
        tls: true,
        compression: "zstd",
        replicationFactor: 3,
        minInSyncReplicas: 2
      }
    )
    assert.throws(
      () => optionsFrom({ ...brokers, MILLRACE_KAFKA_MECHANISM: "kerberos" }),
      /_MECHANISM is 'kerberos'; it must be one of plain/
    )
    assert.throws(() => optionsFrom({ ...brokers, MILLRACE_KAFKA_MIN_ISR: "0" }), /_MIN_ISR is '0'/)
  })
})
