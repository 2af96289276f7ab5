// How a follower takes what it has read apart by where the live build is.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { TestClock } from "effect/testing"
import type { LogRecord } from "../../../src/log/log.ts"
import { Follower } from "../../../src/runner/follower.ts"
import { type Claim, Fenced } from "../../../src/runner/store.ts"

const records = (...positions: ReadonlyArray<number>) => positions.map((position) => ({ position }) as LogRecord)
const claim = { projection: "p", version: 2, topic: "t", partition: 0, position: 10 } as Claim

/** A follower whose live build is at these positions, one for each time it is asked, then at the last one; and what it does. */
const following = (...bounds: ReadonlyArray<number | Fenced>) => {
  const parts: Array<string> = []
  let asked = 0
  const bound = () =>
    Effect.suspend(() => {
      const found = bounds[Math.min(asked++, bounds.length - 1)]!
      return typeof found === "number" ? Effect.succeed(found) : Effect.fail(found)
    })
  const follower = new Follower({ bound }, claim)
  const process = (next: number, ...positions: ReadonlyArray<number>) =>
    follower.process({ records: records(...positions), next }, (part) =>
      Effect.sync(() => void parts.push(`${part.records.map(({ position }) => position).join(",")} to ${part.next}`))
    )
  return { parts, process, asked: () => asked }
}

it.effect("asks only for batches that reach beyond the last answer", () =>
  Effect.gen(function* () {
    const { asked, parts, process } = following(100)
    yield* process(12, 10, 11)
    yield* process(100, 12, 99)
    assert.strictEqual(asked(), 1)
    assert.deepStrictEqual(parts, ["10,11 to 12", "12,99 to 100"])
  })
)

it.effect("processes what is below the live build's position, and waits for the rest", () =>
  Effect.gen(function* () {
    const { parts, process } = following(10, 12, 12, 14)
    const running = yield* Effect.forkChild(process(15, 10, 11, 12, 14))
    yield* TestClock.adjust("10 millis")
    assert.deepStrictEqual(parts, [])
    yield* TestClock.adjust("10 millis")
    assert.deepStrictEqual(parts, ["10,11 to 12"])
    yield* TestClock.adjust("20 millis")
    assert.deepStrictEqual(parts, ["10,11 to 12", "12 to 14"])
    yield* TestClock.adjust("1 minute")
    assert.isUndefined(running.pollUnsafe(), "the live build never gets beyond 14")
    yield* Fiber.interrupt(running)
  })
)

it.effect("gets behind positions without records, which the live build has passed", () =>
  Effect.gen(function* () {
    const { parts, process } = following(13, 20)
    yield* process(20, 15, 16)
    yield* process(24).pipe(
      Effect.timeoutOption("100 millis"),
      Effect.forkChild,
      Effect.flatMap((fiber) => Effect.andThen(TestClock.adjust("1 second"), Fiber.join(fiber)))
    )
    assert.deepStrictEqual(parts, [" to 13", "15,16 to 20"])
  })
)

it.effect("stops as soon as it is no longer a follower", () =>
  Effect.gen(function* () {
    const promoted = new Fenced({ projection: "p", topic: "t", partition: 0, isPromoted: true })
    const { parts, process } = following(11, promoted)
    assert.strictEqual(yield* Effect.flip(process(12, 10, 11)), promoted)
    assert.deepStrictEqual(parts, ["10 to 11"])
  })
)

it.effect("asks less often the longer it waits, twice a second at least", () =>
  Effect.gen(function* () {
    const { asked, process } = following(10)
    const running = yield* Effect.forkChild(process(12, 10))
    yield* TestClock.adjust("1 second")
    assert.isBelow(asked(), 40)
    yield* TestClock.adjust("1 minute")
    const before = asked()
    yield* TestClock.adjust("1 minute")
    assert.strictEqual(asked() - before, 120)
    yield* Fiber.interrupt(running)
  })
)
