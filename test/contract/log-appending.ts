// The contract of the log on appending: what is stored, and in which order readers see it.
import { assert, type Vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Log, LogError, type NewRecord } from "../../src/log/log.ts"
import { fresh, range, readAll, record } from "./log-support.ts"

const odd: ReadonlyArray<Partial<NewRecord>> = [
  { key: null, value: '{"a":1}' },
  { key: "", value: '""' },
  { key: "null", value: "null" },
  { key: "deleted", value: null },
  { key: "quote \" back \\ slash / {1,2} ' $1", value: JSON.stringify('" \\ {"a,b"} NULL') },
  { key: "tab\tline\nreturn\rfeed", value: JSON.stringify("a\nb\r\tc") },
  { key: "nul\0in", value: JSON.stringify("nul\0in") },
  { key: "half \ud800 pair", value: JSON.stringify("half \udfff pair") },
  { key: "żółw 🐢 \u2028 \u2029", value: '{"ключ":"日本語 🐢 \u2028"}' },
  { key: "\\u0000", value: JSON.stringify("\\u0000 \\\\u0000") },
  { key: "x".repeat(5_000), value: JSON.stringify("y".repeat(200_000)) },
  { eventTime: -1.5, value: "-0.1e-7" },
  { eventTime: 8.64e15, eventId: "id\0", tenant: "t\ud800", schemaVersion: 7 },
  { headers: { a: "1", "": "", __proto__x: "y", "x\0": "\ud800" } },
  { traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" }
]

/** Adds the tests. */
export const logAppending = (it: Vitest.MethodsNonLive<Log>) => {
  it.effect("records are read in order, with their whole envelope", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh()
      const shared = { source: "test" }
      const records = [
        ...odd.map(record),
        ...range(0, 5).map((i) => record({ key: `s${i}`, headers: shared })),
        record({ key: "other", headers: { other: "1" } }),
        record({ key: "again", headers: shared })
      ]
      const before = Date.now()
      const places = yield* log.append(topic, records)
      assert.deepStrictEqual(
        places,
        records.map((_, position) => ({ partition: 0, position }))
      )
      const { end, records: read } = yield* readAll(topic)
      assert.strictEqual(end, records.length)
      assert.deepStrictEqual(
        read.map(({ appendedAt: _, position: __, ...rest }) => rest),
        records
      )
      assert.deepStrictEqual(
        read.map(({ position }) => position),
        range(0, records.length)
      )
      for (const { appendedAt } of read) assert.isTrue(appendedAt >= before - 1000 && appendedAt <= Date.now() + 1000)
      // a fingerprint is made of the append time, so that must stay what it is
      assert.deepStrictEqual((yield* readAll(topic)).records, read)
    })
  )

  it.effect("values are stored on one line, and values that are not JSON are refused", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh()
      yield* log.append(topic, [record({ value: '{\n  "a": "b",\r\n  "c": 1\n}' }), record({ value: '"\ud800"' })])
      const { records } = yield* readAll(topic)
      assert.deepStrictEqual(
        records.map(({ value }) => value),
        ['{"a":"b","c":1}', '"\\ud800"']
      )
      for (const bad of [
        record({ value: "" }),
        record({ value: "{\n" }),
        record({ value: '"\0"' }),
        record({ eventTime: NaN })
      ]) {
        const error = yield* Effect.flip(log.append(topic, [record(), bad]))
        assert.instanceOf(error, LogError)
        assert.isFalse((error as LogError).retryable)
      }
      // nothing of a refused call is there
      assert.strictEqual((yield* readAll(topic)).end, 2)
    })
  )

  it.effect("appending no records is allowed and appends nothing", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh()
      assert.deepStrictEqual(yield* log.append(topic, []), [])
      assert.deepStrictEqual(yield* log.read(topic, 0, 0), { records: [], next: 0, end: 0 })
    })
  )

  it.effect("50,000 records can be appended at once", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh(3)
      const records = range(0, 50_000).map((i) =>
        record({ partition: i % 3, key: `${i}`, value: `{"n":${i},"pad":"${"x".repeat(60)}"}` })
      )
      const places = yield* log.append(topic, records)
      assert.strictEqual(places.length, records.length)
      assert.isTrue(places.every(({ partition, position }, i) => partition === i % 3 && position === Math.floor(i / 3)))
      for (const partition of range(0, 3)) {
        const { records: read } = yield* readAll(topic, partition)
        assert.isTrue(read.every(({ key, position }) => Number(key) === position * 3 + partition))
        assert.strictEqual(read.length, Math.ceil((50_000 - partition) / 3))
      }
    })
  )

  it.effect("concurrent appenders get positions without gaps, each in its own order", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh(4)
      const appender = Effect.fnUntraced(function* (who: number) {
        const places = []
        for (const round of range(0, 15)) {
          const records = range(0, 1 + ((who + round) % 7)).map((i) =>
            record({ partition: (who + round + i) % 4, key: `${who}`, value: `[${who},${round},${i}]` })
          )
          const appended = yield* log.append(topic, records)
          for (const [i, { partition, position }] of appended.entries())
            places.push({ partition, position, value: records[i]!.value })
        }
        return places
      })
      const places = (yield* Effect.forEach(range(0, 20), appender, { concurrency: "unbounded" })).flat()
      let count = 0
      for (const partition of range(0, 4)) {
        const { end, records } = yield* readAll(topic, partition)
        count += records.length
        assert.deepStrictEqual(
          records.map(({ position }) => position),
          range(0, end)
        )
        for (const place of places) {
          if (place.partition === partition) assert.strictEqual(records[place.position]!.value, place.value)
        }
        const last = new Map<string | null, readonly [number, number]>()
        for (const { key, value } of records) {
          const [, round, i] = JSON.parse(value!) as [number, number, number]
          const before = last.get(key) ?? [-1, -1]
          assert.isTrue(round > before[0] || (round === before[0] && i > before[1]), `${key}: ${value} after ${before}`)
          last.set(key, [round, i])
        }
      }
      assert.strictEqual(count, places.length)
    })
  )

  it.effect("calls are in order even if the caller does not wait for them", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh()
      const fibers = []
      for (const i of range(0, 300)) {
        fibers.push(yield* Effect.forkChild(log.append(topic, [record({ value: `${i}` })]), { startImmediately: true }))
        if (i % 50 === 0) yield* Effect.sleep(2)
      }
      yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(
        (yield* readAll(topic)).records.map(({ value }) => Number(value)),
        range(0, 300)
      )
    })
  )

  it.effect("a small append does not overtake an earlier large one", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh()
      const pad = "x".repeat(300)
      const large = range(0, 15_000).map((i) => record({ value: `["${pad}",${i}]` }))
      const first = yield* Effect.forkChild(log.append(topic, large), { startImmediately: true })
      // a turn, so that it is on its way
      yield* Effect.sleep(1)
      assert.deepStrictEqual(yield* log.append(topic, [record()]), [{ partition: 0, position: large.length }])
      yield* Fiber.join(first)
    })
  )

  it.effect("readers see positions in order and the records of a call at once, while others append", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh()
      const appenders = yield* Effect.forkChild(
        Effect.forEach(
          range(0, 8),
          (who) =>
            Effect.forEach(range(0, 25), (round) =>
              log.append(
                topic,
                range(0, 3).map((i) => record({ value: `[${who},${round},${i}]` }))
              )
            ),
          { concurrency: "unbounded" }
        )
      )
      const reader = yield* log.open(topic, 0, 0)
      let seen = 0
      while (seen < 600) {
        const { end, next, records } = yield* reader.take
        assert.deepStrictEqual(
          records.map(({ position }) => position),
          range(seen, next)
        )
        assert.strictEqual(end % 3, 0)
        seen = next
      }
      yield* Fiber.join(appenders)
      assert.strictEqual((yield* log.bounds(topic))[0]!.end, 600)
      assert.strictEqual((yield* log.ends(topic))[0], 600)
    }).pipe(Effect.scoped)
  )

  it.effect("interrupting one appender does not affect the others", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh()
      const fibers = yield* Effect.forEach(range(0, 50), (i) =>
        Effect.forkChild(log.append(topic, [record({ key: `${i}` })]), { startImmediately: true })
      )
      yield* Effect.forEach(fibers, (fiber, i) => (i % 2 === 0 ? Fiber.interrupt(fiber) : Effect.void), {
        concurrency: "unbounded"
      })
      for (const [i, fiber] of fibers.entries()) if (i % 2 === 1) yield* Fiber.join(fiber)
      const { end, records } = yield* readAll(topic)
      assert.deepStrictEqual(
        records.map(({ position }) => position),
        range(0, end)
      )
      const keys = new Set(records.map(({ key }) => Number(key)))
      for (const i of range(0, 50)) if (i % 2 === 1) assert.isTrue(keys.has(i))
    })
  )
}
