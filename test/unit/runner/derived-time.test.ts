// Stream time over a derived topic: the least of what its streams have announced, against an independent fold, and the streams that count.
import { describe, expect, test } from "vitest"
import type { LogRecord } from "../../../src/log/log.ts"
import { DerivedTime, type FeedStreams } from "../../../src/runner/derived-time.ts"
import type { StreamTimes } from "../../../src/runner/store.ts"
import { randomOf, seed } from "../../support/random.ts"

interface Given {
  /** `<projection>/<source>/<partition>`; undefined: the record has no such header. */
  readonly stream?: string | undefined
  readonly time?: string
  readonly at: number
  readonly appendedAt?: number
}
const recordOf = ({ appendedAt = 1e12, at, stream, time }: Given): LogRecord => ({
  partition: 0,
  position: 0,
  key: "k",
  value: "{}",
  eventTime: at,
  appendedAt,
  eventId: undefined,
  tenant: undefined,
  traceparent: undefined,
  schemaVersion: undefined,
  headers: {
    ...(stream !== undefined && { "millrace-stream": stream }),
    ...(time !== undefined && { "millrace-time": time })
  }
})
const advance = (time: DerivedTime, ...given: ReadonlyArray<Given>) =>
  given.map((one) => time.advance(recordOf(one), one.at))

describe(`stream time of a derived topic (seed ${seed})`, () => {
  test("is what a fold over all records says, however batches are divided", () => {
    const random = randomOf(seed)
    for (let round = 0; round < 200; round++) {
      const feeds: ReadonlyArray<FeedStreams> = [
        { name: "a/t", partitions: random.int(1, 4) },
        { name: "b/t", partitions: random.int(1, 3) }
      ]
      const streams = feeds.flatMap(({ name, partitions }) =>
        Array.from({ length: partitions }, (_, partition) => `${name}/${partition}`)
      )
      const told = new Map<string, number>()
      let kept: StreamTimes | undefined
      let committed: number | undefined
      let expected: number | undefined
      let time = new DerivedTime(undefined, undefined, feeds)
      for (let n = 0; n < 60; n++) {
        const stream = random.pick([...streams, ...streams, undefined, "other/t/0", "a/t/99", "a/t/x"])
        const [at, appendedAt] = [random.int(0, 1_000), random.int(400, 1_000)]
        const header = random.pick([undefined, undefined, "", String(random.int(0, 1_000)), "soon"])
        const record = recordOf({ stream, at, appendedAt, ...(header !== undefined && { time: header }) })
        const judged = time.advance(record, at)
        const sent = header === undefined ? at : /^\d+$/.test(header) ? Number(header) : undefined
        if (stream !== undefined && streams.includes(stream) && sent !== undefined)
          told.set(stream, Math.max(told.get(stream) ?? -Infinity, Math.min(sent, appendedAt)))
        if (told.size === streams.length) expected = Math.max(expected ?? -Infinity, Math.min(...told.values()))
        expect([time.current, judged]).toEqual([expected, expected ?? at])
        if (!random.chance(0.2)) continue
        kept = JSON.parse(JSON.stringify(time.streamTimes ?? kept ?? null)) ?? undefined
        committed = time.current
        time = new DerivedTime(committed, kept, feeds)
      }
    }
  })
  test("is held by a stream that has announced nothing, and then no event is late", () => {
    const time = new DerivedTime(undefined, undefined, [{ name: "a/t", partitions: 2 }])
    expect(advance(time, { stream: "a/t/0", at: 90 }, { stream: "a/t/0", at: 10 })).toEqual([90, 10])
    expect(time.current).toBeUndefined()
    expect(advance(time, { stream: "a/t/1", at: 20 }, { stream: "a/t/0", at: 5 })).toEqual([20, 20])
  })
  test("does not go back when a stream is added, and does not wait for one that was removed", () => {
    const kept = { "a/t": [50], "gone/t": [10] }
    const time = new DerivedTime(50, kept, [
      { name: "a/t", partitions: 2 },
      { name: "b/t", partitions: 1 }
    ])
    expect(advance(time, { stream: "a/t/0", at: 70 }, { stream: "b/t/0", at: 60 })).toEqual([50, 50])
    expect(advance(time, { stream: "a/t/1", at: 65 })).toEqual([60])
    expect(time.streamTimes).toEqual({ "a/t": [70, 65], "b/t": [60], "gone/t": [10] })
  })
  test("is not moved by records of other writers, or of partitions that the source did not have", () => {
    const time = new DerivedTime(undefined, undefined, [{ name: "a/t", partitions: 1 }])
    const others = [undefined, "a/t/1", "a/t", "a/t/-1", "a/t/1e3", "__proto__/t/0", "/0"]
    advance(time, ...others.map((stream) => ({ stream, at: 90 })), { stream: "a/t/0", at: 10 })
    expect([time.current, time.streamTimes]).toEqual([10, { "a/t": [10] }])
  })
  test("counts the streams that were seen in a topic of another application, and all records until one was", () => {
    const time = new DerivedTime(undefined, undefined, undefined)
    expect(advance(time, { at: 30 }, { at: 20 })).toEqual([30, 30])
    expect(advance(time, { stream: "x/t/1", at: 50 }, { stream: "x/t/0", at: 40 }, { at: 99 })).toEqual([50, 50, 50])
    expect(advance(time, { stream: "x/t/0", at: 60 })).toEqual([50])
    expect(advance(time, { stream: "x/t/1", at: 70 })).toEqual([60])
  })
  test("distinguishes a bounded number of streams of another application", () => {
    const time = new DerivedTime(undefined, undefined, undefined)
    for (let n = 0; n < 5_000; n++) advance(time, { stream: `x${n}/t/0`, at: n })
    advance(time, { stream: "y/t/99999", at: 7 })
    expect(Object.keys(time.streamTimes!)).toHaveLength(4_000)
  })
  test("moves at most to a record's append time", () => {
    const time = new DerivedTime(undefined, undefined, [{ name: "a/t", partitions: 1 }])
    expect(advance(time, { stream: "a/t/0", at: 90, appendedAt: 40 })).toEqual([40])
    expect(advance(time, { stream: "a/t/0", at: 90, time: "80", appendedAt: 60 })).toEqual([60])
  })
})
