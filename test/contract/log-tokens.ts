// The contract of the log on position tokens: where a token starts a topic, and a topic that is derived from it.
import { assert, type Vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Log } from "../../src/log/log.ts"
import { positionToken } from "../../src/log/position-token.ts"
import { startAtToken } from "../../src/runner/start-at-token.ts"
import { fresh, record } from "./log-support.ts"

/** The token of an append of one record, as the gateway makes it. */
const write = Effect.fnUntraced(function* (topic: string, partition: number) {
  const [at] = yield* (yield* Log).append(topic, [record({ partition })])
  return positionToken([{ topic, partition, position: at!.position + 1 }])
})
const start = Effect.fnUntraced(function* (token: string, topic: string, from: ReadonlyArray<string> = [], waitMs = 0) {
  const found = startAtToken(yield* Log, { token, topic, derivedFrom: new Set(from), waitMs })
  return yield* Effect.map(found, (positions) => [...positions])
})
/** What the log stores from now on has another time. */
const later = Effect.sleep(20)

/** Adds the tests. */
export const logTokens = (it: Vitest.MethodsNonLive<Log>) => {
  it.effect("a token starts its partition behind the write, and the others at what was stored since then", () =>
    Effect.gen(function* () {
      const topic = yield* fresh(3)
      yield* write(topic, 0)
      yield* write(topic, 1)
      yield* later
      const token = yield* write(topic, 0)
      yield* later
      yield* write(topic, 1)
      yield* write(topic, 1)
      yield* write(topic, 0)
      assert.deepStrictEqual(yield* start(token, topic), [2, 1, 0])
    })
  )

  it.effect("a token starts a derived topic at what was published since the write", () =>
    Effect.gen(function* () {
      const [source, derived] = [yield* fresh(2), yield* fresh(2)]
      yield* write(derived, 0)
      yield* later
      const token = yield* write(source, 1)
      yield* later
      yield* write(derived, 0)
      yield* write(derived, 1)
      assert.deepStrictEqual(yield* start(token, derived, [source]), [1, 0])
      const refused = yield* Effect.flip(start(token, derived))
      assert.strictEqual(refused.message, `the token is for "${source}", and ${derived} starts at a token for itself`)
    })
  )

  it.effect("a token that is ahead of the log waits, and is refused after the limit", () =>
    Effect.gen(function* () {
      const topic = yield* fresh()
      const ahead = positionToken([{ topic, partition: 0, position: 2 }])
      yield* write(topic, 0)
      const refused = yield* Effect.flip(start(ahead, topic))
      assert.strictEqual(refused.message, `after 0 ms ${topic}/0 has positions 0 to 1, and the token is for position 2`)
      const waiting = yield* Effect.forkChild(start(ahead, topic, [], 60_000), { startImmediately: true })
      yield* Effect.sleep(50)
      assert.isUndefined(waiting.pollUnsafe())
      yield* write(topic, 0)
      assert.deepStrictEqual(yield* Fiber.join(waiting), [2])
    })
  )
}
