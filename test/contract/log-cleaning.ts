// The contract of the log on cleaning: compaction and retention.
import { assert, type Vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Log, OutOfRange } from "../../src/log/log.ts"
import { LogCleaner } from "../../src/log/cleaner.ts"
import { fresh, range, readAll, record } from "./log-support.ts"

const appendKeys = Effect.fnUntraced(function* (topic: string, keys: ReadonlyArray<string>, at = 0) {
  const log = yield* Log
  for (const [i, key] of keys.entries())
    yield* log.append(topic, [record({ key, value: `"${key}${at + i}"`, headers: { i: `${at + i}` } })])
})

/** Adds the tests. */
export const logCleaning = (it: Vitest.MethodsNonLive<Log | LogCleaner>) => {
  it.effect("compaction keeps the newest record of every key unchanged, at its position", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const { clean } = yield* LogCleaner
      const topic = yield* fresh(1, { compacted: true })
      yield* appendKeys(topic, ["a", "b", "a", "c", "b", "", "a", ""])
      yield* log.append(topic, [
        record({ key: null, value: "1" }),
        record({ key: null, value: "2" }),
        record({ key: "half \ud800 nul \0", value: "3" })
      ])
      const before = (yield* readAll(topic)).records
      const kept = before.filter(({ position }) => [3, 4, 6, 7, 8, 9, 10].includes(position))
      assert.deepStrictEqual(yield* clean({ topics: [topic], dirtyShare: 0 }), { compacted: 4, expired: 0 })
      const after = yield* readAll(topic)
      assert.deepStrictEqual(after.records, kept)
      assert.strictEqual(after.end, 11)
      assert.strictEqual(after.batches.at(-1)!.next, 11)
      // reading may begin in a hole
      assert.deepStrictEqual((yield* readAll(topic, 0, 5)).records, kept.slice(2))
      // and it goes on, over what was compacted before
      yield* appendKeys(topic, ["b", "d"], 11)
      assert.deepStrictEqual(yield* clean({ topics: [topic], dirtyShare: 0 }), { compacted: 1, expired: 0 })
      const again = (yield* readAll(topic)).records
      assert.deepStrictEqual(
        again.map(({ key, position }) => [key, position]),
        [
          ["c", 3],
          ["a", 6],
          ["", 7],
          [null, 8],
          [null, 9],
          ["half \ud800 nul \0", 10],
          ["b", 11],
          ["d", 12]
        ]
      )
      assert.deepStrictEqual(
        again.slice(0, 6),
        kept.filter(({ key }) => key !== "b")
      )
    })
  )

  it.effect("only compacted topics are compacted, and only when enough of a partition is new", () =>
    Effect.gen(function* () {
      const { clean } = yield* LogCleaner
      const plain = yield* fresh()
      const topic = yield* fresh(1, { compacted: true })
      const topics = [plain, topic]
      yield* appendKeys(plain, ["a", "a"])
      yield* appendKeys(topic, [...range(0, 30).map(String), "0"])
      assert.deepStrictEqual(yield* clean({ topics }), { compacted: 1, expired: 0 })
      yield* appendKeys(topic, ["1", "2", "3"])
      assert.deepStrictEqual(yield* clean({ topics }), { compacted: 0, expired: 0 })
      for (const _ of range(0, 2)) yield* appendKeys(topic, range(0, 30).map(String))
      assert.deepStrictEqual(yield* clean({ topics }), { compacted: 63, expired: 0 })
      assert.strictEqual((yield* readAll(plain)).records.length, 2)
    })
  )

  it.effect("a deletion is kept for some time after the first compaction that finds it, and removed then", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const { clean } = yield* LogCleaner
      const topic = yield* fresh(1, { compacted: true })
      const keys = Effect.map(readAll(topic), ({ records }) => records.map(({ key, value }) => [key, value]))
      const options = { topics: [topic], dirtyShare: 0, deletionsMs: 300 }
      yield* log.append(topic, [record({ key: "a", value: "1" }), record({ key: "b", value: "2" })])
      yield* log.append(topic, [record({ key: "a", value: null })])
      yield* Effect.sleep(400)
      // older than the time, but met for the first time: a reader may have read the value just before
      assert.strictEqual((yield* clean(options)).compacted, 1)
      assert.deepStrictEqual(yield* keys, [
        ["b", "2"],
        ["a", null]
      ])
      assert.strictEqual((yield* clean({ ...options, deletionsMs: 60_000 })).compacted, 0)
      yield* Effect.sleep(400)
      assert.strictEqual((yield* clean(options)).compacted, 1)
      assert.deepStrictEqual(yield* keys, [["b", "2"]])
      assert.deepStrictEqual(yield* log.bounds(topic), [{ partition: 0, start: 0, end: 3 }])
      assert.deepStrictEqual(yield* log.ends(topic), [3])
      // everything may go
      yield* log.append(topic, [record({ key: "b", value: null })])
      yield* clean({ ...options, deletionsMs: 0 })
      const { batches, end, records } = yield* readAll(topic)
      assert.deepStrictEqual([records, end, batches.at(-1)?.next], [[], 4, 4])
      assert.deepStrictEqual(yield* log.append(topic, [record()]), [{ partition: 0, position: 4 }])
      assert.strictEqual((yield* readAll(topic)).records.length, 1)
    })
  )

  it.effect("compaction does not disturb readers and writers", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const { clean } = yield* LogCleaner
      const topic = yield* fresh(1, { compacted: true })
      const value = (i: number) => `{"n":${i},"pad":"${"x".repeat(200)}"}`
      const put = (from: number, to: number) =>
        log.append(
          topic,
          range(from, to).map((i) => record({ key: `${i % 40}`, value: value(i) }))
        )
      for (const i of range(0, 20)) yield* put(i * 50, i * 50 + 50)
      const reader = yield* log.open(topic, 0, 0, { maxBytes: 4_000 })
      yield* reader.take
      const cleaning = yield* Effect.forkChild(
        Effect.forever(Effect.andThen(clean({ topics: [topic], dirtyShare: 0 }), Effect.yieldNow))
      )
      const writing = yield* Effect.forkChild(Effect.forEach(range(20, 40), (i) => put(i * 50, i * 50 + 50)))
      const newest = new Map<string | null, number>()
      for (let next = 0; next < 2_000;) {
        const batch = yield* reader.take
        assert.isTrue(batch.next > next)
        for (const one of batch.records) {
          assert.isTrue(one.position >= next && one.position < batch.next)
          assert.strictEqual(one.value, value(one.position))
          newest.set(one.key, one.position)
          next = one.position + 1
        }
        next = batch.next
      }
      yield* Fiber.join(writing)
      yield* Fiber.interrupt(cleaning)
      assert.deepStrictEqual(
        [...newest.values()].toSorted((a, b) => a - b),
        range(1_960, 2_000)
      )
      yield* clean({ topics: [topic], dirtyShare: 0 })
      assert.deepStrictEqual(
        (yield* readAll(topic)).records.map(({ position }) => position),
        range(1_960, 2_000)
      )
    }).pipe(Effect.scoped)
  )

  it.effect("records older than the retention are deleted from the front, and the start moves", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const { clean } = yield* LogCleaner
      const kept = (retentionMs: number | undefined) =>
        log.declare([{ name: topic, partitions: 2, compacted: false, retentionMs }])
      const topic = yield* fresh(2, { retentionMs: 2_000 })
      for (const _ of range(0, 10)) yield* log.append(topic, [record()])
      const late = yield* log.open(topic, 0, 0, { maxBytes: 6 })
      yield* late.take
      yield* Effect.sleep(2_100)
      yield* log.append(
        topic,
        range(0, 5).map(() => record())
      )
      assert.deepStrictEqual(yield* clean({ topics: [topic] }), { compacted: 0, expired: 10 })
      assert.deepStrictEqual(yield* log.bounds(topic), [
        { partition: 0, start: 10, end: 15 },
        { partition: 1, start: 0, end: 0 }
      ])
      assert.deepStrictEqual(
        (yield* readAll(topic, 0, 10)).records.map(({ position }) => position),
        range(10, 15)
      )
      const error = yield* Effect.flip(log.read(topic, 0, 9))
      assert.deepStrictEqual(error instanceof OutOfRange && [error.position, error.start, error.end], [9, 10, 15])
      // a reader that was overtaken hears of it, once it took what it had read ahead
      assert.instanceOf(yield* Effect.flip(Effect.forever(late.take)), OutOfRange)
      // a changed retention holds from the next cleaning on
      yield* kept(100)
      yield* Effect.sleep(200)
      assert.strictEqual((yield* clean({ topics: [topic] })).expired, 5)
      assert.deepStrictEqual((yield* log.bounds(topic))[0], { partition: 0, start: 15, end: 15 })
      assert.deepStrictEqual(yield* log.append(topic, [record()]), [{ partition: 0, position: 15 }])
      yield* kept(undefined)
      yield* Effect.sleep(200)
      assert.strictEqual((yield* clean({ topics: [topic] })).expired, 0)
    }).pipe(Effect.scoped)
  )
}
