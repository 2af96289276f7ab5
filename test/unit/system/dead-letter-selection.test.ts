// Which dead letters a request selects, and which requests are refused.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { bulkSelectionOf, kindNames, selectionOf } from "../../../src/system/dead-letters/dead-letters.ts"
import { kinds } from "../../../src/system/dead-letters/kinds.ts"

const idsOfKinds = {
  projection: "17",
  subscription: "persistent://acme/alerts/alerts.v1.mails.dlq@1:12:0:-1.6b1f0c2d3e4f5a6b",
  relay: "relay:1",
  bridge: "orders.bridge-errors@6b1f0c2d3e4f5a6b"
} as const
const kindsOf = (request: object) =>
  Effect.map(selectionOf({ limit: 1, ...request }), ({ isAskedFor, kinds: selected }) => ({ selected, isAskedFor }))

it.effect("an id selects the kind that it looks like, and no id looks like two kinds", () =>
  Effect.gen(function* () {
    for (const kind of kindNames)
      assert.deepStrictEqual(
        [kind, kindNames.filter((other) => kinds[other].idPattern.test(idsOfKinds[kind]))],
        [kind, [kind]]
      )
    const some = { ids: [idsOfKinds.relay, idsOfKinds.bridge] }
    assert.deepStrictEqual(yield* kindsOf(some), { selected: ["relay", "bridge"], isAskedFor: true })
  })
)

it.effect("a filter that only some kinds have selects these kinds, and one that all have selects all", () =>
  Effect.gen(function* () {
    assert.deepStrictEqual(yield* kindsOf({}), { selected: kindNames, isAskedFor: false })
    assert.deepStrictEqual(yield* kindsOf({ key: "k" }), { selected: kindNames, isAskedFor: false })
    assert.deepStrictEqual(yield* kindsOf({ projection: "p" }), { selected: ["projection", "relay"], isAskedFor: true })
    assert.deepStrictEqual(yield* kindsOf({ projection: "p", build: 2 }), {
      selected: ["projection"],
      isAskedFor: true
    })
    assert.deepStrictEqual(yield* kindsOf({ target: "kafka" }), { selected: ["relay"], isAskedFor: true })
    assert.deepStrictEqual(yield* kindsOf({ rule: "r" }), { selected: ["bridge"], isAskedFor: true })
    assert.deepStrictEqual(yield* kindsOf({ rule: "r", subscription: "s" }), { selected: [], isAskedFor: true })
    assert.deepStrictEqual(yield* kindsOf({ kinds: ["relay", "bridge"], projection: "p" }), {
      selected: ["relay"],
      isAskedFor: true
    })
  })
)

it.effect("statuses are the open ones by default", () =>
  Effect.gen(function* () {
    const { filter } = yield* selectionOf({ limit: 5 })
    assert.deepStrictEqual([filter.statuses, filter.limit], [["parked", "skipped", "retrying"], 5])
  })
)

it.effect("a request that makes no sense is refused, with the field that is wrong", () =>
  Effect.gen(function* () {
    const refusals = [
      [{ limit: 0 }, "limit", "the limit is 0; it must be at least 1"],
      [{ kinds: ["relay", "queue"] }, "kinds", "'queue' is not a kind of dead letters"],
      [{ build: 2 }, "build", "build 2 of which projection? Each projection counts its own builds"],
      [{ statuses: ["lost"] }, "statuses", "'lost' is not a status of dead letters"],
      [{ ids: ["17", "x"] }, "ids", "'x' is not an id of a dead letter"]
    ] as const
    for (const [request, field, message] of refusals) {
      const error = yield* Effect.flip(selectionOf({ limit: 1, ...request }))
      assert.deepStrictEqual([error.field, error.message], [field, message])
    }
  })
)

it.effect("a retry or a discard of everything must be asked for in words", () =>
  Effect.gen(function* () {
    const decided = yield* Effect.flip(bulkSelectionOf({ all: true, statuses: ["parked", "discarded"], limit: 1 }))
    assert.deepStrictEqual(
      [decided.field, decided.message],
      ["statuses", "dead letters that are discarded are decided about: only open ones can be"]
    )
    const error = yield* Effect.flip(bulkSelectionOf({ all: false, ids: [], limit: 1 }))
    assert.deepStrictEqual([error.field, error.message], ["bulk", "which dead letters?"])
    for (const request of [{ all: true }, { all: false, key: "k" }, { all: false, ids: ["17"] }])
      assert.isAbove((yield* bulkSelectionOf({ limit: 1, ...request })).kinds.length, 0)
  })
)
