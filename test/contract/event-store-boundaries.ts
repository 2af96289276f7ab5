// The part of the event store's contract about appends to several streams at once and about boundaries of tags.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { EventStore } from "../../src/aggregate/event-store.ts"
import { append, appendOf, commandId, event, events, fresh, type It, numbers, readAll } from "./event-store-support.ts"

/** Appends to several streams, and boundaries. */
export const eventStoreBoundaries = (it: It) => {
  severalStreams(it)
  boundaries(it)
}
const severalStreams = (it: It) => {
  it.effect(
    "appends to several streams happen together or not at all",
    Effect.fnUntraced(function* () {
      const [from, to] = [yield* fresh(), yield* fresh(2)]
      const store = yield* EventStore
      const id = commandId()
      const both = (fromVersion: number) => [
        appendOf(from, "a", fromVersion, events(2)),
        appendOf(to, "b", "any", events(1)),
        appendOf(from, "c", "any", events(1))
      ]
      const first = yield* store.appendAll(both(0), id)
      assert.deepStrictEqual(
        first.map(({ repeated, version }) => [version, repeated]),
        [
          [2, false],
          [1, false],
          [1, false]
        ]
      )
      assert.deepStrictEqual(
        yield* store.appendAll(both(0), id),
        first.map((one) => Object.assign({ ...one }, { repeated: true }))
      )
      const error = yield* Effect.flip(store.appendAll(both(1), commandId()))
      assert.deepInclude(error, { _tag: "VersionConflict", aggregate: from, stream: "a", expected: 1, actual: 2 })
      assert.deepStrictEqual((yield* readAll(to, "b")).length, 1)
      assert.deepStrictEqual((yield* readAll(from, "c")).length, 1)
      assert.deepStrictEqual(
        [...(yield* readAll(from, "a")), ...(yield* readAll(to, "b")), ...(yield* readAll(from, "c"))].map(
          ({ eventId }) => eventId
        ),
        [0, 1, 2, 3].map((i) => `${id}/${i}`)
      )
      const twice = yield* Effect.flip(
        store.appendAll([appendOf(from, "a", "any"), appendOf(from, "a", "any")], commandId())
      )
      assert.match(twice.message, /named twice/)
      assert.deepStrictEqual(yield* store.appendAll([], commandId()), [])
    })
  )
}

const boundaries = (it: It) => {
  it.effect(
    "a boundary moves with every append that has one of its tags, and with no other",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const store = yield* EventStore
      const tagged = (stream: string, n: number, tags: ReadonlyArray<string>) =>
        append(aggregate, stream, "any", [event(n, { tags })])
      yield* tagged("a", 1, ["course:1", "student:1"])
      yield* tagged("b", 2, ["course:2"])
      yield* tagged("c", 3, ["course:1"])
      const { boundary, events: found } = yield* store.readBoundary(aggregate, { tags: ["course:1", "new"] })
      assert.deepStrictEqual(numbers(found), [1, 3])
      yield* tagged("b", 4, ["course:2", "student:1"])
      const next = yield* store.appendAll(
        [appendOf(aggregate, "a", "any", [event(5, { tags: ["course:1"] })])],
        commandId(),
        boundary
      )
      assert.strictEqual(next[0]!.version, 2)
      const id = commandId()
      const late = yield* Effect.flip(store.appendAll([appendOf(aggregate, "z", "any", [event(6)])], id, boundary))
      assert.strictEqual(late._tag, "BoundaryMoved")
      if (late._tag === "BoundaryMoved") {
        assert.deepStrictEqual(
          late.tags.map(({ aggregate: of, tag }) => [of, tag]),
          [[aggregate, "course:1"]]
        )
      }
      assert.deepStrictEqual(yield* readAll(aggregate, "z"), [])
      const again = yield* store.readBoundary(aggregate, { tags: ["course:1", "new"], types: ["counted"] })
      assert.deepStrictEqual(numbers(again.events), [1, 3, 5])
      assert.strictEqual(
        (yield* store.appendAll([appendOf(aggregate, "z", "any", [event(6)])], id, again.boundary))[0]!.version,
        1
      )
      // the same command again, though its boundary has moved
      yield* tagged("c", 7, ["new"])
      const repeated = yield* store.appendAll([appendOf(aggregate, "z", "any", [event(6)])], id, again.boundary)
      assert.isTrue(repeated[0]!.repeated)
      assert.deepStrictEqual(
        yield* store
          .readBoundary(aggregate, { tags: ["course:1"], types: ["other"] })
          .pipe(Effect.map((read) => read.events)),
        []
      )
    })
  )
  it.effect(
    "of appends within one boundary at once, one passes",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const store = yield* EventStore
      for (const tags of [["seats"], ["other seats", "seats"]]) {
        const { boundary } = yield* store.readBoundary(aggregate, { tags })
        const results = yield* Effect.all(
          Array.from({ length: 12 }, (_, i) =>
            Effect.result(
              store.appendAll(
                [appendOf(aggregate, `${tags.length} ${i}`, "noStream", [event(i, { tags: ["seats"] })])],
                commandId(),
                boundary
              )
            )
          ),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(results.filter(({ _tag }) => _tag === "Success").length, 1)
      }
    })
  )
  it.effect(
    "two that read one tag and write the other do not both pass",
    Effect.fnUntraced(function* () {
      const store = yield* EventStore
      for (let round = 0; round < 15; round++) {
        const aggregate = yield* fresh()
        const one = (reads: string, writes: string) =>
          Effect.flatMap(store.readBoundary(aggregate, { tags: [reads] }), ({ boundary }) =>
            Effect.result(
              store.appendAll(
                [appendOf(aggregate, writes, "any", [event(1, { tags: [writes] })])],
                commandId(),
                boundary
              )
            )
          )
        const [a, b] = yield* Effect.all([one("x", "y"), one("y", "x")], { concurrency: 2 })
        // both may be refused, and one may come after the other had been read
        if (a._tag === "Success" && b._tag === "Success") {
          const seen = yield* Effect.flip(
            store.appendAll([appendOf(aggregate, "z", "any")], commandId(), {
              tags: [{ aggregate, tag: "x", version: 0 }]
            })
          )
          assert.strictEqual(seen._tag, "BoundaryMoved")
        }
      }
    })
  )
}
