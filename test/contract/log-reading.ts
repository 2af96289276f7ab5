// The contract of the log on reading: waiting, limits, and positions that do not exist.
import { assert, type Vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Log, OutOfRange } from "../../src/log/log.ts"
import { fresh, range, readAll, record } from "./log-support.ts"

/** Adds the tests. */
export const logReading = (it: Vitest.MethodsNonLive<Log>) => {
  it.effect("an append wakes a waiting reader at once", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh(2)
      const reader = yield* log.open(topic, 1, 0)
      const waits: Array<number> = []
      for (const i of range(0, 9)) {
        const fiber = yield* Effect.forkChild(reader.take, { startImmediately: true })
        yield* Effect.sleep(30)
        yield* log.append(topic, [record({ partition: 0 })])
        assert.isUndefined(fiber.pollUnsafe())
        const began = performance.now()
        yield* log.append(topic, [record({ partition: 1, value: `${i}` })])
        const { next, records } = yield* Fiber.join(fiber)
        waits.push(performance.now() - began)
        assert.deepStrictEqual([records.map(({ value }) => value), next], [[`${i}`], i + 1])
      }
      // a poll would take half a second on average
      assert.isBelow(waits.toSorted((a, b) => a - b)[4]!, 250, `${waits}`)
    }).pipe(Effect.scoped)
  )

  it.effect("a reader sees records that were appended between `open` and `take`", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh()
      const reader = yield* log.open(topic, 0, 0)
      yield* log.append(topic, [record()])
      assert.strictEqual((yield* reader.take).next, 1)
    }).pipe(Effect.scoped)
  )

  it.effect("after an interrupted `take` no record is lost or repeated", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh()
      yield* log.append(
        topic,
        range(0, 100).map((i) => record({ value: `${i}` }))
      )
      const reader = yield* log.open(topic, 0, 0, { maxBytes: 20 })
      const seen: Array<number> = []
      while (seen.length < 100) {
        const fiber = yield* Effect.forkChild(reader.take)
        if (seen.length % 3 === 0) yield* Effect.yieldNow
        const exit = yield* Fiber.interrupt(fiber).pipe(Effect.andThen(Fiber.await(fiber)))
        if (exit._tag === "Success") seen.push(...exit.value.records.map(({ position }) => position))
        else seen.push(...(yield* reader.take).records.map(({ position }) => position))
      }
      assert.deepStrictEqual(seen, range(0, 100))
    }).pipe(Effect.scoped)
  )

  it.effect("a reader asks how large a batch may be at each read", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh()
      yield* log.append(
        topic,
        range(0, 64).map((i) => record({ value: JSON.stringify(`${i}`.padStart(98)) }))
      )
      let maxBytes = 400
      const reader = yield* log.open(topic, 0, 0, { maxBytes: () => maxBytes })
      const counts: Array<number> = []
      for (let taken = 0; taken < 64; taken += counts.at(-1)!) {
        counts.push((yield* reader.take).records.length)
        if (counts.length === 2) maxBytes = 1_600
      }
      assert.deepStrictEqual(counts.slice(0, 2), [4, 4])
      // one read more may have been under way
      assert.isTrue(
        counts.slice(3, -1).every((n) => n === 16),
        `${counts}`
      )
    }).pipe(Effect.scoped)
  )

  it.effect("a read returns at most `maxBytes` of values, but at least one record", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh()
      const text = (bytes: number) => JSON.stringify("é".repeat(bytes / 2 - 1))
      const sizes = [100, 300, 100, 100, 1000, 20, 20, 20, 400]
      for (const part of [sizes.slice(0, 4), sizes.slice(4, 5), sizes.slice(5)]) {
        yield* log.append(
          topic,
          part.map((bytes) => record({ value: text(bytes) }))
        )
      }
      const { batches } = yield* readAll(topic, 0, 0, 400)
      const bytesOf = batches.map(({ records }) => records.map(({ value }) => Buffer.byteLength(value!)))
      for (const batch of bytesOf) assert.isTrue(batch.length === 1 || batch.reduce((a, b) => a + b) <= 400, `${batch}`)
      assert.deepStrictEqual(bytesOf.flat(), sizes)
      const reader = yield* log.open(topic, 0, 0, { maxBytes: 400 })
      const taken: Array<number> = []
      while (taken.length < sizes.length) {
        const { next, records } = yield* reader.take
        taken.push(...records.map(({ value }) => Buffer.byteLength(value!)))
        assert.strictEqual(next, taken.length)
        assert.isTrue(records.length === 1 || taken.slice(-records.length).reduce((a, b) => a + b) <= 400)
      }
      assert.deepStrictEqual(taken, sizes)
      const middle = yield* log.read(topic, 0, 2, { maxBytes: 150 })
      assert.deepStrictEqual([middle.records.map(({ position }) => position), middle.next, middle.end], [[2], 3, 9])
    }).pipe(Effect.scoped)
  )

  it.effect("positions that do not exist are refused", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh()
      yield* log.append(topic, [record(), record()])
      for (const position of [-1, 3, 1_000_000]) {
        for (const attempt of [
          log.read(topic, 0, position),
          Effect.scoped(Effect.flatMap(log.open(topic, 0, position), ({ take }) => take))
        ]) {
          const error = yield* Effect.flip(attempt)
          assert.instanceOf(error, OutOfRange)
          const { end, partition, start } = error as OutOfRange
          assert.deepStrictEqual([(error as OutOfRange).position, partition, start, end], [position, 0, 0, 2])
        }
      }
      assert.strictEqual((yield* log.read(topic, 0, 2)).records.length, 0)
    })
  )
}
