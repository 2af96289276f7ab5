// The contract of the event store: which streams an aggregate has.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { EventStore, type ListOptions } from "../../src/aggregate/event-store.ts"
import { append, events, fresh, type It } from "./event-store-support.ts"

/** The part of the suite about `list`. */
export const eventStoreListing = (it: It) => {
  it.effect(
    "streams are listed by their ids in pages, by a prefix, by tenant and by their last append, with their versions",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const store = yield* EventStore
      const list = (options: Partial<ListOptions> = {}) =>
        store.list(aggregate, { order: "id", limit: 100, ...options })
      const ids = (options: Partial<ListOptions>) =>
        Effect.map(list(options), ({ next, streams }) => [streams.map(({ id }) => id).join(" "), next])
      assert.deepStrictEqual(yield* list(), { streams: [], next: undefined })
      const of = (tenant: string) => events(1, 1, { tenant })
      // a capital letter and one beyond the basic plane: the order is that of bytes, in every locale
      for (const id of ["b", "a-2", "B", "a-1", "\u{10000}", "\uffee"]) yield* append(aggregate, id, "any", of("acme"))
      yield* append(aggregate, "a-3", "any", of("globex"))
      yield* append(aggregate, "a-1", 1, of("globex"))
      yield* store.archive(aggregate, "b")
      // a stream without events is not listed
      yield* store.archive(aggregate, "empty")
      assert.deepStrictEqual(yield* ids({}), ["B a-1 a-2 a-3 b \uffee \u{10000}", undefined])
      assert.deepStrictEqual(yield* ids({ limit: 2 }), ["B a-1", "a-1"])
      assert.deepStrictEqual(yield* ids({ limit: 2, after: "a-1" }), ["a-2 a-3", "a-3"])
      assert.deepStrictEqual(yield* ids({ limit: 7 }), ["B a-1 a-2 a-3 b \uffee \u{10000}", undefined])
      assert.deepStrictEqual(yield* ids({ prefix: "a-", limit: 2, after: "a-2" }), ["a-3", undefined])
      assert.deepStrictEqual(yield* ids({ prefix: "none" }), ["", undefined])
      assert.deepStrictEqual(yield* ids({ tenant: "globex" }), ["a-3", undefined])
      assert.deepStrictEqual(yield* ids({ tenant: "acme", prefix: "a", limit: 1 }), ["a-1", "a-1"])
      assert.deepStrictEqual(yield* ids({ order: "recent", limit: 2 }), ["a-1 a-3", undefined])
      assert.deepStrictEqual(yield* ids({ order: "recent", tenant: "globex" }), ["a-3", undefined])
      assert.deepStrictEqual(yield* ids({ order: "recent", prefix: "b" }), ["b", undefined])
      const [one, ...others] = (yield* list({ prefix: "a-1" })).streams
      assert.deepStrictEqual([one?.version, one?.tenant, others], [2, "acme", []])
      const [last] = (yield* store.load(aggregate, "a-1", { from: 2 })).events
      assert.strictEqual(one?.appendedAt, last?.appendedAt)
      assert.strictEqual((yield* list({ prefix: "b" })).streams[0]?.closed, "archived")
    })
  )
}
