// Members of groups: what a member that is interrupted leaves behind.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { sharePartitions } from "../../../src/log/group.ts"

it.live("a member that is interrupted while it joins leaves after it has joined", () =>
  Effect.gen(function* () {
    const done: Array<string> = []
    const locks = {
      member: 1,
      partitions: 1,
      // the query was sent, and the server answers it whether anybody waits or not
      look: Effect.promise(async () => {
        done.push("asked")
        await new Promise((resolve) => setTimeout(resolve, 20))
        done.push("joined")
        return undefined
      }),
      take: () => Effect.succeed(undefined),
      free: () => Effect.void,
      leave: Effect.sync(() => void done.push("left")),
      changed: Effect.never
    }
    const member = yield* Effect.forkChild(sharePartitions(locks, () => Effect.void))
    yield* Effect.sleep(5)
    yield* Fiber.interrupt(member)
    assert.deepStrictEqual(done, ["asked", "joined", "left"])
  })
)
