// The contract of the log on topics: declaring them, and topics that were never declared.
import { assert, type Vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Log, type TopicSpec, UnknownTopic } from "../../src/log/log.ts"
import { fresh, range, record } from "./log-support.ts"

let tries = 0
/** Adds the tests. */
export const logTopics = (it: Vitest.MethodsNonLive<Log>) => {
  it.effect("an undeclared topic, and a partition beyond the last, fail with `UnknownTopic`", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh(2)
      const unknown = [
        log.append("nowhere", [record()]),
        log.bounds("nowhere"),
        log.read("nowhere", 0, 0),
        Effect.scoped(log.open("nowhere", 0, 0)),
        log.assign("nowhere", "group", () => Effect.void),
        log.append(topic, [record(), record({ partition: 2 })]),
        log.append(topic, [record({ partition: -1 })]),
        log.append(topic, [record({ partition: 0.5 })]),
        log.read(topic, 2, 0),
        Effect.scoped(log.open(topic, 2, 0))
      ]
      for (const attempt of unknown)
        assert.instanceOf(yield* Effect.flip(attempt as Effect.Effect<unknown, unknown>), UnknownTopic)
      assert.deepStrictEqual(yield* log.bounds(topic), [
        { partition: 0, start: 0, end: 0 },
        { partition: 1, start: 0, end: 0 }
      ])
    })
  )

  it.effect("the bounds of every partition include everything that was appended before", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh(3)
      for (const i of range(1, 6)) {
        yield* log.append(topic, [record({ partition: 2 }), record({ partition: 0 }), record({ partition: 2 })])
        assert.deepStrictEqual(yield* log.bounds(topic), [
          { partition: 0, start: 0, end: i },
          { partition: 1, start: 0, end: 0 },
          { partition: 2, start: 0, end: 2 * i }
        ])
      }
    })
  )

  it.effect("topics have different identities, and a topic keeps its own", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const [one, other] = [yield* fresh(2), yield* fresh(1)]
      const identity = yield* log.identity(one)
      assert.isString(identity)
      assert.notStrictEqual(yield* log.identity(other), identity)
      yield* log.append(one, [record()])
      yield* log.declare([{ name: one, partitions: 2, compacted: false, retentionMs: 1e9 }])
      assert.strictEqual(yield* log.identity(one), identity)
      assert.instanceOf(yield* Effect.flip(log.identity("nowhere")), UnknownTopic)
    })
  )

  it.effect("a topic is created once, however often and concurrently it is declared", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const spec = {
        name: `many-${process.pid}-${tries++}`,
        partitions: 3,
        compacted: false,
        retentionMs: undefined
      }
      yield* Effect.forEach(range(0, 10), () => log.declare([spec, { ...spec, name: `${spec.name}-b` }]), {
        concurrency: "unbounded"
      })
      yield* log.append(spec.name, [record({ partition: 1 })])
      yield* log.declare([{ ...spec, retentionMs: 1e9 }])
      assert.deepStrictEqual(
        (yield* log.bounds(spec.name)).map(({ end }) => end),
        [0, 1, 0]
      )
    })
  )

  it.effect("another number of partitions, another cleanup policy and invalid values are refused with the remedy", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const name = yield* fresh(2)
      const spec = { name, partitions: 2, compacted: false, retentionMs: undefined }
      const refused: ReadonlyArray<readonly [TopicSpec, RegExp]> = [
        [{ ...spec, partitions: 3 }, /declare 2, or give the new topic another name/],
        [
          { ...spec, compacted: true },
          /the topic is not compacted but is declared as compacted; give the new topic another name/
        ],
        [{ ...spec, name: `${name}x`, partitions: 0 }, /partitions is 0/],
        [{ ...spec, name: `${name}x`, retentionMs: -1 }, /retention is -1/],
        [{ ...spec, name: "" }, /the topic has no name; give it one/]
      ]
      for (const [wrong, reason] of refused) {
        const error = yield* Effect.flip(log.declare([wrong]))
        assert.isFalse(error.retryable)
        assert.match(error.message, reason)
      }
      assert.strictEqual((yield* log.bounds(name)).length, 2)
      assert.instanceOf(yield* Effect.flip(log.bounds(`${name}x`)), UnknownTopic)
    })
  )
}
