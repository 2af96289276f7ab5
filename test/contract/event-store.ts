// The contract of the event store: one suite, which every adapter of the port passes.
import { assert, it as vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { EventStore } from "../../src/aggregate/event-store.ts"
import type { Log } from "../../src/log/log.ts"
import { partitionOf } from "../../src/model/partitioner.ts"
import { eventStoreBoundaries } from "./event-store-boundaries.ts"
import { eventStoreListing } from "./event-store-listing.ts"
import { eventStoreModel } from "./event-store-model.ts"
import { eventStoreRepeating } from "./event-store-repeating.ts"
import {
  append,
  appendOf,
  commandId,
  event,
  events,
  fresh,
  type It,
  numbers,
  readAll,
  topicOf
} from "./event-store-support.ts"

const live = { timeout: "120 seconds", excludeTestServices: true } as const

/** Runs the suite for an adapter; `Log` must have the topics of its aggregates. */
export const eventStoreContract = <E>(name: string, layer: Layer.Layer<EventStore | Log, E>) =>
  vitest.layer(layer, live)(`EventStore (${name})`, (it) => {
    appending(it as It)
    eventStoreRepeating(it as It)
    reading(it as It)
    eventStoreBoundaries(it as It)
    closing(it as It)
    eventStoreListing(it as It)
    eventStoreModel(it as It)
  })

const appending = (it: It) => {
  it.effect(
    "versions count from 1 in a stream, and positions from 0 in a partition",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh(1)
      const first = yield* append(aggregate, "a", "noStream", events(2))
      const other = yield* append(aggregate, "b", "any", events(1))
      const second = yield* append(aggregate, "a", 2, events(3, 3))
      assert.deepStrictEqual(first, { firstVersion: 1, version: 2, partition: 0, position: 0, repeated: false })
      assert.deepStrictEqual(other, { firstVersion: 1, version: 1, partition: 0, position: 2, repeated: false })
      assert.deepStrictEqual(second, { firstVersion: 3, version: 5, partition: 0, position: 3, repeated: false })
      assert.deepStrictEqual(numbers(yield* readAll(aggregate, "a")), [1, 2, 3, 4, 5])
    })
  )
  it.effect(
    "each expectation is checked, and a conflict says the version that the stream has",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const refused = (stream: string, expected: Parameters<typeof append>[2], actual: number) =>
        Effect.map(Effect.flip(append(aggregate, stream, expected)), (error) => {
          assert.strictEqual(error._tag, "VersionConflict")
          if (error._tag === "VersionConflict") assert.deepInclude(error, { aggregate, stream, expected, actual })
        })
      yield* refused("a", "exists", 0)
      yield* refused("a", 1, 0)
      yield* append(aggregate, "a", 0)
      yield* refused("a", "noStream", 1)
      yield* refused("a", 0, 1)
      yield* refused("a", 2, 1)
      yield* append(aggregate, "a", "exists")
      yield* append(aggregate, "a", "any")
      yield* refused("a", 1, 3)
      assert.deepStrictEqual(
        (yield* readAll(aggregate, "a")).map(({ version }) => version),
        [1, 2, 3]
      )
      // a refusal leaves nothing behind that counts as a stream
      assert.strictEqual((yield* append(aggregate, "b", "noStream")).version, 1)
    })
  )
  it.effect(
    "an event keeps its envelope, and gets an id of the command's; its record has its version and the command's id",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const store = yield* EventStore
      const id = commandId()
      const envelope = {
        tenant: "acme",
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        schemaVersion: 3,
        headers: { "millrace-correlation": "x", odd: '\u0001"\\' },
        tags: ["course:1", "ü"]
      }
      const { partition, position } = yield* store.append(
        appendOf(aggregate, "stream ü 1", "any", [event(1, envelope), event(2, { eventId: "mine", type: "other" })]),
        id
      )
      assert.strictEqual(partition, partitionOf("stream ü 1", 4))
      const [first, second] = yield* readAll(aggregate, "stream ü 1")
      const { appendedAt, ...others } = first!
      assert.closeTo(appendedAt, Date.now(), 60_000)
      assert.deepStrictEqual(others, {
        aggregate,
        stream: "stream ü 1",
        version: 1,
        partition,
        position,
        type: "counted",
        value: '{"type":"counted","n":1}',
        eventTime: 1_357_000_000_001,
        eventId: `${id}/0`,
        ...envelope,
        headers: { ...envelope.headers, "millrace-command": id }
      })
      assert.deepInclude(second!, { version: 2, position: position + 1, type: "other", eventId: "mine", tags: [] })
      const record = (yield* topicOf(aggregate))[partition]![0]!
      assert.deepInclude(record, { key: "stream ü 1", value: first!.value, eventId: `${id}/0`, tenant: "acme" })
      assert.deepStrictEqual(record.headers, {
        ...envelope.headers,
        "millrace-command": id,
        "millrace-tags": '["course:1","ü"]',
        "millrace-version": "1"
      })
    })
  )
  it.effect(
    "an event without a time has the time of the append",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      yield* append(aggregate, "a", "any", [event(1, { eventTime: undefined })])
      const [one] = yield* readAll(aggregate, "a")
      assert.closeTo(one!.eventTime, Date.now(), 60_000)
    })
  )
  it.effect(
    "appends of one stream made at once keep their order, and chains pass",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const one = (expected: Parameters<typeof append>[2], n: number) =>
        append(aggregate, "a", expected, events(2, n * 2 + 1))
      const first = yield* Effect.all(
        Array.from({ length: 50 }, (_, n) => one(n * 2, n)),
        { concurrency: "unbounded" }
      )
      const second = yield* Effect.all(
        Array.from({ length: 50 }, (_, n) => one("any", n + 50)),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        [...first, ...second].map(({ version }) => version),
        Array.from({ length: 100 }, (_, i) => (i + 1) * 2)
      )
      assert.deepStrictEqual(
        numbers(yield* readAll(aggregate, "a")),
        Array.from({ length: 200 }, (_, i) => i + 1)
      )
    })
  )
  it.effect(
    "appends of one stream with different expectations keep their order",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const expected = ["any", 1, "any", 3, "exists"] as const
      const appended = yield* Effect.all(
        expected.map((one, n) => append(aggregate, "a", one, events(1, n))),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        appended.map(({ version }) => version),
        [1, 2, 3, 4, 5]
      )
    })
  )
  it.effect(
    "a refused command does not take those with it that expect what the stream has",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      yield* append(aggregate, "a", 0)
      const results = yield* Effect.all(
        [0, 1, 2, 9].map((expected) => Effect.result(append(aggregate, "a", expected, events(1, expected + 1)))),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        results.map((result) => (result._tag === "Success" ? result.success.version : result.failure._tag)),
        ["VersionConflict", 2, 3, "VersionConflict"]
      )
      assert.deepStrictEqual(numbers(yield* readAll(aggregate, "a")), [1, 2, 3])
    })
  )
  it.effect(
    "one refusal does not disturb the appends beside it",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh(1)
      const results = yield* Effect.all(
        Array.from({ length: 30 }, (_, i) => Effect.result(append(aggregate, `s${i}`, i % 3 === 0 ? 5 : "any"))),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        results.map(({ _tag }) => _tag),
        results.map((_, i) => (i % 3 === 0 ? "Failure" : "Success"))
      )
      const [records] = yield* topicOf(aggregate)
      assert.deepStrictEqual(
        records!.map(({ position }) => position),
        Array.from({ length: 20 }, (_, i) => i)
      )
    })
  )
  it.effect(
    "what cannot be stored is refused with a reason",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const store = yield* EventStore
      for (const stream of ["", "x".repeat(1_001), "a\0b", "\ud800"]) {
        const error = yield* Effect.flip(append(aggregate, stream, "any"))
        assert.strictEqual(error._tag, "InvalidStream", JSON.stringify(stream).slice(0, 20))
        assert.strictEqual((yield* Effect.flip(store.load(aggregate, stream)))._tag, "InvalidStream")
      }
      assert.strictEqual((yield* append(aggregate, "x".repeat(1_000), "any")).version, 1)
      for (const id of ["", "x".repeat(201), "a\0b", "\udc00"]) {
        const error = yield* Effect.flip(store.append(appendOf(aggregate, "a", "any"), id))
        assert.strictEqual(error._tag, "InvalidCommandId", JSON.stringify(id).slice(0, 20))
      }
      const bad = [
        [],
        [event(1, { value: "no JSON" })],
        [event(1, { eventTime: Number.NaN })],
        [event(1, { tags: ["a\0"] })]
      ]
      for (const list of bad) {
        const error = yield* Effect.flip(append(aggregate, "a", "any", list))
        assert.isTrue(error._tag === "EventStoreError" && !error.retryable, error.message)
      }
      for (const expected of [-1, 1.5, Number.NaN]) {
        const error = yield* Effect.flip(append(aggregate, "a", expected))
        assert.isTrue(error._tag === "EventStoreError" && !error.retryable, error.message)
      }
      const large = JSON.stringify({ type: "counted", text: "x".repeat(16 << 20) })
      for (const [list, reason] of [
        [events(10_001), /there are 10,001 events; one append takes 10,000 at most/],
        [[event(1, { type: "counted", value: large })], /16,777,\d+ characters of JSON; one append takes 16,777,216 at/]
      ] as const) {
        const error = yield* Effect.flip(append(aggregate, "a", "any", list))
        assert.strictEqual(error._tag, "AppendTooLarge")
        assert.match(error.message, reason)
      }
      assert.deepStrictEqual(yield* readAll(aggregate, "a"), [])
    })
  )
  it.effect(
    "an aggregate keeps its number of partitions",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh(4)
      const store = yield* EventStore
      yield* store.declare([{ name: aggregate, partitions: 4 }])
      const error = yield* Effect.flip(store.declare([{ name: aggregate, partitions: 8 }]))
      assert.match(error.message, /4 partitions but is declared with 8/)
    })
  )
}

const reading = (it: It) => {
  it.effect(
    "a load returns the snapshot of its shape and the events after it",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const store = yield* EventStore
      assert.deepStrictEqual(yield* store.load(aggregate, "none", { shape: "s1", commandId: "x" }), {
        version: 0,
        events: []
      })
      yield* append(aggregate, "a", "any", events(4))
      yield* append(aggregate, "a", "any", events(4, 5))
      const snapshot = (shape: string, version: number) =>
        store.saveSnapshot(aggregate, "a", { shape, version, state: `{"at":${version}}`, subjects: ["p"] })
      yield* snapshot("s1", 4)
      yield* snapshot("s2", 6)
      const load = (options: Parameters<typeof store.load>[2]) =>
        Effect.map(store.load(aggregate, "a", options), (page) => [page.snapshot?.version, numbers(page.events)])
      assert.deepStrictEqual(yield* load({}), [undefined, [1, 2, 3, 4, 5, 6, 7, 8]])
      assert.deepStrictEqual(yield* load({ shape: "s1" }), [4, [5, 6, 7, 8]])
      assert.deepStrictEqual(yield* load({ shape: "s2" }), [6, [7, 8]])
      assert.deepStrictEqual(yield* load({ shape: "s3" }), [undefined, [1, 2, 3, 4, 5, 6, 7, 8]])
      assert.deepStrictEqual(yield* load({ shape: "s2", upTo: 5 }), [undefined, [1, 2, 3, 4, 5]])
      assert.deepStrictEqual(yield* load({ shape: "s1", upTo: 5 }), [4, [5]])
      assert.deepStrictEqual(yield* load({ shape: "s1", from: 3, limit: 3 }), [undefined, [3, 4, 5]])
      // an older snapshot does not replace a newer one
      yield* snapshot("s2", 2)
      assert.deepStrictEqual(yield* load({ shape: "s2" }), [6, [7, 8]])
      yield* snapshot("s1", 8)
      const page = yield* store.load(aggregate, "a", { shape: "s1" })
      assert.deepStrictEqual(page, { snapshot: { version: 8, state: '{"at":8}' }, version: 8, events: [] })
    })
  )
  it.effect(
    "long streams are read in pages, forwards, backwards and from any version",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const store = yield* EventStore
      const total = 5_003
      for (let from = 1; from <= total; from += 613)
        yield* append(aggregate, "a", from - 1, events(Math.min(613, total - from + 1), from))
      const all = Array.from({ length: total }, (_, i) => i + 1)
      const read = (options: Parameters<typeof store.read>[2]) =>
        Effect.map(Stream.runCollect(store.read(aggregate, "a", options)), (list) => numbers(list))
      assert.deepStrictEqual(yield* read({}), all)
      assert.deepStrictEqual(yield* read({ backwards: true }), all.toReversed())
      assert.deepStrictEqual(yield* read({ from: 700, limit: 2_500 }), all.slice(699, 3_199))
      assert.deepStrictEqual(yield* read({ from: 700, backwards: true }), all.slice(0, 700).toReversed())
      assert.deepStrictEqual(yield* read({ limit: 5, backwards: true }), all.slice(-5).toReversed())
      assert.deepStrictEqual(yield* read({ from: total + 1 }), [])
      const page = yield* store.load(aggregate, "a", { limit: 10 })
      assert.deepStrictEqual([numbers(page.events), page.version], [all.slice(0, 10), total])
    })
  )
}

const closing = (it: It) => {
  it.effect(
    "an archived stream takes no more events and can be read",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const store = yield* EventStore
      yield* append(aggregate, "a", "any", events(3))
      yield* store.archive(aggregate, "a")
      yield* store.archive(aggregate, "a")
      for (const expected of ["any", "exists", 3] as const) {
        const error = yield* Effect.flip(append(aggregate, "a", expected))
        assert.deepInclude(error, { _tag: "StreamClosed", aggregate, stream: "a", reason: "archived" })
      }
      const error = yield* Effect.flip(
        store.appendAll([appendOf(aggregate, "b", "any"), appendOf(aggregate, "a", "any")], commandId())
      )
      assert.strictEqual(error._tag, "StreamClosed")
      assert.deepStrictEqual(yield* readAll(aggregate, "b"), [])
      const page = yield* store.load(aggregate, "a")
      assert.deepStrictEqual([page.closed, page.version, numbers(page.events)], ["archived", 3, [1, 2, 3]])
      yield* store.archive(aggregate, "new")
      assert.strictEqual((yield* Effect.flip(append(aggregate, "new", "any")))._tag, "StreamClosed")
    })
  )
}
