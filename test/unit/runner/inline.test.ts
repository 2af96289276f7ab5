// Inline projections of the event store in memory: rows with the events, or neither.
import { Effect, Schema } from "effect"
import { expect, test } from "vitest"
import { Aggregate, type EventStore, Projection, ReadModel } from "../../../src/index.ts"
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
test("rows that one of several projections cannot store leave those of the others as they were, and the command can be sent again", async () => {
  const numbers = ReadModel.table("numbers", {
    columns: { account_id: Schema.String, n: Schema.Int },
    primaryKey: ["account_id"]
  })
  const narrow = Projection.make({
    name: "narrow",
    version: 1,
    source: Account,
    writes: [numbers],
    handle: (event, out) =>
      out.upsert(numbers, {
        account_id: event.account_id,
        n: event.type === "account.moved" ? event.amount * 2 ** 40 : 0
      })
  })
  const { layer, rows } = MemoryEventStore.layerInline([accounts, narrow])
  const error = await Effect.runPromise(
    Effect.gen(function* () {
      yield* open("a")
      const refused = yield* Effect.flip(move("a", 2 ** 40))
      yield* move("a", 2)
      return refused
    }).pipe(Effect.provide(layer))
  )
  expect(error).toMatchObject({ _tag: "InlineFailed", projection: "narrow" })
  expect(rows("balances")).toEqual([{ account_id: "a", owner: "ann", balance: 2, moves: 2 }])
  expect(rows("account_total")).toEqual([{ kind: "all", events: 2, moved: 2 }])
  expect(rows("numbers")).toEqual([{ account_id: "a", n: 2 ** 41 }])
})
