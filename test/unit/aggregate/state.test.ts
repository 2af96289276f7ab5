// States of streams: loaded in pages, from snapshots of the same shape only, of an earlier version or time, from events of older versions.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "vitest"
import {
  Aggregate,
  AggregateFailed,
  Event,
  type EventStore,
  EventStoreError,
  InvalidOption,
  UnreadableEvent
} from "../../../src/index.ts"
import { executorOf, mostStates } from "../../../src/aggregate/executor.ts"
import { shapeOf } from "../../../src/aggregate/state.ts"
import type { EventType } from "../../../src/model/event.ts"
import { eventsPage } from "../../../src/server/aggregates/events.ts"
import {
  deposit,
  Deposited,
  execute,
  failsWith,
  memoryStore,
  Wallet,
  Withdrawn,
  withStore
} from "../../support/wallet.ts"

type Store = EventStore["Service"]
const load = (at?: object) => Aggregate.load(Wallet, "w", at)
const eventOf = (type: string, fields: object, schemaVersion = 1) => ({
  type,
  value: JSON.stringify({ type, wallet: "w", at: 1, ...fields }),
  eventTime: 1,
  eventId: undefined,
  tenant: undefined,
  traceparent: undefined,
  schemaVersion,
  headers: {}
})
const append = (store: Store, events: ReadonlyArray<ReturnType<typeof eventOf>>) =>
  Effect.runPromise(
    store.append({ aggregate: "wallet", stream: "w", expected: "any", events }, globalThis.crypto.randomUUID())
  )
const cents = (n: number) => Array.from({ length: n }, () => eventOf("deposited", { cents: 1 }))
const settled = () => new Promise((resolve) => setTimeout(resolve, 5))

describe("a state", () => {
  test("of a stream without events is the initial one, at version 0", async () => {
    expect(await withStore(memoryStore())(load())).toEqual({ version: 0, state: { cents: 0, events: 0 } })
  })
  test("is folded page by page", async () => {
    const pages: Array<number> = []
    const store = memoryStore((inner) => ({
      load: (aggregate, stream, options) =>
        inner
          .load(aggregate, stream, { ...options, limit: 7 })
          .pipe(Effect.tap(({ events }) => Effect.sync(() => pages.push(events.length))))
    }))
    await append(store, cents(20))
    expect(await withStore(store)(load())).toEqual({ version: 20, state: { cents: 20, events: 20 } })
    expect(pages).toEqual([7, 7, 6])
  })
  test("is folded from a page while the next one is read", async () => {
    const order: Array<string> = []
    const store = memoryStore((inner) => ({
      load: (aggregate, stream, options) =>
        Effect.suspend(() => {
          order.push(`load ${options?.from ?? 1}`)
          return inner.load(aggregate, stream, { ...options, limit: 2 })
        })
    }))
    const evolve: typeof Wallet.evolve = (state, event) => {
      order.push("fold")
      return Wallet.evolve(state, event)
    }
    await append(store, cents(5))
    expect(await withStore(store)(Aggregate.load({ ...Wallet, evolve }, "w"))).toMatchObject({ version: 5 })
    expect(order).toEqual(["load 1", "load 3", "fold", "fold", "load 5", "fold", "fold", "fold"])
  })
  test("fails if a page cannot be read, or with the event that cannot be read in the page before", async () => {
    const failure = new EventStoreError({ operation: "load", aggregate: "wallet", retryable: false, reason: "gone" })
    const store = memoryStore((inner) => ({
      load: (aggregate, stream, options) =>
        (options?.from ?? 1) < 3 ? inner.load(aggregate, stream, { ...options, limit: 2 }) : Effect.fail(failure)
    }))
    await append(store, cents(3))
    expect(await failsWith(store)(load())).toBe(failure)
    expect(await withStore(store)(load({ version: 2 }))).toMatchObject({ version: 2 })
    const evil = memoryStore((inner) => ({
      load: (aggregate, stream, options) =>
        (options?.from ?? 1) < 3 ? inner.load(aggregate, stream, { ...options, limit: 2 }) : Effect.never
    }))
    await append(evil, [eventOf("deposited", { cents: 666 }), ...cents(2)])
    expect(await failsWith(evil)(load())).toBeInstanceOf(AggregateFailed)
  })
  test("of many pages is loaded", async () => {
    const store = memoryStore()
    await append(store, cents(9_000))
    expect(await withStore(store)(load())).toEqual({ version: 9_000, state: { cents: 9_000, events: 9_000 } })
  })
  test("of an earlier version, and of a version beyond the newest", async () => {
    const store = memoryStore()
    await append(store, cents(5))
    const run = withStore(store)
    expect(await run(load({ version: 3 }))).toEqual({ version: 3, state: { cents: 3, events: 3 } })
    expect(await run(load({ version: 0 }))).toMatchObject({ version: 0 })
    expect(await run(load({ version: 9 }))).toMatchObject({ version: 5 })
    for (const version of [-1, 1.5, NaN, "3"])
      expect(await failsWith(store)(load({ version }))).toBeInstanceOf(InvalidOption)
  })
  test("of an earlier time has the events that were appended by then", async () => {
    const store = memoryStore()
    await append(store, cents(2))
    const { events } = await Effect.runPromise(store.load("wallet", "w"))
    const at = events.at(-1)!.appendedAt
    await settled()
    await append(store, cents(2))
    const run = withStore(store)
    expect(await run(load({ at }))).toEqual({ version: 2, state: { cents: 2, events: 2 } })
    expect(await run(load({ at: new Date(at - 1_000) }))).toMatchObject({ version: 0 })
    expect(await run(load({ at: "2999-01-01T00:00:00Z" }))).toMatchObject({ version: 4 })
    expect(await failsWith(store)(load({ at: "yesterday" }))).toBeInstanceOf(InvalidOption)
  })
  test("has events of older versions in their newest form", async () => {
    const store = memoryStore()
    await append(store, [...cents(9), eventOf("withdrawn", { amount: 2 }), eventOf("withdrawn", { cents: 3 }, 2)])
    expect(await withStore(store)(load())).toEqual({ version: 11, state: { cents: 4, events: 11 } })
    const history = await withStore(store)(Stream.runCollect(Aggregate.history(Wallet, "w", { from: 10 })))
    expect(history).toMatchObject([
      { version: 10, event: Withdrawn.make({ wallet: "w", at: 1, cents: 2 }), schemaVersion: 1 },
      { version: 11, event: Withdrawn.make({ wallet: "w", at: 1, cents: 3 }), schemaVersion: 2 }
    ])
  })
  test("with an event that cannot be read fails with its version and type", async () => {
    const store = memoryStore()
    await append(store, [...cents(1), eventOf("deposited", { cents: "one" })])
    for (const failing of [load(), execute(deposit(1)), Stream.runCollect(Aggregate.history(Wallet, "w"))] as const) {
      const error = (await failsWith(store)(failing as Effect.Effect<unknown, unknown, EventStore>)) as Error
      expect(error).toBeInstanceOf(UnreadableEvent)
      expect(error).toMatchObject({ aggregate: "wallet", stream: "w", version: 2, type: "deposited" })
      expect(error.message).toMatch(
        /event 2 of type deposited cannot be read: [^]*cents[^]*declare the change as a new version/
      )
    }
    expect(await withStore(store)(load({ version: 1 }))).toMatchObject({ version: 1 })
  })
  const of = { wallet: Schema.String, at: Schema.Finite, cents: Schema.Int }
  const unreadable = async (type: EventType.Any, schemaVersion = 1) => {
    const store = memoryStore()
    const Weighed = Aggregate.make({
      name: "wallet",
      id: "wallet",
      events: [type as typeof Deposited],
      commands: { look: { wallet: of.wallet, at: of.at } },
      state: Schema.Struct({ sum: Schema.Int }),
      initial: { sum: 0 },
      evolve: { [type.type as "deposited"]: ({ sum }, event) => ({ sum: sum + event.cents }) },
      decide: { look: (_, { at, wallet }) => Deposited.make({ wallet, at, cents: 1 }) }
    })
    await append(store, [eventOf("deposited", { cents: 1 }, schemaVersion)])
    const failing: ReadonlyArray<Effect.Effect<unknown, unknown, EventStore>> = [
      Aggregate.execute(Weighed, "w", { type: "look", at: 1 }),
      Aggregate.load(Weighed, "w"),
      Stream.runCollect(Aggregate.history(Weighed, "w")),
      eventsPage(Weighed, "w", { from: 1, limit: 1 })
    ]
    const messages = new Set<string>()
    for (const one of failing) {
      const error = await failsWith(store)(one)
      expect(error).toBeInstanceOf(UnreadableEvent)
      expect(error).toMatchObject({ aggregate: "wallet", stream: "w", version: 1, type: "deposited" })
      messages.add((error as Error).message.replace('wallet "w": event 1 of type deposited cannot be read: ', ""))
    }
    expect(store.calls).not.toContain("remember")
    expect(store.calls.filter((name) => name === "append")).toHaveLength(1)
    return [...messages]
  }
  const upcast = (from: () => object): EventType.Any => Deposited.upcast(of, from as never)
  const upcaster = "the upcaster of event type deposited to version 2"
  test("is never folded from what does not fit after an upcaster, and each cause has its own advice", async () => {
    expect(await unreadable(upcast(() => ({ wallet: "w", at: 1, cents: "x" })))).toEqual([
      `${upcaster} returned data that does not fit its schema: Expected number\n  at ["cents"]; correct the upcaster`
    ])
    const throwing = upcast(() => {
      throw new Error("no rate")
    })
    expect(await unreadable(throwing)).toEqual([`${upcaster} threw: no rate; correct the upcaster`])
    expect(await unreadable(Deposited, 3)).toEqual([
      "event type deposited has no version 3, the newest is 1; deploy the code that declares it"
    ])
    expect(await unreadable(Event.make("gone", of))).toEqual([
      'topic wallet has no event type "deposited"; it has gone; keep event types that have stored events in `events`'
    ])
  })
  test("whose `evolve` throws fails with the event", async () => {
    const store = memoryStore()
    await append(store, [...cents(1), eventOf("deposited", { cents: 666 })])
    const error = (await failsWith(store)(load())) as Error
    expect(error).toBeInstanceOf(AggregateFailed)
    expect(error.message).toBe('wallet "w": `evolve` failed: event 2 of type deposited: evil')
  })
  test("is read backwards and with a limit by `history`", async () => {
    const store = memoryStore()
    await append(store, cents(4))
    const history = Aggregate.history(Wallet, "w", { backwards: true, limit: 2 })
    expect(await withStore(store)(Stream.runCollect(history))).toMatchObject([
      { version: 4, event: Deposited.make({ wallet: "w", at: 1, cents: 1 }) },
      { version: 3 }
    ])
  })
})

describe("a snapshot", () => {
  const shape = shapeOf(Wallet)
  /** The snapshot of a stream, and how many events a load reads after it. */
  const stored = async (store: Store, of = shape) => {
    const { events, snapshot } = await Effect.runPromise(store.load("wallet", "w", { shape: of }))
    return { version: snapshot?.version, events: events.length }
  }
  test("is stored after a load that read more events than the policy says, and is read then", async () => {
    const store = memoryStore()
    await append(store, cents(25))
    await withStore(store)(execute(deposit(1)))
    await settled()
    expect(await stored(store)).toEqual({ version: 26, events: 0 })
    await append(store, cents(1))
    expect(await withStore(store)(load())).toEqual({ version: 27, state: { cents: 27, events: 27 } })
    expect(await withStore({ ...store })(execute(deposit(1)))).toMatchObject({ version: 28 })
  })
  test("is stored while commands are executed, after as many events", async () => {
    const store = memoryStore()
    for (let i = 0; i < 9; i++) await withStore(store)(execute(deposit(1)))
    await settled()
    expect(await stored(store)).toMatchObject({ version: undefined })
    for (let i = 0; i < 12; i++) await withStore(store)(execute(deposit(1)))
    await settled()
    expect(await stored(store)).toEqual({ version: 20, events: 1 })
  })
  test("names the subjects of all events up to it, also of those before the last snapshot", async () => {
    const subjects: Array<ReadonlyArray<string>> = []
    const store = memoryStore((inner) => ({
      saveSnapshot: (aggregate, stream, snapshot) => {
        subjects.push(snapshot.subjects)
        return inner.saveSnapshot(aggregate, stream, snapshot)
      }
    }))
    await append(store, cents(10))
    await withStore(store)(execute(deposit(1)))
    await settled()
    await append(store, cents(10))
    await withStore({ ...store })(execute(deposit(1)))
    await settled()
    expect(subjects).toEqual([["owner of w"], ["owner of w"]])
  })
  test("of another shape, or that cannot be decoded, is ignored", async () => {
    const store = memoryStore()
    await append(store, cents(3))
    const save = (of: string, state: string) =>
      Effect.runPromise(store.saveSnapshot("wallet", "w", { shape: of, version: 2, state, subjects: [] }))
    await save("another", JSON.stringify({ state: { cents: 700, events: 2 }, subjects: [] }))
    expect(await withStore(store)(load())).toMatchObject({ state: { cents: 3 } })
    for (const state of ["nonsense", "null", JSON.stringify({ state: { cents: "x" }, subjects: [] }), "{}"]) {
      const other = memoryStore()
      await append(other, cents(3))
      await Effect.runPromise(other.saveSnapshot("wallet", "w", { shape, version: 2, state, subjects: [] }))
      expect(await withStore(other)(load())).toEqual({ version: 3, state: { cents: 3, events: 3 } })
    }
    await save(shape, JSON.stringify({ state: { cents: 700, events: 2 }, subjects: [] }))
    expect(await withStore(store)(load())).toMatchObject({ version: 3, state: { cents: 701 } })
    // a state of an earlier version, or of a time, does not come from it
    expect(await withStore(store)(load({ version: 1 }))).toMatchObject({ state: { cents: 1 } })
    expect(await withStore(store)(load({ at: "2999-01-01" }))).toMatchObject({ state: { cents: 3 } })
  })
  test("has another shape with another version, and with another schema of the state", () => {
    const { make } = Aggregate
    const of = (options: object) => shapeOf(make({ ...parts, ...options } as never))
    const parts = {
      name: "n",
      events: [Deposited],
      commands: {},
      state: Schema.Struct({ n: Schema.Int }),
      initial: { n: 0 },
      evolve: { deposited: () => ({ n: 1 }) },
      decide: {}
    }
    expect(of({})).toBe(of({ version: 1, name: "m", snapshot: { every: 5 } }))
    expect(of({ version: 2 })).not.toBe(of({}))
    expect(of({ state: Schema.Struct({ n: Schema.Int, m: Schema.optionalKey(Schema.Int) }) })).not.toBe(of({}))
  })
  test("that cannot be stored fails no command", async () => {
    const down = new EventStoreError({ operation: "snapshot", aggregate: "wallet", retryable: true, reason: "down" })
    const store = memoryStore(() => ({ saveSnapshot: () => Effect.fail(down) }))
    for (let i = 0; i < 25; i++) await withStore(store)(execute(deposit(1)))
    await settled()
    expect(store.calls.filter((call) => call === "saveSnapshot")).toHaveLength(2)
  })
})

test("only so many states are kept in memory, those that were used last", async () => {
  const store = memoryStore()
  const ids = Array.from({ length: mostStates + 2 }, (_, i) => `w${i}`)
  await withStore(store)(Effect.forEach(ids, (id) => Aggregate.execute(Wallet, id, deposit(1)), { discard: true }))
  const executor = executorOf(store) as unknown as { readonly idle: ReadonlySet<unknown> }
  expect(executor.idle.size).toBe(mostStates)
  store.calls.length = 0
  await withStore(store)(Aggregate.execute(Wallet, ids.at(-1)!, deposit(1)))
  expect(store.calls).toEqual(["append"])
  await withStore(store)(Aggregate.execute(Wallet, "w0", deposit(1)))
  expect(store.calls).toEqual(["append", "load", "append"])
})
