// Relays of one process: whatever ends one of them, the others go on, and it is opened again.
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { again, supervise } from "../../../src/relay/supervised.ts"
import { RelayError, type RelayTarget } from "../../../src/relay/target.ts"

const error = (reason: string, retryable = false) =>
  new RelayError({ target: "t", operation: "publish", retryable, reason })
const lag = Effect.succeed([])
const targetOf = (name: string, publish: RelayTarget["publish"], signal = () => {}): RelayTarget => ({
  name,
  publish,
  wait: Effect.never,
  lag,
  signal
})
const round = { messages: 1, more: true, halted: [] }
const until = (condition: () => boolean) =>
  Effect.gen(function* () {
    while (!condition()) yield* Effect.sleep(1)
  })

/** Ways to end a relay, with the reason that is reported. */
const ends: ReadonlyArray<readonly [string, Effect.Effect<RelayTarget, RelayError, Scope.Scope>, RegExp]> = [
  ["its target cannot be opened", Effect.fail(error("no broker")), /no broker/],
  ["opening its target throws", Effect.sync(() => JSON.parse("{")), /JSON/],
  ["opening its target throws what has no text", Effect.die(Object.create(null)), /no text/],
  ["a round is refused for good", Effect.succeed(targetOf("bad", Effect.fail(error("22021")))), /22021/],
  [
    "a round throws",
    Effect.succeed(
      targetOf(
        "bad",
        Effect.sync(() => {
          throw new TypeError("not a function")
        })
      )
    ),
    /not a function/
  ],
  ["what it listens to is interrupted", Effect.succeed(targetOf("bad", Effect.interrupt)), /./]
]

describe("a relay that ends because", () => {
  for (const [why, open, reason] of ends) {
    it.live(`${why} is opened again, and does not end another one`, () =>
      Effect.scoped(
        Effect.gen(function* () {
          const told: Array<string> = []
          const waits: Array<number> = []
          let rounds = 0
          const publish = Effect.andThen(
            Effect.sleep(1),
            Effect.sync(() => {
              rounds++
              return round
            })
          )
          const bad = supervise("bad", open, lag, {
            firstMs: 2,
            ended: (one, waitMs) => {
              told.push(one)
              waits.push(waitMs)
            }
          })
          const good = supervise("good", Effect.succeed(targetOf("good", publish)), lag, {
            ended: () => assert.fail("it ended")
          })
          yield* Effect.forkScoped(Effect.all([bad.run, good.run], { concurrency: "unbounded", discard: true }))
          yield* until(() => told.length >= 3)
          const before = rounds
          yield* until(() => rounds > before + 3)
          assert.match(told[0]!, reason)
          assert.deepStrictEqual(waits.slice(0, 3), [2, 4, 8])
        })
      )
    )
  }
})

describe("a relay", () => {
  it.live("closes what it opened before it opens it again, and when it is interrupted", () =>
    Effect.gen(function* () {
      const steps: Array<string> = []
      let ended = 0
      let signals = 0
      const open = Effect.acquireRelease(
        Effect.sync(() => {
          steps.push("open")
          let isFirst = true
          const publish = Effect.suspend(() => {
            if (steps.length > 1 || !isFirst) return Effect.never
            isFirst = false
            return Effect.fail(error("gone"))
          })
          return targetOf("t", publish, () => signals++)
        }),
        () => Effect.sync(() => steps.push("close"))
      )
      const one = supervise("t", open, lag, { firstMs: 1, ended: () => ended++ })
      one.signal()
      const fiber = yield* Effect.forkChild(one.run)
      yield* until(() => steps.length === 3)
      yield* Effect.sleep(2)
      one.signal()
      yield* Fiber.interrupt(fiber)
      one.signal()
      assert.deepStrictEqual(steps, ["open", "close", "open", "close"])
      assert.strictEqual(ended, 1)
      assert.strictEqual(signals, 1)
    })
  )
  it.live("is not opened again if it is interrupted while it waits", () =>
    Effect.gen(function* () {
      const waits: Array<number> = []
      const failing = again("it", Effect.fail("no"), { firstMs: 50_000, ended: (_, waitMs) => void waits.push(waitMs) })
      const fiber = yield* Effect.forkChild(failing)
      yield* until(() => waits.length > 0)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(waits, [50_000])
    })
  )
})
