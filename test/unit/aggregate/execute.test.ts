// Commands that are executed: decided on the newest state one after another, and appended as a chain.
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { describe, expect, test } from "vitest"
import { Aggregate, AggregateFailed, EventStoreError, InvalidCommand, InvalidStream } from "../../../src/index.ts"
import {
  all,
  type Command,
  deposit,
  Deposited,
  eventsOf,
  execute,
  failsWith,
  memoryStore,
  other,
  Poor,
  Wallet,
  withdraw,
  withStore
} from "../../support/wallet.ts"

test("an archived stream takes no more events, keeps those it has, and answers again what it answered", async () => {
  const store = memoryStore()
  const run = withStore(store)
  const first = await run(execute(deposit(5), { commandId: "k" }))
  expect(await run(Aggregate.archive(Wallet, "w"))).toEqual({ version: 1, repeated: false })
  expect(await run(Aggregate.archive(Wallet, "w"))).toEqual({ version: 1, repeated: true })
  expect(await failsWith(store)(execute(deposit(1)))).toMatchObject({ _tag: "StreamClosed", reason: "archived" })
  expect(await run(execute(deposit(5), { commandId: "k" }))).toEqual({ ...first, repeated: true })
  expect(await run(Aggregate.load(Wallet, "w"))).toEqual({ version: 1, state: { cents: 5, events: 1 } })
  expect(await run(Aggregate.archive(Wallet, "none"))).toEqual({ version: 0, repeated: false })
  expect(await failsWith(store)(Aggregate.archive(Wallet, "a\0"))).toBeInstanceOf(InvalidStream)
})

describe("a command", () => {
  test("appends the events it decides, and answers with them, the version and their position", async () => {
    const store = memoryStore()
    const run = withStore(store)
    const first = await run(execute(deposit(5)))
    const events = [Deposited.make({ wallet: "w", at: 1, cents: 5 })]
    expect(first).toEqual({
      version: 1,
      events,
      repeated: false,
      position: { topic: "wallet", partition: expect.any(Number), position: 0 }
    })
    expect(await run(execute(withdraw(2)))).toMatchObject({ version: 2, position: { position: 1 } })
    expect(await run(Aggregate.load(Wallet, "w"))).toEqual({ version: 2, state: { cents: 3, events: 2 } })
    expect(await eventsOf(store)).toMatchObject([
      { type: "deposited", version: 1, eventTime: 1, schemaVersion: 1 },
      { type: "withdrawn", version: 2, eventTime: 2, schemaVersion: 2 }
    ])
  })
  test.each([1e300, -1e300, 4_102_444_800_000])(
    "whose event has the time %d fails, and appends nothing",
    async (at) => {
      const store = memoryStore()
      const run = withStore(store)
      await run(execute(deposit(5)))
      const error = await failsWith(store)(execute({ ...deposit(1), at } as never))
      const code = Math.abs(at) > 1e16 ? "event_time_out_of_range" : "event_time_ahead"
      expect(error).toMatchObject({ _tag: "EventTimeRefused", code, eventTime: at, field: "at" })
      expect(await run(execute({ ...deposit(1), at: -1_000 } as never))).toMatchObject({ version: 2 })
    }
  )
  test("that decides nothing appends nothing", async () => {
    const store = memoryStore()
    expect(await withStore(store)(execute({ type: "empty", at: 1 }))).toEqual({
      version: 0,
      events: [],
      repeated: false,
      position: undefined
    })
    expect(store.calls).toEqual(["load"])
  })
  test("that is rejected fails with the rejection", async () => {
    const error = await failsWith(memoryStore())(execute(withdraw(1)))
    expect(error).toEqual(new Poor({ wallet: "w", cents: 0 }))
  })
  test("gives its events the correlation, causation, actor, tenant, trace and id", async () => {
    const store = memoryStore()
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    const context = { correlationId: "c", causationId: "e/0", actor: "ann", tenant: "acme", traceparent }
    await withStore(store)(execute(deposit(5), { commandId: "id 1", context }))
    await withStore(store)(execute(deposit(5), { commandId: "id 2" }))
    expect(await eventsOf(store)).toMatchObject([
      {
        eventId: "id 1/0",
        tenant: "acme",
        traceparent,
        headers: {
          "millrace-command": "id 1",
          "millrace-correlation": "c",
          "millrace-causation": "e/0",
          "millrace-actor": "ann"
        }
      },
      { eventId: "id 2/0", tenant: undefined, headers: { "millrace-command": "id 2", "millrace-correlation": "id 2" } }
    ])
  })
  test("gives its events the trace of the span that it is executed in", async () => {
    const store = memoryStore()
    const spanned = Effect.gen(function* () {
      yield* execute(deposit(5))
      return yield* Effect.currentSpan
    }).pipe(Effect.withSpan("request"))
    const { spanId, traceId } = await withStore(store)(spanned)
    expect(await eventsOf(store)).toMatchObject([{ traceparent: `00-${traceId}-${spanId}-01` }])
  })
  test.each<readonly [string, object, RegExp]>([
    ["a field of another type", { type: "deposit", at: 1, cents: "5" }, /cents/],
    ["a field that is missing", { type: "deposit", at: 1 }, /cents/],
    [
      "an unknown command",
      { type: "steal", at: 1 },
      /aggregate wallet has no command "steal"; it has deposit, withdraw/
    ],
    ["no type", { at: 1 }, /has no command undefined/],
    [
      "another stream's id",
      { ...deposit(1), wallet: "v" },
      /its `wallet` is "v", but it was sent to "w"; leave the field out/
    ]
  ])("with %s is refused before anything is loaded", async (_, command, message) => {
    const store = memoryStore()
    const error = await failsWith(store)(execute(command as Command))
    expect(error).toBeInstanceOf(InvalidCommand)
    expect((error as Error).message).toMatch(message)
    expect(store.calls).toEqual([])
  })
  test.each<readonly [object, RegExp]>([
    [{ expected: 1.5 }, /`expected` is 1.5; it must be a version from 0/],
    [{ expected: -1 }, /`expected` is -1/],
    [{ context: { actor: "" } }, /its actor is empty/],
    [{ context: { correlationId: "a\0" } }, /its correlationId contains a NUL/],
    [{ context: { actor: "a".repeat(1_001) } }, /its actor has 1001 characters/],
    [{ context: { traceparent: "00-1-2-3" } }, /its traceparent is "00-1-2-3"/]
  ])("with the options %j is refused", async (options, message) => {
    const error = await failsWith(memoryStore())(execute(deposit(1), options))
    expect(error).toBeInstanceOf(InvalidCommand)
    expect((error as Error).message).toMatch(message)
  })
  test("for an id that no stream can have fails with `InvalidStream`", async () => {
    for (const id of ["", "a\0b", "x".repeat(1 << 20)])
      expect(await failsWith(memoryStore())(Aggregate.execute(Wallet, id, deposit(1)))).toBeInstanceOf(InvalidStream)
  })
})

describe("code of an aggregate that throws", () => {
  test.each([
    ["decide", /^wallet "w": command throw: `decide` failed: bad luck$/],
    ["evolve", /^wallet "w": command throw: `evolve` failed: evil$/],
    ["event", /^wallet "w": command throw: the decided event is not valid: [^]*cents/],
    ["id", /the `wallet` of an event of type deposited is "other", which is not the id of its stream/]
  ] as const)("in %s fails its own command only", async (where, message) => {
    const store = memoryStore()
    const results = await withStore(store)(
      all([execute(deposit(1)), execute({ type: "throw", at: 1, where }), execute(deposit(2))])
    )
    expect(results.map(({ _tag }) => _tag)).toEqual(["Success", "Failure", "Success"])
    const failure = (results[1] as { readonly failure: unknown }).failure
    expect(failure).toBeInstanceOf(AggregateFailed)
    expect(failure).toMatchObject({ aggregate: "wallet", stream: "w", command: "throw" })
    expect((failure as Error).message).toMatch(message)
    expect((await eventsOf(store)).map(({ value }) => JSON.parse(value).cents)).toEqual([1, 2])
  })
  test("in `evolve` of a stored event names the event and each command, and other streams go on", async () => {
    const store = memoryStore()
    await Effect.runPromise(other(store, "w", 666))
    const [one, two] = await withStore(store)(all([execute(deposit(1)), execute(withdraw(2))]))
    expect(one).toMatchObject({
      failure: { command: "deposit", operation: "evolve", reason: "event 1 of type deposited: evil" }
    })
    expect(two).toMatchObject({ failure: { command: "withdraw" } })
    await withStore(store)(Aggregate.execute(Wallet, "v", deposit(1)))
  })
})

describe("commands of one stream", () => {
  test("are decided one after another without a load between them", async () => {
    const store = memoryStore()
    const results = await withStore(store)(all(Array.from({ length: 64 }, () => execute(deposit(1)))))
    expect(results.map((result) => (result._tag === "Success" ? result.success.version : 0))).toEqual(
      Array.from({ length: 64 }, (_, i) => i + 1)
    )
    expect(store.calls.filter((call) => call === "load")).toHaveLength(1)
  })
  test("never withdraw more than there is", async () => {
    const store = memoryStore()
    await withStore(store)(execute(deposit(10)))
    const results = await withStore(store)(all(Array.from({ length: 30 }, () => execute(withdraw(3)))))
    expect(results.filter(({ _tag }) => _tag === "Success")).toHaveLength(3)
    expect(await withStore(store)(Aggregate.load(Wallet, "w"))).toMatchObject({ state: { cents: 1 } })
  })
  test("that wait are bounded, and one more fails with `StreamBusy`", async () => {
    const gate = Effect.runSync(Deferred.make<void>())
    const store = memoryStore((inner) => ({
      load: (...args) => Effect.andThen(Deferred.await(gate), inner.load(...args))
    }))
    const first = withStore(store)(execute(deposit(1)))
    await new Promise((resolve) => setTimeout(resolve, 5))
    const waiting = withStore(store)(all(Array.from({ length: 1_001 }, () => execute(deposit(1)))))
    await new Promise((resolve) => setTimeout(resolve, 50))
    await Effect.runPromise(Deferred.succeed(gate, undefined))
    const failed = (await waiting).filter(({ _tag }) => _tag === "Failure")
    expect(failed).toHaveLength(1)
    expect(failed[0]).toMatchObject({ failure: { _tag: "StreamBusy" } })
    expect(await first).toMatchObject({ version: 1 })
    expect(await withStore(store)(Aggregate.load(Wallet, "w"))).toMatchObject({ version: 1_001 })
  })
  test("whose caller gave up are not decided, and others are", async () => {
    const gate = Effect.runSync(Deferred.make<void>())
    const store = memoryStore((inner) => ({
      load: (...args) => Effect.andThen(Deferred.await(gate), inner.load(...args))
    }))
    const versions = await withStore(store)(
      Effect.gen(function* () {
        const first = yield* Effect.forkChild(execute(deposit(1)))
        // its chain has begun, so that the others wait for the next one
        while (store.calls.length === 0) yield* Effect.sleep(1)
        const second = yield* Effect.forkChild(execute(deposit(2)))
        const third = yield* Effect.forkChild(execute(deposit(3)))
        yield* Effect.sleep(5)
        yield* Fiber.interrupt(second)
        yield* Deferred.succeed(gate, undefined)
        return [(yield* Fiber.join(first)).version, (yield* Fiber.join(third)).version]
      })
    )
    expect(versions).toEqual([1, 2])
  })
  test("go on after the first caller was interrupted", async () => {
    const gate = Effect.runSync(Deferred.make<void>())
    const store = memoryStore((inner) => ({
      load: (...args) => Effect.andThen(Deferred.await(gate), inner.load(...args))
    }))
    const version = await withStore(store)(
      Effect.gen(function* () {
        const first = yield* Effect.forkChild(execute(deposit(1)))
        yield* Effect.sleep(5)
        const second = yield* Effect.forkChild(execute(deposit(2)))
        yield* Effect.sleep(5)
        yield* Fiber.interrupt(first)
        yield* Deferred.succeed(gate, undefined)
        return (yield* Fiber.join(second)).version
      })
    )
    expect(version).toBeGreaterThanOrEqual(1)
  })
  test("whose store fails get its error, and the next one works", async () => {
    let isDown = true
    const down = new EventStoreError({ operation: "load", aggregate: "wallet", retryable: true, reason: "down" })
    const store = memoryStore((inner) => ({ load: (...args) => (isDown ? Effect.fail(down) : inner.load(...args)) }))
    const results = await withStore(store)(all([execute(deposit(1)), execute(deposit(1))]))
    expect(results).toMatchObject([{ failure: down }, { failure: down }])
    isDown = false
    expect(await withStore(store)(execute(deposit(1)))).toMatchObject({ version: 1 })
  })
  test("whose store dies get the defect, and the next one works", async () => {
    let isDown = true
    const store = memoryStore((inner) => ({
      append: (...args) => (isDown ? Effect.die("broken") : inner.append(...args))
    }))
    await expect(withStore(store)(execute(deposit(1)))).rejects.toThrow("broken")
    isDown = false
    expect(await withStore(store)(execute(deposit(1)))).toMatchObject({ version: 1 })
  })
})
