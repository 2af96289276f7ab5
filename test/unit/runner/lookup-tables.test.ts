// A lookup table by itself: what it answers, what it leaves to the store of versions, and when that gets them.
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Topic } from "../../../src/index.ts"
import type { LogRecord } from "../../../src/log/log.ts"
import { partitionOf } from "../../../src/model/partitioner.ts"
import { type LookupStore, memoryLookupStore } from "../../../src/runner/lookup-store.ts"
import { LookupTable } from "../../../src/runner/lookup-tables.ts"
import { StoreError } from "../../../src/runner/store.ts"

const people = Topic.compacted("people", { value: { user: Schema.String, n: Schema.Finite }, key: "user" })
/** A topic in memory. */
class Records {
  identity: string | undefined
  readonly partitions: Array<Array<LogRecord | undefined>>
  constructor(partitions = 1) {
    this.partitions = Array.from({ length: partitions }, () => [])
  }
  put(key: string, n: number | null, appendedAt = 1, partition = partitionOf(key, this.partitions.length)) {
    const records = this.partitions[partition]!
    const value = n === null ? null : JSON.stringify({ user: key, n })
    const [position, none] = [records.length, undefined]
    const envelope = { eventId: none, tenant: none, traceparent: none, schemaVersion: 1, headers: {} }
    records.push({ ...envelope, partition, position, key, value, eventTime: appendedAt, appendedAt })
  }
  /** The first position that the topic still has. */
  start = 0
  readonly log = {
    identity: () => Effect.sync(() => this.identity),
    ends: () => Effect.sync(() => this.partitions.map(({ length }) => length)),
    bounds: () =>
      Effect.sync(() =>
        this.partitions.map(({ length }, partition) => ({ partition, start: this.start, end: length }))
      ),
    read: (_: string, partition: number, position: number) =>
      Effect.sync(() => {
        const all = this.partitions[partition]!
        const records = all.slice(position).filter((record) => record !== undefined)
        return { records, next: all.length, end: all.length }
      })
  }
}
const all = { appendedBy: undefined, validAt: undefined }
const found = (table: LookupTable, key: string, pin = table.pin, appendedBy?: number) =>
  Effect.map(table.find([{ ...all, key, pin, appendedBy }]), ([answer]) => answer)

describe("a lookup table", () => {
  it.effect("is not further than the versions in the store: a batch that can see a value comes after its version", () =>
    Effect.gen(function* () {
      const topic = new Records()
      topic.put("a", 1)
      let fails = true
      const memory = memoryLookupStore()
      const failed = new StoreError({ operation: "store lookup values", retryable: true, reason: "away" })
      const keep: LookupStore["keep"] = (...of) =>
        Effect.andThen(
          Effect.yieldNow,
          Effect.suspend(() => (fails ? Effect.fail(failed) : memory.keep(...of)))
        )
      const table = new LookupTable(topic.log, people, { ...memory, keep })
      assert.strictEqual(yield* Effect.flip(table.catchUp), failed)
      assert.deepStrictEqual(table.pin.positions, [0])
      assert.strictEqual(table.get("a"), undefined)
      fails = false
      yield* table.catchUp
      assert.deepStrictEqual(table.pin.positions, [1])
      assert.deepStrictEqual(yield* found(table, "a"), { partition: 0, value: { user: "a", n: 1 } })
    })
  )

  it.effect("answers by the pin and the append time, or leaves the answer to the store", () =>
    Effect.gen(function* () {
      const topic = new Records()
      const table = new LookupTable(topic.log, people)
      topic.put("a", 1, 10)
      yield* table.catchUp
      const before = table.pin
      topic.put("a", 2, 20)
      topic.put("b", 1, 20)
      topic.put("b", null, 30)
      yield* table.catchUp
      const { pin } = table
      const n = (answer: { readonly value?: unknown } | { readonly error: unknown } | undefined) =>
        ((answer as { readonly value?: unknown } | undefined)?.value as { n: number } | undefined)?.n
      assert.strictEqual(n(table.answer("a", pin, 20)), 2)
      assert.strictEqual(table.answer("a", pin, 19), undefined)
      assert.strictEqual(n(yield* found(table, "a", pin, 19)), 1)
      assert.strictEqual(table.answer("a", before, 20), undefined)
      assert.strictEqual(n(yield* found(table, "a", before, 20)), 1)
      assert.deepStrictEqual(table.answer("b", pin, undefined)?.value, undefined)
      assert.strictEqual(table.answer("b", pin, 29), undefined)
      assert.strictEqual(n(yield* found(table, "b", pin, 29)), 1)
      assert.deepStrictEqual(table.answer("c", pin, 5), { value: undefined, partition: undefined })
    })
  )

  it.effect("does not remember all deletions, and asks the store about keys that it may have forgotten", () =>
    Effect.gen(function* () {
      const topic = new Records()
      const store = memoryLookupStore()
      const table = new LookupTable(topic.log, people, store)
      yield* table.catchUp
      topic.put("a", 1, 10)
      yield* table.catchUp
      const before = table.pin
      topic.put("a", null, 20)
      for (let i = 0; i < 10_001; i++) topic.put(`other ${i}`, null, 20)
      yield* table.catchUp
      assert.strictEqual(table.answer("a", before, 15), undefined)
      assert.strictEqual(table.answer("a", table.pin, 15), undefined)
      assert.deepStrictEqual(table.answer("a", table.pin, 20), { value: undefined, partition: undefined })
      // a process that starts later has only what the topic has
      topic.partitions[0] = topic.partitions[0]!.map((): undefined => undefined)
      const later = new LookupTable(topic.log, people, store)
      yield* later.catchUp
      assert.strictEqual(later.answer("a", before, 15), undefined)
      assert.deepStrictEqual(yield* found(later, "a", before, 15), { partition: 0, value: { user: "a", n: 1 } })
      assert.deepStrictEqual(later.answer("a", later.pin, 20), { value: undefined, partition: undefined })
    })
  )

  it.effect("finds the newest value of a key that lies in several partitions by append time", () =>
    Effect.gen(function* () {
      const topic = new Records(3)
      const table = new LookupTable(topic.log, people)
      topic.put("a", 1, 10, 2)
      topic.put("a", 2, 20, 0)
      topic.put("a", 3, 15, 1)
      yield* table.catchUp
      assert.isTrue(table.isScattered)
      assert.strictEqual(table.answer("a", table.pin, undefined), undefined)
      assert.deepStrictEqual(yield* found(table, "a"), { partition: 0, value: { user: "a", n: 2 } })
      assert.deepStrictEqual(yield* found(table, "a", table.pin, 19), { partition: 1, value: { user: "a", n: 3 } })
    })
  )

  it.effect("begins again with a recreated topic, and still knows what the deleted one had", () =>
    Effect.gen(function* () {
      const topic = new Records()
      topic.identity = "first"
      topic.put("a", 1)
      topic.put("b", 1)
      const store = memoryLookupStore()
      const table = new LookupTable(topic.log, people, store)
      yield* table.catchUp
      const before = table.pin
      topic.identity = "second"
      topic.partitions[0] = []
      topic.put("a", 2)
      yield* table.catchUp
      assert.deepStrictEqual(table.pin, { generation: 2, positions: [1] })
      assert.deepStrictEqual([table.get("a"), table.get("b")], [{ user: "a", n: 2 }, undefined])
      assert.strictEqual(table.answer("b", before, undefined), undefined)
      assert.deepStrictEqual(yield* found(table, "b", before), { partition: 0, value: { user: "b", n: 1 } })
      assert.deepStrictEqual(yield* found(table, "b"), { value: undefined, partition: undefined })
    })
  )

  it.effect("goes on behind records that the topic deleted before they were stored", () =>
    Effect.gen(function* () {
      const topic = new Records()
      const store = memoryLookupStore()
      for (const n of [1, 2, 3]) topic.put("a", n, n)
      topic.start = 2
      const table = new LookupTable(topic.log, people, store)
      yield* table.catchUp
      assert.deepStrictEqual(yield* found(table, "a"), { partition: 0, value: { user: "a", n: 3 } })
      for (const n of [4, 5, 6]) topic.put("a", n, n)
      topic.start = 5
      yield* table.catchUp
      assert.deepStrictEqual(table.pin, { generation: 1, positions: [6] })
      assert.deepStrictEqual(yield* found(table, "a"), { partition: 0, value: { user: "a", n: 6 } })
    })
  )
})
