// How builds that follow share the event loop with other work.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { FollowerTurns } from "../../../src/runner/follower-turns.ts"

/** Two turns of a batch, each noted by its name. */
const batch = (turns: FollowerTurns, name: string, noted: Array<string>) => {
  const turn = turns.ofBatch()
  const step = Effect.andThen(
    turn,
    Effect.sync(() => void noted.push(name))
  )
  return Effect.andThen(step, step)
}

it.live("gives the oldest batch its turns first, and runs other work between any two turns", () =>
  Effect.gen(function* () {
    const turns = new FollowerTurns()
    const noted: Array<string> = []
    const batches = ["a", "b"].map((name) => batch(turns, name, noted))
    let isOver = false
    const other = (): void => {
      noted.push("-")
      if (!isOver) setImmediate(other)
    }
    const running = yield* Effect.forkChild(Effect.all(batches, { concurrency: "unbounded" }))
    setImmediate(other)
    yield* Fiber.join(running)
    isOver = true
    assert.strictEqual(noted.filter((one) => one !== "-").join(""), "aabb")
    assert.notMatch(noted.join(""), /[ab]{2}/)
  })
)

it.live("a batch that waits for something else, or was interrupted, holds up no other one", () =>
  Effect.gen(function* () {
    const turns = new FollowerTurns()
    const noted: Array<string> = []
    const waiting = yield* Effect.forkChild(Effect.andThen(turns.ofBatch(), Effect.never))
    const interrupted = yield* Effect.forkChild(batch(turns, "interrupted", noted))
    yield* Effect.yieldNow
    yield* Fiber.interrupt(interrupted)
    yield* batch(turns, "a", noted)
    assert.deepStrictEqual(noted, ["a", "a"])
    yield* Fiber.interrupt(waiting)
  })
)

it.live("has two commits under way at most, and a failed or interrupted one makes room", () =>
  Effect.gen(function* () {
    const turns = new FollowerTurns()
    const begun: Array<string> = []
    const commit = <A, E>(name: string, then: Effect.Effect<A, E>) =>
      turns.commit(
        Effect.andThen(
          Effect.sync(() => void begun.push(name)),
          then
        )
      )
    const first = yield* Effect.forkChild(commit("first", Effect.never))
    yield* Effect.yieldNow
    const second = yield* Effect.forkChild(commit("second", Effect.andThen(Effect.yieldNow, Effect.fail("refused"))))
    const third = yield* Effect.forkChild(commit("third", Effect.void))
    const last = yield* Effect.forkChild(commit("last", Effect.never))
    assert.deepStrictEqual(begun, ["first"])
    yield* Effect.flip(Fiber.join(second))
    yield* Fiber.join(third)
    yield* Effect.yieldNow
    assert.deepStrictEqual(begun, ["first", "second", "third", "last"])
    const waiting = yield* Effect.forkChild(commit("waiting", Effect.void))
    yield* Effect.sleep("5 millis")
    assert.strictEqual(begun.length, 4)
    yield* Fiber.interrupt(first)
    yield* Fiber.join(waiting)
    yield* Fiber.interrupt(last)
  })
)
