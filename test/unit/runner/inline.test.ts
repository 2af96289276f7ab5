// Inline projections of the event store in memory: rows with the events, or neither.
import { Effect, Schema } from "effect"
import { expect, test } from "vitest"
import { Agg, Aggregate, type EventStore, Projection, Window } from "../../../src/index.ts"
import { MemoryEventStore } from "../../../src/testing/testing.ts"
import { Account, accounts } from "../../support/accounts.ts"

const at = Date.UTC(2026, 0, 1)
const open = (id: string) => Aggregate.execute(Account, id, { type: "open", account_id: id, at, owner: "ann" })
const move = (id: string, amount: number) =>
  Aggregate.execute(Account, id, { type: "move", account_id: id, at, amount })
const started = (projection: typeof accounts) => {
  const { layer, rows } = MemoryEventStore.layerInline([projection])
  return {
    rows,
    run: <A, E>(effect: Effect.Effect<A, E, EventStore>) => Effect.runPromise(Effect.provide(effect, layer))
  }
}

test("appends write rows of tables and windows, from the rows before them", async () => {
  const { rows, run } = started(accounts)
  await run(
    Effect.gen(function* () {
      yield* open("a")
      yield* open("b")
      yield* Effect.all([move("a", 1), move("a", 2), move("b", 3)], { concurrency: "unbounded" })
    })
  )
  expect(rows("balances")).toEqual([
    { account_id: "a", owner: "ann", balance: 3, moves: 3 },
    { account_id: "b", owner: "ann", balance: 3, moves: 2 }
  ])
  expect(rows("account_total")).toEqual([{ kind: "all", events: 5, moved: 6 }])
  expect(() => rows("other")).toThrow("no inline projection writes other; list the projection that does")
})
test.each<readonly [string, (event: { readonly amount?: number }, out: never, context: never) => void, RegExp]>([
  [
    "throws",
    () => {
      throw new Error("unlucky")
    },
    /fails for the events: unlucky$/
  ],
  ["returns an Effect", () => Effect.void as never, /returned an Effect, which an append does not run/],
  [
    "reads its position",
    (_, __, context) => void (context as { meta: { position: number } }).meta.position,
    /meta\.position is not known/
  ]
])("a handler that %s fails the command, and neither rows nor events are stored", async (_, fails, reason) => {
  const { rows, run } = started({
    ...accounts,
    handle: (event: { readonly amount?: number }, out: never, context: never) =>
      event.amount === undefined ? accounts.handle(event as never, out, context) : fails(event, out, context)
  } as unknown as typeof accounts)
  const result = await run(
    Effect.gen(function* () {
      yield* open("a")
      const error = yield* Effect.flip(move("a", 1))
      return { error, loaded: yield* Aggregate.load(Account, "a") }
    })
  )
  expect(result.error).toMatchObject({ _tag: "InlineFailed", projection: "accounts" })
  expect((result.error as Error).message).toMatch(reason)
  expect(result.loaded.version).toBe(1)
  expect(rows("balances")).toEqual([{ account_id: "a", owner: "ann", balance: 0, moves: 1 }])
})
test("rows that one of several projections cannot store leave those of the others as they were", async () => {
  const heat = Window.global("heat", { key: { account_id: Schema.String }, aggregate: { heat: Agg.sum } })
  const overflowing = Projection.make({
    name: "overflowing",
    version: 1,
    source: Account,
    writes: [heat],
    handle: (event, out) =>
      out.add(heat, { account_id: event.account_id, heat: event.type === "account.moved" ? event.amount * 1e308 : 0 })
  })
  const { layer, rows } = MemoryEventStore.layerInline([accounts, overflowing])
  const error = await Effect.runPromise(
    Effect.gen(function* () {
      yield* open("a")
      yield* move("a", 1)
      const refused = yield* Effect.flip(move("a", 1))
      yield* move("a", -1)
      return refused
    }).pipe(Effect.provide(layer))
  )
  expect(error).toMatchObject({ _tag: "InlineFailed", projection: "overflowing" })
  expect((error as Error).message).toContain("overflow of column heat")
  expect(rows("balances")).toEqual([{ account_id: "a", owner: "ann", balance: 0, moves: 3 }])
  expect(rows("account_total")).toEqual([{ kind: "all", events: 3, moved: 0 }])
  expect(rows("heat")).toEqual([{ account_id: "a", heat: 0 }])
})
