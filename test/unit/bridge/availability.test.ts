// Which sides of a bridge answer, and how streams go on when one does not. Both sides are fakes, and the clock is the test's.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import { BridgeError } from "../../../src/bridge/errors.ts"
import { Availability } from "../../../src/bridge/availability.ts"
import { BridgeStatus } from "../../../src/bridge/status.ts"
import { runSessions } from "../../../src/bridge/sessions.ts"

const failure = (reason: string, retryable = true) =>
  new BridgeError({ side: "kafka", operation: "reach a broker", kind: "other", retryable, reason })

it.effect(
  "a side that does not answer is listed with the reason, and what sleeps meanwhile wakes up when it is back",
  () =>
    Effect.gen(function* () {
      const availability = new Availability()
      const side = { isUp: true }
      const ping = Effect.suspend(() => (side.isUp ? Effect.void : Effect.fail(failure("no broker answers"))))
      yield* Effect.forkChild(availability.watch("kafka", ping))
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(availability.unavailable, [])
      side.isUp = false
      yield* TestClock.adjust("2 seconds")
      assert.deepInclude(availability.unavailable[0], { side: "kafka", reason: "no broker answers" })
      const sleeping = yield* Effect.forkChild(availability.sleep(86_400_000))
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(sleeping.pollUnsafe())
      side.isUp = true
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(sleeping)
      assert.deepStrictEqual(availability.unavailable, [])
    })
)
it.effect("a side whose answer does not come for 10 s is unavailable", () =>
  Effect.gen(function* () {
    const availability = new Availability()
    yield* Effect.forkChild(availability.watch("pulsar", Effect.never))
    yield* TestClock.adjust("9 seconds")
    assert.deepStrictEqual(availability.unavailable, [])
    yield* TestClock.adjust("2 seconds")
    assert.match(availability.unavailable[0]!.reason, /it has not answered for 10 s/)
  })
)
it.effect("a stream is tried again forever; one that runs once fails after half a minute", () =>
  Effect.gen(function* () {
    const availability = new Availability()
    const lag = Effect.succeed(undefined)
    const sessions = { tried: 0 }
    const session = Effect.suspend(() => {
      sessions.tried++
      return Effect.fail(failure("no broker answers"))
    })
    const status = new BridgeStatus()
    const forever = yield* Effect.forkChild(
      runSessions(availability, status.stream("out", "a", 0), session, { once: false, lag })
    )
    const once = yield* Effect.forkChild(
      runSessions(availability, status.stream("out", "a", 1), session, { once: true, lag })
    )
    yield* TestClock.adjust("20 seconds")
    assert.isUndefined(once.pollUnsafe())
    assert.deepStrictEqual(
      status.failing.map(({ reason, what }) => [what, reason]),
      [
        ["out a/0", "kafka: reach a broker failed: no broker answers"],
        ["out a/1", "kafka: reach a broker failed: no broker answers"]
      ]
    )
    yield* TestClock.adjust("1 minute")
    assert.match(String(yield* Effect.flip(Fiber.join(once))), /no broker answers/)
    assert.isUndefined(forever.pollUnsafe())
    const before = sessions.tried
    yield* TestClock.adjust("1 hour")
    assert.isAtLeast(sessions.tried, before + 300)
    yield* Fiber.interrupt(forever)
    assert.lengthOf(status.failing, 1)
  })
)
