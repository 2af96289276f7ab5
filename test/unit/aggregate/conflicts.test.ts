// Commands that meet others: appends of other processes, expected versions, and commands that come again.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { describe, expect, test } from "vitest"
import {
  Aggregate,
  CommandReused,
  type EventStore,
  StreamBusy,
  StreamClosed,
  VersionConflict
} from "../../../src/index.ts"
import { isRepeatedRejection } from "../../../src/aggregate/command.ts"
import { waitingForNoTime } from "../../../src/runner/in-memory.ts"
import {
  all,
  deposit,
  eventsOf,
  execute,
  failsWith,
  memoryStore,
  other,
  Poor,
  TooLate,
  Wallet,
  withdraw,
  Withdrawn,
  withStore
} from "../../support/wallet.ts"

describe("an append of another process", () => {
  test("makes the rest of a chain be decided again on the new state", async () => {
    const store = memoryStore()
    await withStore(store)(execute(deposit(5)))
    await Effect.runPromise(other(store, "w", 100))
    const results = await withStore(store)(all([execute(withdraw(1)), execute(withdraw(50)), execute(withdraw(50))]))
    expect(results.map((result) => (result._tag === "Success" ? result.success.version : result.failure))).toEqual([
      3, 4, 5
    ])
    expect(await withStore(store)(Aggregate.load(Wallet, "w"))).toMatchObject({ state: { cents: 4 } })
  })
  test("of as many events as a refused command had does not let the next one pass unseen", async () => {
    const store = memoryStore()
    await withStore(store)(execute(deposit(5)))
    // the first one is decided on 5 cents and refused; the second one expects the version that the other process made
    await Effect.runPromise(other(store, "w", -5))
    const results = await withStore(store)(all([execute(deposit(10)), execute(withdraw(12))]))
    expect(results.map(({ _tag }) => _tag)).toEqual(["Success", "Failure"])
    expect(await withStore(store)(Aggregate.load(Wallet, "w"))).toMatchObject({ state: { cents: 10 } })
  })
  test("of as many events as a repeated command had does not let the next one pass unseen", async () => {
    const store = memoryStore()
    await withStore(store)(execute(deposit(5), { commandId: "first" }))
    await Effect.runPromise(other(store, "w", -5))
    const results = await withStore(store)(all([execute(deposit(5), { commandId: "first" }), execute(withdraw(10))]))
    expect(results).toMatchObject([
      { success: { repeated: true, version: 1 } },
      { failure: { _tag: "Poor", cents: 0 } }
    ])
  })
  test("makes a rejection be decided again, because nothing else would notice that the state is old", async () => {
    const store = memoryStore()
    await withStore(store)(execute(deposit(5)))
    await Effect.runPromise(other(store, "w", 100))
    expect(await withStore(store)(execute(withdraw(100)))).toMatchObject({ version: 3 })
  })
  test("before each try makes the command fail with `StreamBusy` in the end", async () => {
    const store = memoryStore((inner) => ({
      append: (append, id) => Effect.andThen(other(inner), inner.append(append, id)) as never
    }))
    const clock = waitingForNoTime(Effect.runSync(Clock.clockWith(Effect.succeed)))
    const error = await failsWith(store)(Effect.provideService(execute(deposit(1)), Clock.Clock, clock))
    expect(error).toBeInstanceOf(StreamBusy)
    expect((error as Error).message).toBe(
      'wallet "w" is busy: others appended to it in each of 20 tries; send the command again later'
    )
    expect(store.calls.filter((call) => call === "append")).toHaveLength(20)
  })
})

describe("an expected version", () => {
  test("that the stream has lets the command pass", async () => {
    const run = withStore(memoryStore())
    expect(await run(execute(deposit(1), { expected: "noStream" }))).toMatchObject({ version: 1 })
    expect(await run(execute(deposit(1), { expected: 1 }))).toMatchObject({ version: 2 })
    expect(await run(execute(deposit(1), { expected: "exists" }))).toMatchObject({ version: 3 })
  })
  test.each([5, 0, "noStream"] as const)(
    "%s that the stream does not have fails with the actual one",
    async (expected) => {
      const store = memoryStore()
      await withStore(store)(execute(deposit(1)))
      await Effect.runPromise(other(store))
      const conflict = { aggregate: "wallet", stream: "w", expected, actual: 2 }
      expect(await failsWith(store)(execute(deposit(1), { expected }))).toEqual(new VersionConflict(conflict))
    }
  )
  test("of a stream that does not exist fails", async () => {
    const error = await failsWith(memoryStore())(execute(deposit(1), { expected: "exists" }))
    expect(error).toEqual(new VersionConflict({ aggregate: "wallet", stream: "w", expected: "exists", actual: 0 }))
  })
  test("is not tried again when another process appends between", async () => {
    const store = memoryStore((inner) => ({
      append: (append, id) => Effect.andThen(other(inner), inner.append(append, id)) as never
    }))
    const error = await failsWith(store)(execute(deposit(1), { expected: 0 }))
    expect(error).toEqual(new VersionConflict({ aggregate: "wallet", stream: "w", expected: 0, actual: 1 }))
    expect(store.calls).toEqual(["load", "append"])
  })
  test("holds for one of several commands at once", async () => {
    const store = memoryStore()
    const results = await withStore(store)(
      all(Array.from({ length: 20 }, () => execute(deposit(1), { expected: "noStream" })))
    )
    expect(results.filter(({ _tag }) => _tag === "Success")).toHaveLength(1)
    expect(results[7]).toMatchObject({ failure: { _tag: "VersionConflict", actual: 1 } })
  })
})

describe("a command id", () => {
  const commandId = "request 1"
  test("that comes again gets the first answer, and nothing is appended", async () => {
    const store = memoryStore()
    const run = withStore(store)
    const first = await run(execute(deposit(5), { commandId }))
    await run(execute(deposit(7)))
    const again = { ...first, repeated: true }
    expect(await run(execute({ cents: 5, at: 1, type: "deposit", wallet: "w" }, { commandId }))).toEqual(again)
    // also in another process, which has no state, and with an expectation that held then
    expect(await withStore({ ...store })(execute(deposit(5), { commandId, expected: 0 }))).toEqual(again)
    expect(await eventsOf(store)).toHaveLength(2)
  })
  test("of another command fails with `CommandReused`", async () => {
    const store = memoryStore()
    await withStore(store)(execute(deposit(5), { commandId }))
    for (const command of [deposit(6), { type: "empty", at: 1 }, withdraw(50)] as const)
      expect(await failsWith(store)(execute(command, { commandId }))).toEqual(new CommandReused({ commandId }))
    expect(await withStore(store)(Aggregate.execute(Wallet, "v", deposit(6), { commandId }))).toMatchObject({
      version: 1
    })
  })
  test("of a command that decided nothing keeps deciding nothing", async () => {
    const store = memoryStore()
    const run = withStore(store)
    const empty = { type: "empty", at: 1 } as const
    const first = await run(execute(empty, { commandId }))
    await run(execute(deposit(5)))
    expect(await run(execute(empty, { commandId }))).toEqual({ ...first, repeated: true })
    expect(await withStore({ ...store })(execute(empty, { commandId }))).toEqual({ ...first, repeated: true })
    expect(await run(execute(empty, { commandId: "request 2" }))).toMatchObject({ version: 2, repeated: false })
  })
  test("of a rejected command keeps being rejected, with the tag, the fields and the message", async () => {
    const store = memoryStore()
    const first = (await failsWith(store)(execute(withdraw(5), { commandId }))) as Poor
    await withStore(store)(execute(deposit(5)))
    const again = (await failsWith(store)(execute(withdraw(5), { commandId }))) as Poor
    expect({ ...again, _tag: again._tag, message: again.message }).toEqual({
      _tag: "Poor",
      wallet: "w",
      cents: 0,
      message: first.message
    })
    const caught = execute(withdraw(5), { commandId }).pipe(
      Effect.catchTag("Poor" as never, ({ cents }: Poor) => Effect.succeed(cents))
    )
    expect(await withStore(store)(caught as Effect.Effect<unknown, never, EventStore>)).toBe(0)
    expect(await eventsOf(store)).toHaveLength(1)
  })
  test("of a rejected command keeps being rejected, with an instance of its class if the aggregate lists the class", async () => {
    const store = memoryStore()
    const expire = { type: "expire", at: 1 } as const
    const first = await failsWith(store)(execute(expire, { commandId }))
    await withStore(store)(execute(deposit(5)))
    const again = await failsWith(store)(execute(expire, { commandId }))
    expect(again).toBeInstanceOf(TooLate)
    expect(again).toEqual(new TooLate({ since: new Date(1000) }))
    expect([first, again].map((error) => isRepeatedRejection(error))).toEqual([false, true])
  })
  test("whose remembered fields no longer fit the class of the rejection is answered with the fields of then", async () => {
    const rejection = { tag: "TooLate", fields: { until: 5 }, message: "too late" }
    const store = memoryStore(({ load }) => ({
      load: (...args) =>
        Effect.map(load(...args), (loaded) => ({
          ...loaded,
          answered: { version: 0, partition: 0, position: 0, events: [], rejection }
        }))
    }))
    const again = await failsWith(store)(execute({ type: "expire", at: 1 }, { commandId }))
    expect(again).not.toBeInstanceOf(TooLate)
    expect({ ...again }).toEqual({ _tag: "TooLate", until: 5 })
    expect(isRepeatedRejection(again)).toBe(true)
  })
  test("that several callers use at once gets one answer", async () => {
    const store = memoryStore()
    const results = await withStore(store)(all(Array.from({ length: 8 }, () => execute(deposit(5), { commandId }))))
    expect(results.map((result) => (result._tag === "Success" ? result.success.version : result.failure))).toEqual(
      Array(8).fill(1)
    )
    expect(results.filter((result) => result._tag === "Success" && !result.success.repeated)).toHaveLength(1)
  })
  test("whose stored events are of an older version is answered with the newest", async () => {
    const store = memoryStore()
    const value = JSON.stringify({ type: "withdrawn", wallet: "w", at: 1, amount: 3 })
    const event = {
      type: "withdrawn",
      value,
      eventTime: 1,
      eventId: undefined,
      tenant: undefined,
      traceparent: undefined
    }
    const old = { ...event, schemaVersion: 1, headers: {} }
    await Effect.runPromise(store.append({ aggregate: "wallet", stream: "w", expected: 0, events: [old] }, commandId))
    expect(await withStore(store)(execute(deposit(3), { commandId }))).toMatchObject({
      repeated: true,
      events: [Withdrawn.make({ wallet: "w", at: 1, cents: 3 })]
    })
  })
})

describe("a closed stream", () => {
  test("takes no events and still answers what decides none", async () => {
    const store = memoryStore()
    await withStore(store)(execute(deposit(5), { commandId: "before" }))
    await Effect.runPromise(store.archive("wallet", "w"))
    expect(await failsWith(store)(execute(deposit(5)))).toBeInstanceOf(StreamClosed)
    expect(await failsWith(store)(execute(withdraw(50)))).toBeInstanceOf(Poor)
    expect(await withStore(store)(execute(deposit(5), { commandId: "before" }))).toMatchObject({ repeated: true })
  })
})
