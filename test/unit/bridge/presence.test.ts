// Whether systems are there, as a bridge sees it, and how its streams bear that they are not. No system is reached; time is the test's.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import { BridgeError } from "../../../src/bridge/errors.ts"
import { Availability } from "../../../src/bridge/availability.ts"
import { Board } from "../../../src/bridge/status.ts"
import { persist } from "../../../src/bridge/stream.ts"

const failure = (reason: string, retryable = true) =>
  new BridgeError({ side: "kafka", operation: "reach a broker", kind: "other", retryable, reason })

it.effect("a system that is away is told with why and since when, and who rests goes on when it is back", () =>
  Effect.gen(function* () {
    const presence = new Availability()
    const system = { there: true }
    const answers = Effect.suspend(() => (system.there ? Effect.void : Effect.fail(failure("no broker answers"))))
    yield* Effect.forkChild(presence.watch("kafka", answers))
    yield* TestClock.adjust("5 seconds")
    assert.deepStrictEqual(presence.away, [])
    system.there = false
    yield* TestClock.adjust("2 seconds")
    assert.deepInclude(presence.away[0], { side: "kafka", reason: "no broker answers" })
    const resting = yield* Effect.forkChild(presence.rest(86_400_000))
    yield* TestClock.adjust("1 hour")
    assert.isUndefined(resting.pollUnsafe())
    system.there = true
    yield* TestClock.adjust("2 seconds")
    yield* Fiber.join(resting)
    assert.deepStrictEqual(presence.away, [])
  })
)
it.effect("a system that answers nothing is away", () =>
  Effect.gen(function* () {
    const presence = new Availability()
    yield* Effect.forkChild(presence.watch("pulsar", Effect.never))
    yield* TestClock.adjust("9 seconds")
    assert.deepStrictEqual(presence.away, [])
    yield* TestClock.adjust("2 seconds")
    assert.match(presence.away[0]!.reason, /answers nothing for 10 s/)
  })
)
it.effect("a stream is tried again for ever; what is to be done once is given up after half a minute", () =>
  Effect.gen(function* () {
    const presence = new Availability()
    const lag = Effect.succeed(undefined)
    const sessions = { tried: 0 }
    const session = Effect.suspend(() => {
      sessions.tried++
      return Effect.fail(failure("no broker answers"))
    })
    const board = new Board()
    const forEver = yield* Effect.forkChild(
      persist({ presence }, board.of("out", "a", 0), session, { once: false, lag })
    )
    const once = yield* Effect.forkChild(persist({ presence }, board.of("out", "a", 1), session, { once: true, lag }))
    yield* TestClock.adjust("20 seconds")
    assert.isUndefined(once.pollUnsafe())
    assert.deepStrictEqual(
      board.failing.map(({ reason, what }) => [what, reason]),
      [
        ["out a/0", "kafka: reach a broker failed: no broker answers"],
        ["out a/1", "kafka: reach a broker failed: no broker answers"]
      ]
    )
    yield* TestClock.adjust("1 minute")
    assert.match(String(yield* Effect.flip(Fiber.join(once))), /no broker answers/)
    assert.isUndefined(forEver.pollUnsafe())
    const before = sessions.tried
    yield* TestClock.adjust("1 hour")
    assert.isAtLeast(sessions.tried, before + 300)
    yield* Fiber.interrupt(forEver)
    assert.lengthOf(board.failing, 1)
  })
)
