// Reads that fold a projection's rows from the event store.
import { Effect, Schema } from "effect"
import { expect, test } from "vitest"
import { Aggregate, EventStore, Projection, ReadModel } from "../../../src/index.ts"
import { MemoryEventStore } from "../../../src/testing/testing.ts"
import { Account, accounts, balances } from "../../support/accounts.ts"

const run = <A, E>(effect: Effect.Effect<A, E, EventStore>) =>
  Effect.runPromise(Effect.provide(effect, MemoryEventStore.layer))
const at = Date.UTC(2026, 0, 1)
const open = (id: string, owner: string) => Aggregate.execute(Account, id, { type: "open", account_id: id, at, owner })
const move = (id: string, amount: number) =>
  Aggregate.execute(Account, id, { type: "move", account_id: id, at, amount })
const own = Projection.make({
  name: "own",
  version: 1,
  source: Account,
  writes: [balances],
  handle: (event, out) =>
    out.modify(balances, { account_id: event.account_id }, (row) => ({
      account_id: event.account_id,
      owner: event.type === "account.opened" ? event.owner : (row?.owner ?? null),
      balance: (row?.balance ?? 0) + (event.type === "account.moved" ? event.amount : 0),
      moves: (row?.moves ?? 0) + 1
    }))
})

test("a stream's rows are those of its events alone", async () => {
  const rows = await run(
    Effect.gen(function* () {
      yield* open("a", "ann")
      yield* open("b", "ben")
      for (let i = 1; i <= 5; i++) yield* move("a", i)
      return yield* Projection.read(own, { stream: "a" })
    })
  )
  expect(rows).toEqual({ balances: [{ account_id: "a", owner: "ann", balance: 15, moves: 6 }] })
})
test("a stream without events has no rows", async () => {
  expect(await run(Projection.read(own, { stream: "a" }))).toEqual({ balances: [] })
})
test("a boundary's rows are those of the events with its tags, if their keys hold the text of a tag", async () => {
  const owners = ReadModel.table("owners", {
    columns: { owner: Schema.String, id: Schema.String },
    primaryKey: ["owner", "id"]
  })
  const byOwner = Projection.make({
    name: "by_owner",
    version: 1,
    source: Account,
    writes: [owners],
    handle: {
      "account.opened": ({ account_id, owner }, out) => out.upsert(owners, { owner, id: account_id })
    }
  })
  const read = (tags: ReadonlyArray<string>) =>
    Effect.gen(function* () {
      yield* append("a", "ann")
      yield* append("b", "ben")
      yield* append("c", "ann")
      return yield* Projection.read(byOwner, { tags })
    })
  expect(await run(read(["owner:ann"]))).toEqual({
    owners: [
      { owner: "ann", id: "a" },
      { owner: "ann", id: "c" }
    ]
  })
  await expect(run(read([]))).rejects.toThrow("no tags were given")
})
/** An opened account with its tag, as the event store keeps it. */
const append = (stream: string, owner: string) =>
  Effect.flatMap(EventStore, (store) =>
    store.append(
      {
        aggregate: "account",
        stream,
        expected: "any",
        events: [
          {
            type: "account.opened",
            value: JSON.stringify({ type: "account.opened", account_id: stream, at, owner }),
            eventId: undefined,
            eventTime: undefined,
            tenant: undefined,
            traceparent: undefined,
            schemaVersion: 1,
            headers: {},
            tags: [`owner:${owner}`]
          }
        ]
      },
      `open ${stream}`
    )
  )

test("rows that other streams' events change, too, are refused", async () => {
  const read = Effect.andThen(open("a", "ann"), Projection.read(accounts, { stream: "a" }))
  await expect(run(read)).rejects.toThrow(
    "projection accounts cannot be folded when it is read: no column of the key of account_total holds the stream's id in the row all, " +
      "so other events change it, too; run it with Projection.async or Projection.inline, and read its tables"
  )
})
test("an event that cannot be processed fails the read, whatever the failure policy says", async () => {
  const failing = Projection.make({
    name: "failing",
    version: 1,
    source: Account,
    writes: [balances],
    // oxlint-disable-next-line unicorn/no-thenable -- a word of failure policies
    failure: { then: "skip" },
    handle: {
      "account.moved": () => {
        throw new Error("no")
      }
    }
  })
  const read = Effect.gen(function* () {
    yield* open("a", "ann")
    yield* move("a", 1)
    return yield* Projection.read(failing, { stream: "a" })
  })
  await expect(run(read)).rejects.toThrow("projection failing fails for event 2 of a: Error: no")
})
