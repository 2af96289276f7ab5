// Which errors of a command are rejections: those that `decide` returned, whatever class they have, and no others, whatever they look like.
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Schema from "effect/Schema"
import { expect, test } from "vitest"
import { type DueCommand, Timers } from "../../../src/aggregate/timers.ts"
import { runTimers } from "../../../src/aggregate/timer-worker.ts"
import { Aggregate, Event, EventStore, StreamClosed } from "../../../src/index.ts"
import { rejectionOf } from "../../../src/server/aggregates/answers.ts"
import { NoDatabase } from "../../../src/system/errors.ts"
import { failsWith, memoryStore } from "../../support/wallet.ts"

/** An error that no part of Millrace knows: as an adapter of the store may fail with, or a rejection whose class is not listed. */
class Unknown extends Data.TaggedError("Unknown")<{ readonly message: string }> {}
const Done = Event.make("done", { id: Schema.String })
const Task = Aggregate.make({
  name: "task",
  id: "id",
  events: [Done],
  commands: { refuse: { id: Schema.String }, close: { id: Schema.String }, finish: { id: Schema.String } },
  state: Schema.Null,
  initial: null,
  evolve: { done: () => null },
  decide: {
    refuse: () => new Unknown({ message: "not today" }),
    close: (_, { id }) => new StreamClosed({ aggregate: "task", stream: id, reason: "archived" }),
    finish: (_, { id }) => Done.make({ id })
  }
})
const failingStore = () => memoryStore(() => ({ append: () => Effect.fail(new Unknown({ message: "down" }) as never) }))

test("an error is a rejection if `decide` returned it, even of a class of the store's errors", async () => {
  const store = memoryStore()
  const refuse = Aggregate.execute(Task, "a", { type: "refuse" }, { commandId: "c" })
  const first = await failsWith(store)(refuse)
  expect(rejectionOf(first)).toEqual({ tag: "Unknown", fields: {}, message: "not today", repeated: false })
  expect(rejectionOf(await failsWith(store)(refuse))).toMatchObject({ tag: "Unknown", repeated: true })
  const closed = await failsWith(store)(Aggregate.execute(Task, "a", { type: "close" }))
  expect(rejectionOf(closed)).toMatchObject({ tag: "StreamClosed", fields: { stream: "a" } })
})
test("an error with a `_tag` is no rejection if `decide` did not return it", async () => {
  const found = await failsWith(failingStore())(Aggregate.execute(Task, "a", { type: "finish" }))
  expect(found).toBeInstanceOf(Unknown)
  const store = new StreamClosed({ aggregate: "task", stream: "a", reason: "archived" })
  const database = new NoDatabase({ message: "there is no database", try: "make one" })
  expect([found, store, database, undefined, "Unknown"].map(rejectionOf)).toEqual(Array(5).fill(undefined))
})

const outcomeOf = (store: EventStore["Service"], type: string) =>
  Effect.runPromise(
    Effect.gen(function* () {
      const due: DueCommand = {
        id: "6d5e3b4e-8a8c-4b8f-9f37-0e3c1c1d7a11",
        projection: "p",
        timer: undefined,
        line: undefined,
        aggregate: "task",
        stream: "a",
        command: JSON.stringify({ type, id: "a" }),
        failures: 0,
        tenant: undefined,
        traceparent: undefined,
        correlationId: "c",
        causationId: "e"
      }
      const waiting = [due]
      const calls: Array<string> = []
      const done = Latch.makeUnsafe(false)
      const called = (name: string) =>
        Effect.andThen(
          Effect.sync(() => void calls.push(name)),
          done.open
        )
      yield* Effect.forkChild(
        runTimers({
          aggregates: [Task],
          settled: (_, outcome, reason) => Effect.sync(() => void calls.push(outcome, String(reason)))
        }).pipe(
          Effect.provideService(EventStore, store),
          Effect.provideService(Timers, {
            claim: () => Effect.sync(() => waiting.splice(0)),
            remove: () => called("removed"),
            postpone: () => called("postponed"),
            nextMs: Effect.succeed(undefined),
            signals: Effect.succeed(Effect.never)
          })
        )
      )
      yield* done.await
      return calls
    })
  )
test("a command of a policy or timer is removed once it was rejected, and tried again after any other error", async () => {
  expect(await outcomeOf(memoryStore(), "refuse")).toEqual(["rejected", "not today", "removed"])
  expect(await outcomeOf(failingStore(), "finish")).toEqual(["failed", "down", "postponed"])
})
